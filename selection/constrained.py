"""Select within constraints: shares and balance by a draw in each group, all else by a capped selection.

A capped selection goes along the picks of a nested selector and takes those for which their groups have capacity left.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from selection.constraints import BoundConstraints, Constraints
from selection.errors import BrokenStep, InvalidBudget, rows_of_parent
from selection.groups import NO_GROUP, listed
from selection.pool import Pool
from selection.run_selector import (
    at_places,
    checked_selection,
    empty_selection,
    in_parent,
    interleaved,
    run_selector,
    subpool,
)
from selection.step import Selector
from selection.types import Array, Doubles, Rows, Selection

AT_FIRST = 1
"""When a group closed that had no room from the beginning; 0 says that it is open."""

Stream = Callable[[], np.random.Generator]


def constrained_selection(
    bound: BoundConstraints,
    step: Selector,
    pool: Pool,
    stream: Stream,
    *,
    allow_short: bool,
    closed: dict[str, list[int]] | None = None,
) -> Selection:
    """What `step` takes of a pool within constraints.

    Args:
        bound: the constraints, bound to this pool.
        pool: what the steps before have left.
        stream: the selector's generator, fresh at each call.
        allow_short: give what there is, with `exhausted=True`, where the constraints cannot be met.
        closed: gets, by "max_per_group", "quota" and "budget", when each group closed, as in `GroupCapacity`. A group
            of a quota that divides is closed once it has its part.

    Returns:
        Shares and balance: the groups' picks interleaved, so that the beginning of a selection is nearly divided as the
        whole. Else the picks in their order, without those that had no room.

    Raises:
        InvalidBudget: the constraints cannot be met; names what lacks.

    Cost: shares and balance, one draw in each group; else see `capped_selection`.
    """
    constraints = bound.constraints
    capacities = []
    closed = {} if closed is None else closed
    if bound.value_group is not None:
        capacities.append(GroupCapacity.of(bound.value_group, np.ones(len(pool)), bound.per_value(pool)))
        closed["max_per_group"] = capacities[-1].closed
    if constraints.quota is not None and constraints.quota.divides:
        closed["quota"] = [0] * len(bound.quota_names)
        return _divided(bound, step, pool, capacities, stream, closed["quota"], allow_short=allow_short)
    if bound.quota_group is not None:
        capacities.append(GroupCapacity.of(bound.quota_group, bound.cost, bound.caps(pool)))
        closed["quota"] = capacities[-1].closed
    capacities.append(GroupCapacity.whole(bound.cost, constraints.amount))
    closed["budget"] = capacities[-1].closed
    first = min(bound.rows(pool), int(pool.candidates.sum()))
    picked, missing = capped_selection(step, pool, capacities, stream, first=first)
    if missing > 0 and not allow_short:
        raise _too_few(constraints, step, f"{constraints.amount - missing:,.0f} of {constraints.amount:,}")
    return replace(picked, exhausted=missing > 0)


def _divided(
    bound: BoundConstraints,
    step: Selector,
    pool: Pool,
    capacities: Sequence[GroupCapacity],
    stream: Stream,
    closed: list[int],
    *,
    allow_short: bool,
) -> Selection:
    """One draw in each group of the quota, in order of the names; `closed` gets when each had its part."""
    constraints, candidates = bound.constraints, pool.candidates
    wanted = bound.shares(pool, allow_short=allow_short)
    parts: list[Selection] = []
    lacking: list[str] = []
    for i, name in enumerate(bound.quota_names):
        members = candidates & (bound.quota_group == i)
        count = int(members.sum())
        if not wanted[i]:
            closed[i] = AT_FIRST
            continue
        # What earlier groups gave is already selected for this one.
        taken = np.concatenate([pool.get_already_selected(), *(part.rows for part in parts)])
        rows, frame = subpool(replace(pool, already_selected=taken), members)
        with rows_of_parent(rows):
            if constraints.needs_nested is None:
                picked = run_selector(step, frame, min(wanted[i], count), rng=stream())
                missing = float(wanted[i] - len(picked.rows))
                closed[i] = 0 if missing else AT_FIRST + len(taken) + len(picked.rows)
            else:
                inside = [capacity.take(rows) for capacity in capacities]
                inside.append(GroupCapacity.whole(bound.cost[rows], wanted[i]))
                first = min(bound.take(rows).rows(frame, wanted[i]), count)
                picked, missing = capped_selection(step, frame, inside, stream, first=first)
                closed[i] = inside[-1].closed[0]
        if missing > 0:
            lacking.append(f"{name} {wanted[i] - missing:,.0f} of {wanted[i]:,}")
        parts.append(in_parent(picked, rows))
    if lacking and not allow_short:
        raise _too_few(constraints, step, listed(lacking))
    return replace(interleaved(parts), exhausted=bool(lacking) or sum(wanted) < constraints.amount)


def _too_few(constraints: Constraints, step: Selector, amounts: str) -> InvalidBudget:
    within = []
    if constraints.quota is not None:
        within.append(f"the quota by {constraints.quota.by}")
    if constraints.group_by is not None:
        within.append(f"max_per_group {constraints.max_per_group} of {constraints.group_by}")
    where = f" within {' and '.join(within)}" if within else ""
    return InvalidBudget(f"{step.name}{where} found only {amounts} {constraints.unit}; allow_short takes these")


@dataclass(eq=False, slots=True)
class GroupCapacity:
    """What each group of one division of the rows may still get.

    Attributes:
        group: (n,) the group of each row, `NO_GROUP` = in none.
        cost: (n,) what each row takes.
        left: of each group; shared with the capacities that `take` makes for subpools.
        closed: of each group, 0 while it takes more; else, because it is full or a row did not fit, `AT_FIRST` + how
            many rows were selected when it closed, those that were already selected included.
    """

    group: Rows
    cost: Doubles
    left: list[float]
    closed: list[int]

    @classmethod
    def of(cls, group: Rows, cost: Doubles, left: Array) -> GroupCapacity:
        """A capacity of `left` (groups,)."""
        return cls(group, cost, left.tolist(), [AT_FIRST if amount <= 0 else 0 for amount in left.tolist()])

    @classmethod
    def whole(cls, cost: Doubles, amount: int) -> GroupCapacity:
        """The capacity of the whole draw, as of one group that holds all rows."""
        return cls.of(np.zeros(len(cost), np.int64), cost, np.array([float(amount)]))

    def take(self, rows: Rows) -> GroupCapacity:
        """The same capacity, for the subpool of `rows`."""
        return GroupCapacity(self.group[rows], self.cost[rows], self.left, self.closed)

    def open(self) -> Array:
        """(n,) bool: the rows whose group is not closed."""
        is_open = np.array([not at for at in self.closed] + [True])  # NO_GROUP is the last
        return is_open[self.group]


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

    A selector that keeps to capacities itself (`caps_inside`) does so in their place.

    Cost: draws of doubling depth until the whole is full: where a cap closes what the selector likes best, up to the
    whole pool. A few hundred nanoseconds a pick beside that.
    """
    candidates, whole = pool.candidates, capacities[-1]
    if step.caps_inside:
        if not first:
            return empty_selection(), whole.left[0]
        picked, left_over = step.select_within(pool, capacities, first, rng=stream())
        checked = checked_selection(step, picked, pool)
        return checked, 0.0 if whole.closed[0] else whole.left[0] - left_over
    n, depth = int(candidates.sum()), first
    before = np.empty(0, np.int64)
    taken: list[int] = []
    left_over = 0.0
    while True:
        picked = run_selector(step, pool, depth, rng=stream())
        if not np.array_equal(picked.rows[: len(before)], before):
            raise BrokenStep(f"{step.name}: says that it is nested, but a budget of {depth} begins otherwise")
        left_over += _take_fitting(picked.rows, len(before), capacities, taken, len(pool.get_already_selected()))
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


def _take_fitting(
    rows: Rows, start: int, capacities: list[GroupCapacity], taken: list[int], selected_before: int
) -> float:
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
                capacity.closed[g] = AT_FIRST + selected_before + len(taken)
                left_over += capacity.left[g]
                break
        else:
            taken.append(place)
            for capacity, g, c in zip(capacities, group, cost, strict=True):
                if g != NO_GROUP:
                    capacity.left[g] -= c
                    capacity.closed[g] = 0 if capacity.left[g] > 0 else AT_FIRST + selected_before + len(taken)
    return left_over
