from __future__ import annotations

import json

import numpy as np
import pytest

from selection import (
    InvalidInput,
    InvalidOption,
    InvalidRecipe,
    MissingInput,
    Pool,
    Quota,
    TokenBudget,
    build_step,
    select,
)
from selection.constraints import Constraints, plain


def pool_of(**columns):
    return Pool(columns={name: np.array(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": ""}, "quota: by must be a name, got ''"),
        ({"by": "source"}, "quota: needs one of shares, caps and balance, got none"),
        (
            {"by": "source", "shares": {"a": 1}, "caps": 3},
            "quota: needs one of shares, caps and balance, got shares and caps",
        ),
        ({"by": "source", "balance": "even"}, "balance must be one of water_fill, inverse_frequency, got 'even'"),
        ({"by": "predicted_class", "balance": "water_fill", "bands": [1]}, "predicted_class is none"),
        (
            {"by": "source", "shares": {"a": 0.5, "b": 0.3}},
            r"shares must add up to 1, got 0\.8; `rest` gives a share to",
        ),
        ({"by": "source", "shares": {"a": 0.9, "rest": 0.3}}, r"shares must add up to 1, got 1\.2$"),
        ({"by": "source", "shares": {"a": 2, "b": -1}}, "shares must be group: number from 0 to 1"),
        ({"by": "source", "shares": [0.5, 0.5]}, "shares must be group: number from 0 to 1"),
        ({"by": "source", "caps": {}}, "caps names no group"),
        ({"by": "source", "caps": 1.5}, r"the cap must be a whole number .* got 1\.5"),
        ({"by": "source", "caps": {"a": 1.0}}, r"the cap of a must be a whole number .* between 0 and 1, got 1\.0"),
        ({"by": "source", "caps": True}, "the cap must be a whole number .* got True"),
        ({"by": "length", "caps": 1, "bands": [5, 5]}, r"bands must be a list of ascending numbers, got \[5, 5\]"),
        ({"by": "length", "caps": 1, "bands": ["x"]}, "bands must be a list of ascending numbers"),
    ],
)
def test_quota__wrong_options_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        Quota(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"budget": 1, "quota": {"shares": {"a": 1}}},
            "quota: 'by' is missing; it has by, bands, shares, caps, balance",
        ),
        (
            {"budget": 1, "quota": {"by": "x", "cap": 1}},
            "quota: unknown option 'cap'; it has by, bands, shares, caps, balance",
        ),
        ({"budget": 1, "quota": ["by"]}, r"quota: must be a mapping of by, bands, .*, got \['by'\]"),
        ({"budget": {"tokens": 5}}, "budget: needs either `column` or `tokenizer` to count tokens by, found neither"),
        ({"budget": {"tokens": 5, "column": "n", "tokenizer": "t"}}, "by, found both"),
        ({"budget": {"column": "n"}}, "budget: 'tokens' is missing; it has tokens, column, tokenizer"),
        ({"budget": {"tokens": -5, "column": "n"}}, "budget: tokens must be an integer >= 0, got -5"),
        ({"budget": 1, "max_per_group": 2}, "max_per_group 2 needs group_by"),
        ({"budget": 1, "group_by": "x", "max_per_group": 0}, "max_per_group must be an integer >= 1, got 0"),
    ],
)
def test_constraints__wrong_options_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        Constraints.of(**options)


@pytest.mark.parametrize(
    ("options", "step", "option", "reason"),
    [
        (
            {"quota": {"by": "x", "cap": 1}},
            "quota",
            "cap",
            "unknown option 'cap'; it has by, bands, shares, caps, balance",
        ),
        ({"quota": {"caps": 1}}, "quota", "by", "'by' is missing; it has by, bands, shares, caps, balance"),
        ({"quota": {"by": "", "caps": 1}}, "quota", "by", "by must be a name, got ''"),
        ({"quota": {"by": "x"}}, "quota", None, "needs one of shares, caps and balance, got none"),
        (
            {"quota": {"by": "x", "shares": {"a": 2}}},
            "quota",
            "shares",
            "shares must be group: number from 0 to 1, got {'a': 2}",
        ),
        (
            {"budget": {"tokens": 1}},
            "budget",
            None,
            "needs either `column` or `tokenizer` to count tokens by, found neither",
        ),
        ({"budget": {"tokens": 1.5, "column": "n"}}, "budget", "tokens", "tokens must be an integer >= 0, got 1.5"),
        (
            {"max_per_group": 2},
            None,
            "max_per_group",
            "max_per_group 2 needs group_by: the column that tells the groups",
        ),
    ],
)
def test_constraints__errors_carry_what_they_are_about(options, step, option, reason):
    with pytest.raises(InvalidOption) as caught:
        Constraints.of(**{"budget": 1} | options)
    error = caught.value
    assert (error.step, error.option, error.reason) == (step, option, reason)
    assert str(error) == (f"{step}: {reason}" if step else reason)


def test_token_budget__tells_the_column_that_counts():
    assert TokenBudget(tokens=1, column="n").counted_in == "n"
    assert TokenBudget(tokens=1, tokenizer="package:x").counted_in == "tokens"
    assert Constraints.of({"tokens": 1, "tokenizer": "package:x"}).columns == {"tokens"}
    with pytest.raises(MissingInput, match="quota, group_by or budget needs column 'tokens'"):
        select("random", pool_of(n=[1, 2]), budget={"tokens": 1, "tokenizer": "package:x"})


@pytest.mark.parametrize(
    "options",
    [
        {"by": "a", "shares": {"x": 0.25, "rest": 0.75}},
        {"by": "a", "bands": [1, 2.5], "caps": {"..1": 3, "rest": 0.1}},
        {"by": "a", "balance": "water_fill"},
    ],
)
def test_plain__rebuilds_through_json(options):
    assert plain(Quota(**options)) == options
    assert Quota.of(json.loads(json.dumps(plain(Quota(**options))))) == Quota(**options)
    assert plain(TokenBudget(tokens=3, column="n")) == {"tokens": 3, "column": "n"}


def test_groups__named_ones_by_name_and_rest_last():
    quota = Quota(by="source", shares={"rest": 0.5, "b": 0.25, "a": 0.25})
    group, names = quota.groups(Pool(columns={"source": np.array(["b", None, "c", "a"], object)}))
    assert names == ("a", "b", "rest")
    assert group.tolist() == [1, 2, 2, 0]


def test_groups__without_rest_the_others_are_in_none():
    quota = Quota(by="source", caps={"b": 1, "null": 2})
    group, names = quota.groups(Pool(columns={"source": np.array(["b", None, "c", "a"], object)}))
    assert names == ("b", "null")
    assert group.tolist() == [0, 1, -1, -1]


def test_groups__numbers_are_named_as_they_are_written():
    quota = Quota(by="label", caps={"1": 1, "2.5": 2})
    assert quota.groups(pool_of(label=[1.0, 2.5, 3.0]))[0].tolist() == [0, 1, -1]


def test_groups__bands_have_their_lower_edge():
    quota = Quota(by="length", bands=[200, 1000], shares={"..200": 0.2, "200..1000": 0.5, "1000..": 0.3})
    pool = pool_of(length=[199.5, 200, 999, 1000, 7, np.nan])
    group, names = quota.groups(pool)
    assert names == ("..200", "1000..", "200..1000")
    assert group.tolist() == [0, 2, 2, 1, 0, -1]
    with pytest.raises(InvalidInput, match="bands need a numeric column, 'length' is "):
        quota.groups(pool_of(length=["a", "b"]))


def test_groups__one_that_no_row_has_is_refused():
    with pytest.raises(InvalidOption, match=r"^quota: no row has source 'wiky'; there are: forum, wiki$"):
        Quota(by="source", caps={"wiky": 1}).groups(pool_of(source=["wiki", "forum"]))
    with pytest.raises(InvalidOption, match=r"no row has length '\.\.20'; there are: \.\.200, 200\.\., null$"):
        Quota(by="length", bands=[200], caps={"..20": 1}).groups(pool_of(length=[1.0, 300.0]))


def test_groups__predicted_class_is_the_label_or_the_likeliest_class():
    probabilities = np.array([[0.4, 0.4, 0.2], [0.1, 0.2, 0.7], [1, 0, 0], [0.2, 0.5, 0.3]])
    pool = Pool(probabilities=probabilities, labels=[-1, -1, 2, -1])
    group, names = Quota(by="predicted_class", balance="water_fill").groups(pool)
    assert (group.tolist(), names) == ([0, 2, 2, 1], ("0", "1", "2"))
    group, names = Quota(by="predicted_class", caps={"2": 1, "rest": 5}).groups(pool)
    assert (group.tolist(), names) == ([1, 0, 0, 1], ("2", "rest"))
    with pytest.raises(InvalidInput, match="labels: row 2 is 3, of 3 classes"):
        Quota(by="predicted_class", caps=1).groups(Pool(probabilities=probabilities, labels=[-1, -1, 3, -1]))
    probabilities[3, 1] = np.nan
    with pytest.raises(InvalidInput, match="probabilities: row 3 holds nan, must be finite and >= 0"):
        Quota(by="predicted_class", caps=1).groups(Pool(probabilities=probabilities))


def test_most__parts_are_rounded_down_as_they_are_written():
    quota = Quota(by="source", caps={"a": 0.29, "b": 7, "c": 0})
    assert quota.most(("a", "b", "c"), 100).tolist() == [29, 7, 0]
    assert Quota(by="source", caps=0.2).most(("x", "y"), 14).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("constraints", "demand"),
    [
        ({"budget": {"tokens": 1, "column": "n"}}, "a budget in tokens"),
        ({"budget": 1, "group_by": "c"}, "max_per_group"),
        ({"budget": 1, "quota": {"by": "s", "caps": 1}}, "a quota of caps"),
    ],
)
def test_check_selector__what_walks_needs_a_nested_one(constraints, demand):
    constraints = Constraints.of(**constraints)
    for step in ("rs2", "ccs", {"facility_location": {"mode": "stochastic"}}):
        with pytest.raises(InvalidRecipe, match=f"^{demand} walks the selector's picks in order"):
            constraints.check_selector(build_step(step))
    constraints.check_selector(build_step("random"))
    Constraints.of(1, {"by": "s", "shares": {"a": 1}}).check_selector(build_step("rs2"))


def test_costs__name_the_row_whose_tokens_are_wrong():
    constraints = Constraints.of({"tokens": 9, "column": "n"})
    with pytest.raises(InvalidInput, match="budget: column 'n' of row 1 is nan, must be a number >= 0"):
        constraints.costs(pool_of(n=[1.0, np.nan, 2.0]))
    with pytest.raises(InvalidInput, match="of row 2 is -2"):
        constraints.costs(pool_of(n=[1.0, 1.0, -2.0]))
    with pytest.raises(InvalidInput, match="column 'n' must be numeric"):
        constraints.costs(pool_of(n=["a", "b"]))
    outside = Pool(columns={"n": np.array([1.0, np.nan])}, eligible=[True, False])
    assert constraints.costs(outside)[0] == 1


def test_rows__tokens_are_as_many_rows_as_they_hold_on_average():
    pool = pool_of(n=[10, 20, 30, 40])
    for tokens, rows in ((0, 0), (50, 2), (51, 3), (500, 4)):
        assert Constraints.of({"tokens": tokens, "column": "n"}).on(pool).rows(pool) == rows
