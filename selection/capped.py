"""Capped selection: along the picks of a nested selector, take those for which their groups have capacity left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from selection.errors import BrokenStep
from selection.groups import NO_GROUP, Costs
from selection.pool import Pool
from selection.run_selector import at_places, run_selector
from selection.step import Selector
from selection.types import Array, Rows, Selection

Stream = Callable[[], np.random.Generator]


@dataclass(eq=False, slots=True)
class GroupCapacity:
    """What each group of one division of the rows may still get.

    Attributes:
        group: (n,) the group of each row, `NO_GROUP` = in none.
        cost: (n,) what each row takes.
        left: of each group; shared with the capacities that `take` makes for subpools.
        closed: whether a group takes nothing more: it is full, or a row did not fit.
    """

    group: Rows
    cost: Costs
    left: list[float]
    closed: list[bool]

    @classmethod
    def of(cls, group: Rows, cost: Costs, left: Array) -> GroupCapacity:
        """A capacity of `left` (groups,)."""
        return cls(group, cost, left.tolist(), (left <= 0).tolist())

    @classmethod
    def whole(cls, cost: Costs, amount: int) -> GroupCapacity:
        """The capacity of the whole draw, as of one group that holds all rows."""
        return cls.of(np.zeros(len(cost), np.int64), cost, np.array([float(amount)]))

    def take(self, rows: Rows) -> GroupCapacity:
        """The same capacity, for the subpool of `rows`."""
        return GroupCapacity(self.group[rows], self.cost[rows], self.left, self.closed)

    def open(self) -> Array:
        """(n,) bool: the rows whose group is not closed."""
        closed = np.array([*self.closed, False])  # NO_GROUP is the last
        return ~closed[self.group]


def capped_selection(
    step: Selector, pool: Pool, capacities: list[GroupCapacity], stream: Stream, *, first: int
) -> tuple[Selection, float]:
    """Go along the picks of a nested selector and take those that fit into every capacity.

    A row that does not fit closes its group in the first of the capacities that it overflows, so each group gives the
    beginning of its picks. The last capacity is that of the whole draw: once it is closed the selection ends. A deeper
    draw begins with the picks of the one before, so the result is what going along the whole order would give.

    Args:
        capacities: written to.
        stream: the selector's generator, fresh at each call.
        first: how deep the first draw goes, 0 where there are no candidates.

    Returns:
        What was taken, and what of the whole is still missing beside what groups left over by stopping before a row.

    Raises:
        BrokenStep: the selector is not nested.

    Cost: draws of doubling depth until the whole is full: where a cap closes what the selector likes best, up to the
    whole pool. A few hundred nanoseconds a pick beside that.
    """
    candidates, whole = pool.candidates, capacities[-1]
    n, depth = int(candidates.sum()), first
    before = np.empty(0, np.int64)
    taken: list[int] = []
    left_over = 0.0
    while True:
        picked = run_selector(step, pool, depth, rng=stream())
        if not np.array_equal(picked.rows[: len(before)], before):
            raise BrokenStep(f"{step.name}: says that it is nested, but a budget of {depth} begins otherwise")
        left_over += _take_fitting(picked.rows, len(before), capacities, taken)
        before = picked.rows
        unseen = candidates.copy()
        unseen[picked.rows] = False
        for capacity in capacities:
            unseen &= capacity.open()
        if whole.closed[0] or len(picked.rows) < depth or not unseen.any():
            break
        depth = min(n, 2 * depth)
    missing = 0.0 if whole.closed[0] else whole.left[0] - left_over
    return at_places(picked, np.array(taken, np.int64)), missing


def _take_fitting(rows: Rows, start: int, capacities: list[GroupCapacity], taken: list[int]) -> float:
    """Go along the picks from place `start`; append the places that are taken. Gives what closed groups left over."""
    ahead = rows[start:]
    groups = list(zip(*(capacity.group[ahead].tolist() for capacity in capacities), strict=True))
    costs = list(zip(*(capacity.cost[ahead].tolist() for capacity in capacities), strict=True))
    left_over = 0.0
    whole = capacities[-1]
    for place, (group, cost) in enumerate(zip(groups, costs, strict=True), start):
        if whole.closed[0]:
            break
        if any(g != NO_GROUP and capacity.closed[g] for capacity, g in zip(capacities, group, strict=True)):
            continue
        for capacity, g, c in zip(capacities, group, cost, strict=True):
            if g != NO_GROUP and c > capacity.left[g]:
                capacity.closed[g] = True
                left_over += capacity.left[g]
                break
        else:
            taken.append(place)
            for capacity, g, c in zip(capacities, group, cost, strict=True):
                if g != NO_GROUP:
                    capacity.left[g] -= c
                    capacity.closed[g] = capacity.left[g] <= 0
    return left_over
