from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import (
    InvalidBudget,
    InvalidInput,
    InvalidOption,
    MissingInput,
    Pool,
    Reason,
    Selection,
    Selector,
    build_step,
    select,
    step_spec,
)
from selection.allocation import as_written
from selection.checks import check_step
from selection.selectors.ccs import Ccs, equal_width, smallest_first, without_hardest

TEN = [0.05, 0.1, 0.15, 0.2, 0.3, 0.32, 0.35, 0.5, 0.55, 0.9]


def test_select__budgets_and_forced_picks_of_ten_scores() -> None:
    step = Ccs(beta=0.2, n_strata=4)
    pool = Pool(scores=np.array(TEN))
    rows = without_hardest(pool, pool.get_scores(), as_written(0.2), hard="low")
    assert rows.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    stratum, names = equal_width(pool.get_scores()[rows], 4)
    assert stratum.tolist() == [0, 0, 0, 0, 1, 1, 2, 3]
    assert len(names) == 4
    drawn = set()
    for seed in range(40):
        picked = select([step], pool, budget=5, seed=seed)
        assert np.bincount(picked.reason.ref).tolist() == [2, 1, 1, 1]
        assert {8, 9} <= set(picked.rows.tolist())
        assert not {0, 1} & set(picked.rows.tolist())
        drawn |= set(picked.rows.tolist())
    assert drawn == set(range(2, 10))


def test_select__hard_high_drops_the_highest() -> None:
    picked = select([Ccs(beta=0.2, hard="high")], Pool(scores=np.array(TEN)), budget=8)
    assert sorted(picked.rows.tolist()) == list(range(8))


@pytest.mark.parametrize(
    ("n", "budget", "dropped"),
    [
        (100, 10, 30), (100, 20, 20), (100, 30, 10), (100, 50, 0), (100, 100, 0),  # as in the paper
        (100, 1, 30), (1000, 15, 300), (10, 3, 1), (7, 2, 0), (30, 4, 8), (1, 1, 0),
    ],
)  # fmt: skip
def test_select__beta_goes_by_the_budget(n: int, budget: int, dropped: int) -> None:
    pool = Pool(scores=np.arange(n, dtype=np.float32))
    share = min(0.3, max(0.0, 0.4 - budget / n))
    assert abs(dropped - share * n) < 1
    whole = select([{"stratified": {"within": "ccs"}}], Pool(scores=pool.get_scores(), groups=["a"] * n), budget=budget)
    assert whole.rows.min() >= dropped
    assert Ccs().share_dropped(pool, budget) * n // 1 == dropped


def test_select__beta_is_a_share_of_what_is_left_to_choose_from() -> None:
    pool = Pool(scores=np.arange(40.0), already_selected=range(20, 40), eligible=np.arange(40) >= 10)
    assert Ccs().share_dropped(pool, 1) == as_written(0.3)
    assert select(["ccs"], pool, budget=7).rows.min() >= 10  # 7 of 10 is too many to drop any


def test_select__beta_of_version_1_is_a_tenth() -> None:
    assert Ccs(version=1).share_dropped(Pool(scores=np.arange(10.0)), 1) == as_written(0.1)


def test_without_hardest__the_share_is_taken_as_written_and_ties_go_by_row() -> None:
    ones = np.ones(100, np.float32)
    assert len(without_hardest(Pool(scores=ones), ones, as_written(0.29), hard="low")) == 71
    for hard in ("low", "high"):
        assert without_hardest(Pool(scores=ones[:10]), ones[:10], as_written(0.2), hard=hard).tolist() == list(
            range(2, 10)
        )


@given(data=st.data(), n=st.integers(2, 25), hard=st.sampled_from(["low", "high"]), tenths=st.sampled_from([0, 3, 9]))
def test_select__cut_by_cuts_by_a_column_and_leaves_strata_to_the_score(
    data: st.DataObject, n: int, hard: str, tenths: int
) -> None:
    scores = data.draw(st.lists(st.integers(-3, 9), min_size=n, max_size=n))
    aum = data.draw(st.lists(st.integers(-2, 2), min_size=n, max_size=n))
    already = data.draw(st.integers(0, n - 1))
    others = [i for i in range(n) if i != already]
    hardest = sorted(others, key=lambda i: (aum[i] if hard == "low" else -aum[i], i))[: tenths * len(others) // 10]
    left = [i for i in others if i not in hardest]
    low, high = min(scores[i] for i in left), max(scores[i] for i in left)
    width = (high - low) / 4
    pool = Pool(scores=np.array(scores), columns={"aum": np.array(aum)}, already_selected=[already])
    picked = select([Ccs(beta=tenths / 10, n_strata=4, hard=hard, cut_by="aum")], pool, budget=len(left))
    assert sorted(picked.rows.tolist()) == left
    for row, stratum in zip(picked.rows.tolist(), picked.reason.ref.tolist(), strict=True):
        assert stratum == (min(3, math.floor((scores[row] - low) / width)) if width else 0)


def test_select__without_cut_by_the_score_cuts() -> None:
    pool = Pool(scores=np.array(TEN), columns={"aum": np.array(TEN)})
    steps = [Ccs(beta=0.3, cut_by=cut_by) for cut_by in (None, "aum")]
    a, b = (select([step], pool, budget=6, seed=2) for step in steps)
    assert a.rows.tolist() == b.rows.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, None, "hard"])
def test_select__a_bad_value_of_cut_by_is_named(bad: object) -> None:
    column = np.array([*TEN[:3], bad, *TEN[4:]], object)
    with pytest.raises(InvalidInput, match="column 'aum': row 3"):
        select([Ccs(cut_by="aum")], Pool(scores=np.array(TEN), columns={"aum": column}), budget=2)


def test_select__cut_by_needs_its_column() -> None:
    with pytest.raises(MissingInput, match="column 'aum'"):
        select([Ccs(cut_by="aum")], Pool(scores=np.array(TEN)), budget=2)
    step = Ccs(cut_by="aum", within={"facility_location": {"weights": "length"}})
    assert step.columns == {"aum", "length"}


CLASSES = np.where(np.arange(60) % 5 == 0, "rare", "common")
PER_CLASS = [
    ({"by": "label", "shares": {"common": 0.5, "rare": 0.5}}, None, 6),
    ({"by": "label", "balance": "water_fill"}, None, 6),
    (None, {"by": "label", "alloc": "equal"}, 6),
    (None, {"by": "label"}, 2),
]


@pytest.mark.parametrize(("quota", "stratified", "rare"), PER_CLASS)
def test_select__class_by_class(quota: dict | None, stratified: dict | None, rare: int) -> None:
    scores = np.random.default_rng(0).random(60)
    ccs = {"ccs": {"beta": 0.25}}
    step = ccs if stratified is None else {"stratified": stratified | {"within": ccs}}
    picked = select([step], Pool(scores=scores, columns={"label": CLASSES}), budget=12, quota=quota)
    assert (CLASSES[picked.rows] == "rare").sum() == rare
    for name, cut in (("rare", 3), ("common", 12)):
        rows = np.flatnonzero(name == CLASSES)
        assert not np.isin(picked.rows, rows[np.argsort(scores[rows])[:cut]]).any()


@pytest.mark.parametrize("value", [0.5, 0.0, -3.0])
def test_select__constant_score_is_one_stratum(value: float) -> None:
    picked = select([Ccs(beta=0)], Pool(scores=np.full(6, value)), budget=3)
    assert len(set(picked.rows.tolist())) == 3
    assert set(picked.reason.ref.tolist()) == {0}


def test_select__negative_scores_fill_their_strata() -> None:
    picked = select([Ccs(beta=0, n_strata=3)], Pool(scores=np.array([-9.0, -8.0, -5.0, -1.0, -0.5])), budget=3)
    assert sorted(picked.reason.ref.tolist()) == [0, 1, 2]


def test_select__what_beta_leaves_is_all_there_is() -> None:
    pool = Pool(scores=np.arange(10.0))
    with pytest.raises(InvalidBudget, match="ccs found only 5 rows for a budget of 6"):
        select([Ccs(beta=0.5)], pool, budget=6)
    short = select([Ccs(beta=0.5)], pool, budget=6, allow_short=True)
    assert short.exhausted
    assert sorted(short.rows.tolist()) == [5, 6, 7, 8, 9]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Centres(Selector):
    """Take the first candidates; the gain is how many rows are already selected."""

    name: ClassVar[str] = "centres"

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        rows = np.flatnonzero(pool.candidates)[:budget]
        taken = np.full(budget, len(pool.get_already_selected()), np.float32)
        return Selection(rows, taken, Reason.of("centre", budget))


def test_select__inner_selector_sees_all_that_is_already_selected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selection.selectors.random.Random", _Centres)
    pool = Pool(scores=np.arange(8.0), already_selected=[0, 7])
    picked = select([Ccs(beta=0, n_strata=2, within="random")], pool, budget=4)
    assert sorted(picked.rows.tolist()) == [1, 2, 4, 5]
    assert picked.gain.tolist() == [2, 2, 2, 2]


def test_select__a_draw_follows_the_keys_not_the_order() -> None:
    scores, keys = np.random.default_rng(0).random(200), np.random.default_rng(1).integers(0, 2**63, 200)
    order = np.random.default_rng(2).permutation(200)
    a = select(["ccs"], Pool(scores=scores, keys=keys), budget=50, seed=3)
    b = select(["ccs"], Pool(scores=scores[order], keys=keys[order]), budget=50, seed=3)
    assert a.rows.tolist() == order[b.rows].tolist()


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12), data=st.data())
def test_smallest_first__sums_to_the_budget_within_the_sizes(sizes: list[int], data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, sum(sizes)))
    counts = smallest_first(sizes, budget)
    assert sum(counts) == budget
    assert all(0 <= g <= s for g, s in zip(counts, sizes, strict=True))
    short = [g for g, s in zip(counts, sizes, strict=True) if g < s]
    if short:  # the level of the water: no stratum that is not empty stands above it by more than the remainder
        assert max(counts) - min(short) <= 1


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [([0, 3, 10, 100, 2], 30, [0, 3, 10, 15, 2]), ([5, 5, 5], 7, [2, 2, 3]), ([1, 2, 3], 6, [1, 2, 3])],
)
def test_smallest_first__known_answers(sizes: list[int], budget: int, expected: list[int]) -> None:
    assert smallest_first(sizes, budget) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"beta": 1},
        {"beta": -0.1},
        {"beta": "half"},
        {"beta": True},
        {"n_strata": 0},
        {"hard": "middle"},
        {"cut_by": ""},
        {"within": "rds_max"},
    ],
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption):
        build_step({"ccs": options})


def test_options__round_trip() -> None:
    step = Ccs(beta=0.3, n_strata=7, hard="high", cut_by="aum", within={"random": {}})
    assert build_step(step_spec(step)) == step


def test_contract__with_a_cut_off() -> None:
    reason = "the cut-off leaves fewer rows than the pool"
    skip = {"check_whole_pool": reason, "check_identical_candidates": reason}
    check_step(Ccs(beta=0.3), skip=skip)
    check_step(Ccs(beta=0.3, cut_by="aum"), skip=skip | {"check_permuted_pool": "ties go to the lowest row"})
