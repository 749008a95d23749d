from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from selection import BrokenStep, Pool, Reason, Selection, Selector, select
from selection.capped import GroupCapacity, capped_selection


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
    assert capacities[0].closed == [True, False]
    assert missing == 20 - 7 - 2


def test_group_capacity__is_shared_with_subpools():
    capacity = GroupCapacity.of(np.array([0, 1, -1]), np.ones(3), np.array([0.0, 2.0]))
    assert capacity.open().tolist() == [False, True, True]
    capacity.take(np.array([1, 2])).closed[1] = True
    assert capacity.open().tolist() == [False, False, True]
