from __future__ import annotations

import json

import pytest

from selection import (
    BrokenStep,
    Input,
    InvalidOption,
    InvalidRecipe,
    UnknownStep,
    build_step,
    parse_steps,
    registry,
    required,
    step_names,
    step_spec,
)
from selection.registry import find_step, recorded_spec, recorded_steps
from selection.selectors.top import Top
from selection.step import Scorer


def test_parse_steps__bare_names_and_options():
    steps = parse_steps(["rds_max", {"keep_top": {"times": 3}}, {"random": None}])
    assert [step_spec(step) for step in steps] == [
        {"rds_max": {"per": "query", "version": 2}},
        {"keep_top": {"times": 3}},
        {"random": {}},
    ]


def test_parse_steps__a_last_scorer_gets_top():
    assert [step.name for step in parse_steps(["rds_max"])] == ["rds_max", "top"]


def test_parse_steps__steps_pass_through():
    assert parse_steps([Top()]) == (Top(),)


def test_parse_steps__one_step_is_a_list_of_one():
    assert parse_steps("top") == parse_steps({"top": {}}) == parse_steps(Top()) == (Top(),)


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ([], InvalidRecipe, "steps is empty"),
        (7, InvalidRecipe, "steps must be a list, got 7"),
        ([{"top": {}, "random": {}}], InvalidRecipe, "a step is a name or"),
        ([{"top": 5}], InvalidRecipe, "a step is a name or"),
        ([5], InvalidRecipe, "a step is a name or"),
        (["rds_pluss"], UnknownStep, "unknown step 'rds_pluss'. Did you mean 'rds_plus'\\? Known: .*column, combine"),
        (["zzz"], UnknownStep, "unknown step 'zzz'. Known: .*column"),
        (
            [{"rds_plus": {"pre": "set"}}],
            InvalidOption,
            "unknown option 'pre'; it has on_duplicate, per, on_full_group, version. Did you mean 'per'",
        ),
        ([{"top": {"n": 1}}], InvalidOption, "top: unknown option 'n'; it has no options"),
        (["column"], InvalidOption, "column: needs the option 'field', for example {column: {field: ...}}"),
        (["random_subpool"], InvalidRecipe, "ends in the filter 'random_subpool': add a selector"),
        (["top", "random"], InvalidRecipe, "the selector 'top' must be the last step, but 'random' follows"),
        (["rds_max", "rds_mean"], InvalidRecipe, "the scores of 'rds_max' are replaced by those of 'rds_mean'"),
        (["rds_max", "random_subpool", "rds_mean"], InvalidRecipe, "the scores of 'rds_max' are replaced"),
        (["rds_max", "random"], InvalidRecipe, "nothing uses the scores of 'rds_max': 'random' needs none"),
    ],
)
def test_parse_steps__what_cannot_run_is_refused(steps, error, message):
    with pytest.raises(error, match=message):
        parse_steps(steps)


def test_parse_steps__two_scorers_with_a_use_between_are_fine():
    steps = parse_steps(["rds_max", "keep_top", "rds_mean"])
    assert [step.name for step in steps] == ["rds_max", "keep_top", "rds_mean", "top"]


def test_required__says_what_to_load():
    steps = parse_steps(
        [{"column": {"field": "length"}}, "keep_top", {"stratified": {"by": "source", "within": "rds_plus"}}]
    )
    assert required(steps) == ({Input.COLUMNS, Input.VECTORS, Input.TARGETS}, {"length", "source"})
    assert required(parse_steps(["top"])) == ({Input.SCORES}, set())


def test_step_spec__survives_json():
    spec = {
        "stratified": {"by": "source", "alloc": "sqrt", "min_per_stratum": 1, "within": {"rds_plus": {"per": "set"}}}
    }
    assert json.loads(json.dumps(step_spec(build_step(spec)))) == spec


class Installed:
    value = "their_package:Step"

    def __init__(self, loaded):
        self.loaded = loaded

    def load(self):
        return self.loaded


class Theirs(Top):
    name = "theirs"


def test_find_step__third_parties_come_by_entry_point(monkeypatch):
    monkeypatch.setattr(registry, "_installed", lambda: {"theirs": Installed(Theirs), "other": Installed(Theirs)})
    assert isinstance(build_step("theirs"), Theirs)
    assert "theirs" in step_names()
    with pytest.raises(UnknownStep, match="other: the entry point their_package:Step is not a step of that name"):
        build_step("other")


def test_find_step__every_built_in_step_is_where_the_table_says():
    for name in registry.BUILT_IN:
        assert find_step(name).name == name


class Nameless(Scorer):
    pass


class Optionless(Scorer):
    name = "optionless"


def test_build_step__what_an_installed_step_lacks_is_named(monkeypatch):
    monkeypatch.setattr(
        registry, "_installed", lambda: {"nameless": Installed(Nameless), "optionless": Installed(Optionless)}
    )
    with pytest.raises(BrokenStep, match=r"Nameless has no name .*: give the class a `name: ClassVar\[str\] = \.\.\.`"):
        build_step("nameless")
    with pytest.raises(BrokenStep, match="Nameless has no name"):
        parse_steps([Nameless(), "top"])
    with pytest.raises(InvalidRecipe, match=r"a step is no class: Nameless stands where Nameless\(\.\.\.\), an object"):
        parse_steps([Nameless, "top"])
    with pytest.raises(BrokenStep, match="optionless: Optionless must be a frozen dataclass"):
        build_step("optionless")


@pytest.mark.parametrize(
    "recorded",
    [
        {"facility_location": {"weights": "w"}},
        {"facility_location": {"mode": "knn"}},
        {"vote_k": {}},
        {"stratified": {"within": "vote_k"}},
        {"ccs": {"within": {"vote_k": {"rho": 3}}}},
        {"stratified": {"within": {"ccs": {"within": {"facility_location": {"weights": "w"}}}}}},
        {"stratified": {"within": "random"}},
        {"combine": {"rds_max": 1, "column": {"field": "w"}}},
        {"combine": {"rds_mean": [{"normalized": True, "weight": 2}, 1], "column": {"field": "w"}}},
        {"rds_plus": {}},
    ],
)
def test_recorded_steps__what_an_old_record_says_stays_what_it_says(recorded: dict) -> None:
    (name,) = recorded
    tail = ["top"] if name == "combine" else []
    step = recorded_steps([recorded, *tail])[0]
    written = recorded_spec(step)[name]
    assert "version" not in json.dumps(written)
    assert {option: written[option] for option in recorded[name]} == recorded[name]
    assert recorded_spec(recorded_steps([{name: written}, *tail])[0]) == {name: written}


@pytest.mark.parametrize(
    ("step", "versions"),
    [
        ("vote_k", 1),
        ("facility_location", 0),
        ({"facility_location": {"mode": "knn"}}, 1),
        ({"facility_location": {"weights": "w", "version": 1}}, 0),
        ({"stratified": {"within": "vote_k"}}, 1),
        ({"stratified": {"within": {"ccs": {"within": "vote_k"}}}}, 2),
        ({"stratified": {"within": {"vote_k": {"version": 1}}}}, 0),
        ({"stratified": {"within": {"ccs": {"beta": 0.2}}}}, 0),
        ({"probcover": {"delta": 1.0}}, 0),
        ({"probcover": {"classes": 3}}, 1),
        ({"semdedup": {"n_clusters": 1}}, 0),
        ("typiclust", 1),
        ("rds_plus", 1),
        ({"combine": {"rds_max": 1, "rds_mean": [{"normalized": True}, {"version": 1, "weight": 2}]}}, 2),
        ("random", 0),
    ],
)
def test_recorded_spec__a_version_where_it_matters_and_the_way_back(step: object, versions: int) -> None:
    built = build_step(step)  # type: ignore[arg-type]
    written = recorded_spec(built)
    assert json.dumps(written).count("version") == versions
    tail = {"filter": ["random"], "scorer": ["top"]}.get(built.kind, [])
    again = recorded_steps([written, *tail])[0]
    assert again.algorithm == built.algorithm
    assert recorded_spec(again) == written


def test_recorded_spec__an_option_that_came_later_only_where_it_is_set() -> None:
    assert "when_covered" not in recorded_spec(build_step({"probcover": {"delta": 1.0}}))["probcover"]
    step = build_step({"probcover": {"delta": 1.0, "when_covered": "random"}})
    assert recorded_spec(step)["probcover"]["when_covered"] == "random"
    assert recorded_steps([recorded_spec(step)])[0].when_covered == "random"  # type: ignore[attr-defined]
