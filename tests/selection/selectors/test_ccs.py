from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import InvalidBudget, InvalidOption, Pool, Reason, Selection, Selector, build_step, select, step_spec
from selection.checks import check_step
from selection.selectors.ccs import Ccs, equal_width, water_fill, without_hardest

TEN = [0.05, 0.1, 0.15, 0.2, 0.3, 0.32, 0.35, 0.5, 0.55, 0.9]


def test_select__budgets_and_forced_picks_of_ten_scores() -> None:
    step = Ccs(beta=0.2, n_strata=4)
    pool = Pool(scores=np.array(TEN))
    rows = without_hardest(pool, 0.2, hard="low")
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


def test_without_hardest__the_share_is_taken_as_written_and_ties_go_by_row() -> None:
    assert len(without_hardest(Pool(scores=np.ones(100)), 0.29, hard="low")) == 71
    assert without_hardest(Pool(scores=np.ones(10)), 0.2, hard="low").tolist() == list(range(2, 10))
    assert without_hardest(Pool(scores=np.ones(10)), 0.2, hard="high").tolist() == list(range(2, 10))


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
    monkeypatch.setattr("selection.registry.BUILT_IN", (_Centres,))
    pool = Pool(scores=np.arange(8.0), already_selected=[0, 7])
    picked = select([Ccs(beta=0, n_strata=2, within="centres")], pool, budget=4)
    assert sorted(picked.rows.tolist()) == [1, 2, 4, 5]
    assert picked.gain.tolist() == [2, 2, 2, 2]


def test_select__a_draw_follows_the_keys_not_the_order() -> None:
    scores, keys = np.random.default_rng(0).random(200), np.random.default_rng(1).integers(0, 2**63, 200)
    order = np.random.default_rng(2).permutation(200)
    a = select(["ccs"], Pool(scores=scores, keys=keys), budget=50, seed=3)
    b = select(["ccs"], Pool(scores=scores[order], keys=keys[order]), budget=50, seed=3)
    assert a.rows.tolist() == order[b.rows].tolist()


@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=12), data=st.data())
def test_water_fill__sums_to_the_budget_within_the_sizes(sizes: list[int], data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, sum(sizes)))
    given_ = water_fill(sizes, budget)
    assert sum(given_) == budget
    assert all(0 <= g <= s for g, s in zip(given_, sizes, strict=True))
    short = [g for g, s in zip(given_, sizes, strict=True) if g < s]
    if short:  # the level of the water: no stratum that is not empty stands above it by more than the remainder
        assert max(given_) - min(short) <= 1


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"),
    [([0, 3, 10, 100, 2], 30, [0, 3, 10, 15, 2]), ([5, 5, 5], 7, [2, 2, 3]), ([1, 2, 3], 6, [1, 2, 3])],
)
def test_water_fill__known_answers(sizes: list[int], budget: int, expected: list[int]) -> None:
    assert water_fill(sizes, budget) == expected


@pytest.mark.parametrize(
    "options", [{"beta": 1}, {"beta": -0.1}, {"n_strata": 0}, {"hard": "middle"}, {"within": "rds_max"}]
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption):
        build_step({"ccs": options})


def test_options__round_trip() -> None:
    step = Ccs(beta=0.3, n_strata=7, hard="high", within={"random": {}})
    assert build_step(step_spec(step)) == step


def test_contract__with_a_cut_off() -> None:
    reason = "the cut-off leaves fewer rows than the pool"
    check_step(Ccs(beta=0.3), skip={"check_whole_pool": reason, "check_identical_candidates": reason})
