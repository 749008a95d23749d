"""Draws within constraints, beside a naive walk along the whole order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import (
    BrokenStep,
    InvalidBudget,
    InvalidOption,
    InvalidRecipe,
    MissingInput,
    Pool,
    Reason,
    Selection,
    Selector,
    select,
)
from selection.constrained import GroupCapacity, capped_selection


def pool_of(n=60, seed=0, **more):
    rng = np.random.default_rng(seed)
    columns = {
        "source": rng.choice(np.array(["a", "b", "c", None], object), n, p=[0.5, 0.25, 0.15, 0.1]),
        "talk": rng.choice(np.array([*"uvwxyz", None], object), n),
        "n_tokens": rng.integers(0, 30, n).astype(float),
        "length": rng.integers(0, 2000, n).astype(float),
    }
    vectors = rng.normal(size=(n, 4)).astype(np.float32)
    return Pool(columns=columns, scores=rng.random(n), vectors=vectors, **more)


def order_of(steps, pool, seed=0):
    return select(steps, pool, budget=int(pool.candidates.sum()), seed=seed).rows.tolist()


def naive(order, pool, *, budget, cap=None, by="source", tokens=None, group_by=None, most=1):
    """Row by row along the whole order."""
    cost = pool.columns[tokens] if tokens else np.ones(len(pool))
    taken, used, talks, closed, spent = [], Counter(), Counter(), set(), 0.0
    for row in pool.get_already_selected().tolist():
        used[pool.columns[by][row]] += cost[row]
        if group_by:
            talks[pool.columns[group_by][row]] += 1
    for row in order:
        if spent >= budget:
            break
        group = pool.columns[by][row]
        talk = pool.columns[group_by][row] if group_by else None
        if talk is not None and talks[talk] >= most:
            continue
        if cap is not None:
            limit = cap.get(group, np.inf) if isinstance(cap, dict) else cap
            if group in closed or used[group] >= limit:
                continue
            if used[group] + cost[row] > limit:
                closed.add(group)
                continue
        if spent + cost[row] > budget:
            break
        taken.append(row)
        spent += cost[row]
        used[group] += cost[row]
        talks[talk] += 1
    return taken


STEPS = (["random"], ["top"], ["k_center"])


@settings(max_examples=60)
@given(
    data=st.data(),
    seed=st.integers(0, 50),
    steps=st.sampled_from(STEPS),
    cap=st.one_of(
        st.none(), st.integers(0, 12), st.dictionaries(st.sampled_from("abc"), st.integers(0, 12), min_size=1)
    ),
    most=st.one_of(st.none(), st.integers(1, 4)),
    already=st.integers(0, 9),
)
def test_select__caps_and_groups_are_the_walk_along_the_whole_order(data, seed, steps, cap, most, already):
    pool = pool_of(seed=seed, already_selected=np.random.default_rng(seed).permutation(60)[:already])
    budget = data.draw(st.integers(1, 60))
    expected = naive(
        order_of(steps, pool), pool, budget=budget, cap=cap, group_by="talk" if most else None, most=most or 1
    )
    got = select(
        steps,
        pool,
        budget=budget,
        quota=None if cap is None else {"by": "source", "caps": cap},
        group_by="talk" if most else None,
        max_per_group=most or 1,
        allow_short=True,
    )
    assert got.rows.tolist() == expected
    assert got.exhausted == (len(expected) < budget)
    if isinstance(cap, int):
        taken = np.concatenate([got.rows, pool.get_already_selected()])
        before = Counter(pool.columns["source"][pool.get_already_selected()].tolist())
        counts = Counter(pool.columns["source"][taken].tolist())
        assert all(count <= max(cap, before[group]) for group, count in counts.items())


@settings(max_examples=60)
@given(
    data=st.data(),
    seed=st.integers(0, 50),
    steps=st.sampled_from(STEPS),
    cap=st.one_of(st.none(), st.integers(0, 200)),
    most=st.one_of(st.none(), st.integers(1, 4)),
)
def test_select__tokens_are_the_walk_along_the_whole_order(data, seed, steps, cap, most):
    pool = pool_of(seed=seed)
    budget = data.draw(st.integers(1, int(pool.columns["n_tokens"].sum())))
    constraints = {"group_by": "talk" if most else None, "max_per_group": most or 1}
    got = select(
        steps,
        pool,
        budget={"tokens": budget, "column": "n_tokens"},
        quota=None if cap is None else {"by": "source", "caps": cap},
        allow_short=True,
        **constraints,
    )
    expected = naive(
        order_of(steps, pool),
        pool,
        budget=budget,
        cap=cap,
        tokens="n_tokens",
        group_by="talk" if most else None,
        most=most or 1,
    )
    assert got.rows.tolist() == expected
    assert pool.columns["n_tokens"][got.rows].sum() <= budget
    if cap is None and most is None:
        assert not got.exhausted
        order = order_of(steps, pool)
        assert got.rows.tolist() == order[: len(got.rows)]


@settings(max_examples=60)
@given(
    budget=st.integers(0, 30),
    seed=st.integers(0, 20),
    step=st.sampled_from(["random", "k_center", "rs2", {"ccs": {"beta": 0}}]),
    already=st.integers(0, 9),
)
def test_select__shares_are_met_exactly_by_one_draw_in_each_group(budget, seed, step, already):
    source = np.repeat(["a", "b", "c", "d"], 30)
    rng = np.random.default_rng(seed)
    vectors, scores = rng.normal(size=(120, 4)).astype(np.float32), rng.random(120)
    pool = Pool(
        columns={"source": source}, vectors=vectors, scores=scores, already_selected=np.arange(0, 3 * already, 3)
    )
    if step in ("random", "k_center", "rs2"):
        pool = Pool(columns={"source": source}, vectors=vectors, already_selected=np.arange(0, 3 * already, 3))
    shares = {"b": 0.5, "a": 0.25, "rest": 0.25}
    got = select([step], pool, budget=budget, quota={"by": "source", "shares": shares}, seed=seed)
    assert len(set(got.rows.tolist())) == budget
    assert not np.isin(got.rows, pool.get_already_selected()).any()
    counts = Counter(np.where(np.isin(source, ["a", "b"]), source, "rest")[got.rows].tolist())
    total = budget + already  # what is already selected is all from a
    if already <= total / 4:
        assert abs(counts["a"] + already - total / 4) < 1
        assert abs(counts["b"] - total / 2) < 1
    else:
        assert counts["a"] == 0
        assert abs(counts["b"] - budget * 2 / 3) < 1


def test_select__a_share_is_the_draw_on_that_group_with_what_came_before_as_centres():
    pool = pool_of()
    source = pool.columns["source"]
    got = select(["k_center"], pool, budget=12, quota={"by": "source", "shares": {"a": 0.5, "b": 0.5}})
    first = select(["k_center"], Pool(vectors=pool.vectors, eligible=source == "a"), budget=6).rows
    then = select(
        ["k_center"], Pool(vectors=pool.vectors, eligible=source == "b", already_selected=first), budget=6
    ).rows
    assert [row for row in got.rows.tolist() if source[row] == "a"] == first.tolist()
    assert [row for row in got.rows.tolist() if source[row] == "b"] == then.tolist()
    assert source[got.rows].tolist() == ["a", "b"] * 6  # interleaved


def test_select__a_share_of_nothing_draws_nothing():
    pool = pool_of()
    got = select(["random"], pool, budget=9, quota={"by": "source", "shares": {"a": 1, "b": 0}})
    assert set(pool.columns["source"][got.rows]) == {"a"}


def test_select__shares_of_tokens_stop_before_the_row_that_overflows():
    pool = pool_of(200)
    source, tokens = pool.columns["source"], pool.columns["n_tokens"]
    shares = {"a": 0.6, "rest": 0.4}
    got = select(
        ["top"], pool, budget={"tokens": 500, "column": "n_tokens"}, quota={"by": "source", "shares": shares}
    ).rows
    order = np.array(order_of(["top"], pool))
    for members, part in ((source == "a", 300), (source != "a", 200)):
        ordered = order[members[order]]
        expected = ordered[np.cumsum(tokens[ordered]) <= part]
        assert [row for row in got.tolist() if members[row]] == expected.tolist()


def test_select__shares_and_max_per_group_combine():
    pool = pool_of(400)
    got = select(
        ["random"],
        pool,
        budget=12,
        quota={"by": "source", "shares": {"a": 0.5, "b": 0.5}},
        group_by="talk",
        max_per_group=3,
    )
    talks = Counter(pool.columns["talk"][got.rows].tolist())
    assert Counter(pool.columns["source"][got.rows].tolist()) == {"a": 6, "b": 6}
    assert all(count <= 3 for talk, count in talks.items() if talk is not None)


def test_select__bands_of_a_numeric_column():
    pool = pool_of(300)
    shares = {"..200": 0.2, "200..1000": 0.5, "1000..": 0.3}
    got = select(["top"], pool, budget=50, quota={"by": "length", "bands": [200, 1000], "shares": shares})
    length = pool.columns["length"][got.rows]
    assert [int((length < 200).sum()), int(((length >= 200) & (length < 1000)).sum())] == [10, 25]


def test_select__rest_is_one_group():
    pool = pool_of(200)
    got = select(["random"], pool, budget=20, quota={"by": "source", "caps": {"a": 12, "rest": 8}})
    assert int((pool.columns["source"][got.rows] == "a").sum()) == 12


def test_select__parts_are_of_the_budget_and_what_is_already_selected():
    source = np.repeat(["a", "b"], 50)
    pool = Pool(columns={"source": source}, already_selected=np.arange(8))
    got = select(
        ["top"],
        Pool(columns={"source": source}, scores=-np.arange(100), already_selected=np.arange(8)),
        budget=12,
        quota={"by": "source", "caps": 0.5},
    )
    assert Counter(source[got.rows].tolist()) == {"a": 2, "b": 10}
    with pytest.raises(
        InvalidBudget, match=r"^the quota by source leaves 9 rows for a budget of 12: b 9 of 50, a 0 of 42\."
    ):
        select(["random"], pool, budget=12, quota={"by": "source", "caps": {"a": 8, "b": 9}})


def test_select__topped_up_is_one_draw():
    """Part of a budget, then the rest with that already selected, gives what the whole budget gives."""
    pool = pool_of(200)
    constraints = {
        "quota": {"by": "source", "caps": {"a": 9, "b": 7, "rest": 14}},
        "group_by": "talk",
        "max_per_group": 6,
    }
    whole = select(["random"], pool, budget=25, **constraints).rows
    first = select(["random"], pool, budget=10, **constraints).rows
    then = select(["random"], pool_of(200, already_selected=first), budget=15, **constraints).rows
    assert np.concatenate([first, then]).tolist() == whole.tolist()


def test_select__impossible_quotas_name_groups_and_numbers():
    columns = {"source": np.array(["a"] * 10 + ["b"] * 3), "n": np.full(13, 5.0)}
    pool = Pool(columns=columns)

    def fails(message, **constraints):
        with pytest.raises(InvalidBudget, match=message):
            select(["random"], pool, **constraints)
        return select(["random"], pool, allow_short=True, **constraints)

    got = fails(
        r"^the quota by source cannot be met, in rows: b has 3 for a share of 5\. allow_short takes what there is$",
        budget=10,
        quota={"by": "source", "shares": {"a": 0.5, "b": 0.5}},
    )
    assert got.exhausted
    assert len(got.rows) == 8
    got = fails(
        r"^the quota by source leaves 6 rows for a budget of 8: a 3 of 10, b 3 of 3\.",
        budget=8,
        quota={"by": "source", "caps": 3},
    )
    assert got.exhausted
    assert len(got.rows) == 6
    fails(
        r"^max_per_group 1 of source leaves 2 rows for a budget of 3: there are 2 groups", budget=3, group_by="source"
    )
    fails(
        r"b has 15 for a share of 20\.",
        budget={"tokens": 40, "column": "n"},
        quota={"by": "source", "shares": {"a": 0.5, "b": 0.5}},
    )
    got = fails(r"^13 candidates have 65 tokens for a budget of 66\.", budget={"tokens": 66, "column": "n"})
    assert got.exhausted
    assert len(got.rows) == 13


def test_select__what_only_the_walk_can_tell_is_said_after_it():
    # Each alone would do: 2 of each source, 1 of each talk; but all talks of b are those of a.
    columns = {"source": np.array(["a", "a", "b", "b"]), "talk": np.array(["x", "y", "x", "x"])}
    pool = Pool(columns=columns, scores=[4, 3, 2, 1])
    with pytest.raises(InvalidBudget, match=r"the quota by source leaves 3"):
        select(["top"], pool, budget=4, quota={"by": "source", "caps": {"b": 1}}, group_by="talk")
    columns["talk"] = np.array(["x", "y", "x", "z"])
    pool = Pool(columns=columns, scores=[4, 3, 2, 1])
    constraints = {"quota": {"by": "source", "caps": {"a": 1}}, "group_by": "talk"}
    with pytest.raises(
        InvalidBudget,
        match=r"^top within the quota by source and max_per_group 1 of talk found only 2 of 3 rows; allow_short takes",
    ):
        select(["top"], pool, budget=3, **constraints)
    short = select(["top"], pool, budget=3, allow_short=True, **constraints)
    assert short.rows.tolist() == [0, 3]
    assert short.exhausted


def test_select__tokens_left_over_by_stopping_before_a_row_are_no_lack():
    columns = {"source": np.array(["a"] * 9 + ["b"] * 9), "n": np.full(18, 10.0)}
    got = select(
        ["random"], Pool(columns=columns), budget={"tokens": 110, "column": "n"}, quota={"by": "source", "caps": 55}
    )
    assert Counter(columns["source"][got.rows].tolist()) == {"a": 5, "b": 5}
    assert not got.exhausted


def test_select__an_error_after_filters_says_so():
    source = np.array(["a"] * 10 + ["b"] * 10)
    pool = Pool(columns={"source": source}, scores=np.arange(20))
    with pytest.raises(InvalidBudget, match=r"a 0 .* \(candidates left after keep_top\)"):
        select([{"keep_top": {"times": 2}}, "top"], pool, budget=5, quota={"by": "source", "caps": {"a": 2, "b": 4}})


@pytest.mark.parametrize("step", ["k_center", "influence", "vote_k", "top"])
@pytest.mark.parametrize("constraints", [{"group_by": "talk"}, {"quota": {"by": "source", "caps": 0.5}}])
def test_select__a_walk_after_filters_that_leave_nothing_is_empty(step, constraints):
    pool = pool_of(12, labels=np.zeros(12, int))  # nothing is unlabelled, so seals finds nothing
    s = select([{"seals": {"n_neighbors": 3}}, step], pool, budget=2, allow_short=True, **constraints)
    assert s.exhausted
    assert not len(s.rows)


def test_select__a_named_group_that_no_row_has():
    with pytest.raises(InvalidOption, match=r"no row has source 'x'; there are: a, b, c, null"):
        select(["random"], pool_of(), budget=1, quota={"by": "source", "caps": {"x": 1}}, allow_short=True)
    # One that only the filters dropped is no mistake.
    eligible = pool_of().columns["source"] != "a"
    select(["random"], pool_of(eligible=eligible), budget=1, quota={"by": "source", "caps": {"a": 1}})


def test_select__constraints_need_their_columns():
    with pytest.raises(MissingInput, match=r"quota, group_by or budget needs column 'lang'"):
        select(["random"], pool_of(), budget=1, group_by="lang")


def test_select__constraints_that_walk_need_a_nested_selector():
    with pytest.raises(InvalidRecipe, match=r"a quota of caps walks .*'ccs', with these options, is not"):
        select(["ccs"], pool_of(), budget=1, quota={"by": "source", "caps": 1})


def test_select__budget_of_nothing():
    assert len(select(["random"], pool_of(), budget=0, quota={"by": "source", "caps": 1}).rows) == 0
    assert len(select(["random"], pool_of(), budget={"tokens": 0, "column": "n_tokens"}).rows) == 0
    none = Pool(columns={"n": np.empty(0)})
    assert select(["random"], none, budget={"tokens": 5, "column": "n"}, allow_short=True).exhausted
    with pytest.raises(InvalidBudget, match="0 candidates have 0 tokens"):
        select(["random"], none, budget={"tokens": 5, "column": "n"})


def test_select__reasons_stay_those_of_the_selector():
    pool = pool_of()
    plain = select(["top"], pool, budget=60)
    got = select(["top"], pool, budget=12, quota={"by": "source", "caps": 4})
    place = {row: i for i, row in enumerate(plain.rows.tolist())}
    assert got.reason.rank.tolist() == plain.reason.rank[[place[row] for row in got.rows.tolist()]].tolist()
    assert got.gain.tolist() == plain.gain[[place[row] for row in got.rows.tolist()]].tolist()


def test_select__a_share_names_the_rows_of_the_pool_as_reasons():
    pool = pool_of()
    vectors = pool.get_vectors().take(np.arange(60))
    got = select(["k_center"], pool, budget=20, quota={"by": "source", "shares": {"b": 0.5, "c": 0.5}})
    assert set(got.reason.kind[2:]) == {"centre"}
    for row, centre, value in zip(got.rows[2:], got.reason.ref[2:], got.reason.value[2:], strict=True):
        assert np.linalg.norm(vectors[row] - vectors[centre]) == pytest.approx(value, rel=1e-5)


def predicted(n=80, labelled=(10, 2, 5), seed=0):
    """A pool whose first rows are labelled, so many of each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(range(len(labelled)), labelled)
    return {
        "probabilities": rng.dirichlet(np.ones(len(labelled)), n),
        "labels": np.concatenate([labels, np.full(n - len(labels), -1)]),
        "already_selected": np.arange(len(labels)),
        "scores": rng.random(n),
    }


@pytest.mark.parametrize(("balance", "counts"), [("water_fill", [0, 6, 3]), ("inverse_frequency", [1, 6, 2])])
@pytest.mark.parametrize("step", ["top", "random"])
def test_select__balance_gives_to_the_classes_that_have_least(balance, counts, step):
    inputs = predicted()
    picked = select([step], Pool(**inputs), budget=9, quota={"by": "predicted_class", "balance": balance})
    classes = inputs["probabilities"].argmax(axis=1)
    assert np.bincount(classes[picked.rows], minlength=3).tolist() == counts
    if step == "top":
        for c in range(3):
            members = np.flatnonzero((classes == c) & (inputs["labels"] < 0))
            best = members[np.argsort(-inputs["scores"][members])][: counts[c]]
            assert picked.rows[classes[picked.rows] == c].tolist() == best.tolist()


def test_select__balance_takes_what_a_class_has_and_no_more():
    inputs = predicted()
    classes = inputs["probabilities"].argmax(axis=1)
    spare = np.flatnonzero((classes == 1) & (inputs["labels"] < 0))[4:]
    pool = Pool(**inputs, eligible=~np.isin(np.arange(80), spare))
    quota = {"by": "predicted_class", "balance": "water_fill"}
    picked = select(["top"], pool, budget=9, quota=quota)
    assert np.bincount(classes[picked.rows], minlength=3).tolist() == [0, 4, 5]
    everything = select(["top"], pool, budget=200, quota=quota, allow_short=True)
    assert everything.exhausted
    assert len(everything.rows) == int(pool.candidates.sum())


def test_select__balance_over_any_column_and_with_groups():
    rng = np.random.default_rng(1)
    source = np.array(["a", "b", "c"])[rng.integers(0, 3, 60)]
    pool = Pool(scores=rng.random(60), columns={"source": source, "chat": np.arange(60) % 20})
    quota = {"by": "source", "balance": "water_fill"}
    picked = select(["top"], pool, budget=12, quota=quota, group_by="chat")
    assert sorted(source[picked.rows].tolist()) == ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert len(set((picked.rows % 20).tolist())) == 12


def test_select__classes_are_predicted_only_for_what_the_filters_leave():
    class Model:
        """Probabilities that cost a model pass for each row."""

        shape = (1000, 3)
        evaluated = 0

        def blocks(self):
            raise AssertionError("evaluates every row")

        def take(self, rows):
            self.evaluated += len(rows)
            return np.random.default_rng(0).dirichlet(np.ones(3), 1000)[rows]

    model = Model()
    quota = {"by": "predicted_class", "balance": "water_fill"}
    steps = [{"random_subpool": {"rows": 50}}, "random"]
    picked = select(steps, Pool(probabilities=model), budget=9, quota=quota)
    assert model.evaluated == 50
    assert np.bincount(model.take(picked.rows).argmax(axis=1), minlength=3).tolist() == [3, 3, 3]


def test_select__balance_that_cannot_be_met_says_what_there_is():
    quota = {"by": "predicted_class", "balance": "water_fill"}
    steps = [{"random_subpool": {"rows": 5}}, "random"]
    with pytest.raises(
        InvalidBudget, match=r"groups by predicted_class have 5 rows, asked for 9.*after random_subpool"
    ):
        select(steps, Pool(**predicted()), budget=9, quota=quota)
    with pytest.raises(MissingInput, match="the quota needs probabilities"):
        select(["random"], Pool(scores=[1.0, 2.0]), budget=1, quota=quota)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deep(Selector):
    """Lowest row first; notes how deep it was asked to go."""

    asked: list
    honest: bool = True
    name: ClassVar[str] = "deep"
    nested: ClassVar[bool] = True

    def select(self, pool, budget, *, rng):
        self.asked.append(budget)
        rows = np.flatnonzero(pool.candidates)[:budget]
        rows = rows if self.honest else rows[::-1]
        return Selection(rows, np.zeros(len(rows), np.float32), Reason.of("draw", len(rows)))


def test_select__a_walk_goes_only_as_deep_as_it_must():
    source = np.array(["a"] * 30 + ["b"] * 970)
    asked = []
    select([Deep(asked=asked)], Pool(columns={"source": source}), budget=20, quota={"by": "source", "caps": {"a": 5}})
    assert asked == [20, 40, 80]
    asked.clear()
    select([Deep(asked=asked)], Pool(columns={"source": source}), budget=20, quota={"by": "source", "caps": 10})
    assert asked == [20, 40]
    asked.clear()
    # Both groups are full after ten rows: deeper draws could give nothing.
    short = select(
        [Deep(asked=asked)], Pool(columns={"source": source}), budget=20, group_by="source", allow_short=True
    )
    assert short.rows.tolist() == [0, 30]
    assert asked == [20, 40]


def test_select__a_step_that_claims_to_be_nested_is_watched():
    source = np.array(["a"] * 30 + ["b"] * 70)
    with pytest.raises(BrokenStep, match="deep: says that it is nested, but a budget of 40 begins otherwise"):
        select(
            [Deep(asked=[], honest=False)],
            Pool(columns={"source": source}),
            budget=20,
            quota={"by": "source", "caps": 5},
            allow_short=True,
        )


def test_capped_selection__a_row_that_does_not_fit_closes_its_group():
    pool = Pool(scores=np.zeros(6))
    cost = np.array([3.0, 3, 1, 1, 2, 1])
    capacities = [
        GroupCapacity.of(np.array([0, 0, 0, 1, 1, -1]), cost, np.array([5.0, 9.0])),
        GroupCapacity.whole(cost, 20),
    ]
    picked, missing = capped_selection(Deep(asked=[]), pool, capacities, lambda: np.random.default_rng(0), first=2)
    # Row 1 overflows what is left of group 0, which is closed from then on, so that row 2 is not taken either.
    assert picked.rows.tolist() == [0, 3, 4, 5]
    assert capacities[0].closed == [2, 0]  # once a row was selected
    assert missing == 20 - 7 - 2


def test_group_capacity__is_shared_with_subpools():
    capacity = GroupCapacity.of(np.array([0, 1, -1]), np.ones(3), np.array([0.0, 2.0]))
    assert capacity.open().tolist() == [False, True, True]
    capacity.take(np.array([1, 2])).closed[1] = True
    assert capacity.open().tolist() == [False, False, True]
