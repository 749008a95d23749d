"""Draw within limits: shares and balance by a draw in each group, caps by a walk along the picks. See `selection.constraints`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from selection.constraints import BoundConstraints, Constraints
from selection.errors import BrokenStep, InvalidBudget, rows_of_parent
from selection.groups import NO_GROUP, Costs, listed
from selection.step import Selector
from selection.types import Array, Pool, Reason, Rows, Selection

Stream = Callable[[], np.random.Generator]


class Run(Protocol):
    """Runs a selector, with checks: `selection.run.run_selector`."""

    def __call__(self, step: Selector, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection: ...


@dataclass(eq=False, slots=True)
class GroupCapacity:
    """What is left in each group of one division of the rows.

    Attributes:
        group: (n,) the group of each row, `NO_GROUP` = in none.
        cost: (n,) what each row takes.
        left: of each group; shared by the rooms that are made of this one for a subpool.
        closed: whether a group takes nothing more: it is full, or a row did not fit.
    """

    group: Rows
    cost: Costs
    left: list[float]
    closed: list[bool]

    @classmethod
    def of(cls, group: Rows, cost: Costs, left: Array) -> GroupCapacity:
        """Room of `left` (groups,)."""
        return cls(group, cost, left.tolist(), (left <= 0).tolist())

    def take(self, rows: Rows) -> GroupCapacity:
        """The same room, for the subpool of `rows`."""
        return GroupCapacity(self.group[rows], self.cost[rows], self.left, self.closed)

    def open(self) -> Array:
        """(n,) bool: the rows whose group is not closed."""
        closed = np.array([*self.closed, False])  # NO_GROUP is the last
        return ~closed[self.group]


def select_within(
    bound: BoundConstraints, step: Selector, pool: Pool, run: Run, stream: Stream, *, allow_short: bool
) -> Selection:
    """Draw with `step` what the limits let through.

    Args:
        limited: the limits on this pool.
        pool: what the steps before have left.
        run: runs a selector on a pool, with checks.
        stream: the selector's generator, fresh at each call.
        allow_short: give what there is, with `exhausted=True`, where the limits cannot be met.

    Returns:
        Shares and balance: the groups' picks interleaved, so that the beginning of a selection is nearly divided as the whole.
        Else the picks in their order, without those that had no room.

    Raises:
        InvalidBudget: the limits cannot be met; names what lacks.

    Cost: shares and balance, one draw in each group. A walk, draws of doubling budget until it is filled: where a cap closes what
    the selector likes best, up to the whole pool. A few hundred nanoseconds a pick beside that.
    """
    constraints = bound.constraints
    rooms = []
    if bound.value_group is not None:
        rooms.append(GroupCapacity.of(bound.value_group, np.ones(len(pool)), bound.per_value(pool)))
    if constraints.quota is not None and constraints.quota.divides:
        return _shared(bound, step, pool, rooms, run, stream, allow_short=allow_short)
    if bound.quota_group is not None:
        rooms.append(GroupCapacity.of(bound.quota_group, bound.cost, bound.caps(pool)))
    rooms.append(_whole(bound.cost, constraints.amount))
    first = min(bound.rows(pool), int(pool.candidates.sum()))
    picked, missing = walked(step, pool, rooms, run, stream, first=first)
    if missing > 0 and not allow_short:
        raise InvalidBudget(_short(constraints, step, f"{constraints.amount - missing:,.0f} of {constraints.amount:,}"))
    return replace(picked, exhausted=missing > 0)


def walked(
    step: Selector, pool: Pool, rooms: list[GroupCapacity], run: Run, stream: Stream, *, first: int
) -> tuple[Selection, float]:
    """Walk the picks of a nested selector and take those that fit into every room.

    A row that does not fit closes its group in the first of the rooms that it overflows, so each group gives the
    beginning of its picks. The last room is that of the whole draw: once it is closed the walk ends.

    Args:
        rooms: written to.
        first: how deep the first draw goes, 0 where there are no candidates.

    Returns:
        What was taken, and what of the whole is still missing beside what groups left over by stopping before a row.
    """
    candidates = pool.candidates
    n, depth, walked_to = int(candidates.sum()), first, 0
    before = np.empty(0, np.int64)
    taken: list[int] = []
    left_over = 0.0
    while True:
        picked = run(step, pool, depth, rng=stream())
        if not np.array_equal(picked.rows[:walked_to], before):
            raise BrokenStep(f"{step.name}: says that it is nested, but a budget of {depth} begins otherwise")
        left_over += _walk(picked.rows, walked_to, rooms, taken)
        before, walked_to = picked.rows, len(picked.rows)
        unseen = candidates.copy()
        unseen[picked.rows] = False
        for room in rooms:
            unseen &= room.open()
        if rooms[-1].closed[0] or walked_to < depth or not unseen.any():
            break
        depth = min(n, 2 * depth)
    whole = rooms[-1]
    return _at(picked, np.array(taken, np.int64)), 0.0 if whole.closed[0] else whole.left[0] - left_over


def _walk(rows: Rows, start: int, rooms: list[GroupCapacity], taken: list[int]) -> float:
    """Go on along the picks from place `start`; append the places that are taken. Gives what closed groups left over."""
    ahead = rows[start:]
    groups = list(zip(*(room.group[ahead].tolist() for room in rooms), strict=True))
    costs = list(zip(*(room.cost[ahead].tolist() for room in rooms), strict=True))
    left_over = 0.0
    whole = rooms[-1]
    for place, (group, cost) in enumerate(zip(groups, costs, strict=True), start):
        if whole.closed[0]:
            break
        if any(g != NO_GROUP and room.closed[g] for room, g in zip(rooms, group, strict=True)):
            continue
        for room, g, c in zip(rooms, group, cost, strict=True):
            if g != NO_GROUP and c > room.left[g]:
                room.closed[g] = True
                left_over += room.left[g]
                break
        else:
            taken.append(place)
            for room, g, c in zip(rooms, group, cost, strict=True):
                if g != NO_GROUP:
                    room.left[g] -= c
                    room.closed[g] = room.left[g] <= 0
    return left_over


def _whole(cost: Costs, amount: int) -> GroupCapacity:
    """Room for the whole draw."""
    return GroupCapacity.of(np.zeros(len(cost), np.int64), cost, np.array([float(amount)]))


def _shared(
    bound: BoundConstraints,
    step: Selector,
    pool: Pool,
    rooms: list[GroupCapacity],
    run: Run,
    stream: Stream,
    *,
    allow_short: bool,
) -> Selection:
    """One draw in each group, in order of the names."""
    from selection.run import subpool

    constraints, candidates = bound.constraints, pool.candidates
    wanted = bound.shares(pool, allow_short=allow_short)
    parts: list[Selection] = []
    lacking: list[str] = []
    for i, name in enumerate(bound.quota_names):
        mine = candidates & (bound.quota_group == i)
        if not wanted[i] or not mine.any():
            if wanted[i]:
                lacking.append(f"{name} 0 of {wanted[i]:,}")
            continue
        # What earlier groups were given is already selected for this one.
        taken = np.concatenate([pool.get_already_selected(), *(part.rows for part in parts)])
        rows, frame = subpool(replace(pool, already_selected=taken), mine)
        with rows_of_parent(rows):
            if constraints.needs_nested is None:
                picked = run(step, frame, min(wanted[i], int(mine.sum())), rng=stream())
                missing = float(wanted[i] - len(picked.rows))
            else:
                inside = [*(room.take(rows) for room in rooms), _whole(bound.cost[rows], wanted[i])]
                first = min(bound.take(rows).rows(frame, wanted[i]), int(mine.sum()))
                picked, missing = walked(step, frame, inside, run, stream, first=first)
        if missing > 0:
            lacking.append(f"{name} {wanted[i] - missing:,.0f} of {wanted[i]:,}")
        parts.append(replace(picked, rows=rows[picked.rows], reason=picked.reason.translated(rows)))
    if lacking and not allow_short:
        raise InvalidBudget(_short(constraints, step, listed(lacking)))
    return replace(interleaved(parts), exhausted=bool(lacking) or sum(wanted) < constraints.amount)


def interleaved(parts: list[Selection]) -> Selection:
    """The picks of several draws as one, each spread evenly over the whole and in its own order."""
    if not parts:
        return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("none", 0))
    part = np.concatenate([np.full(len(one.rows), i) for i, one in enumerate(parts)])
    place = np.concatenate([(np.arange(len(one.rows)) + 0.5) / max(len(one.rows), 1) for one in parts])
    reasons = [one.reason for one in parts]
    names: list[str] = []
    offsets: dict[tuple[str, ...], int] = {}
    refs = []
    for reason in reasons:
        if reason.names not in offsets:
            offsets[reason.names] = len(names)
            names += reason.names
        named = ~np.isin(reason.kind, list(Reason.ROW_KINDS)) & (reason.ref >= 0)
        refs.append(np.where(named, reason.ref + offsets[reason.names], reason.ref))
    together = Selection(
        np.concatenate([one.rows for one in parts]),
        np.concatenate([one.gain for one in parts]),
        Reason(
            kind=np.concatenate([reason.kind for reason in reasons]),
            ref=np.concatenate(refs),
            rank=np.concatenate([reason.rank for reason in reasons]),
            value=np.concatenate([reason.value for reason in reasons]),
            names=tuple(names),
        ),
    )
    return _at(together, np.lexsort((part, place)))


def _at(selection: Selection, places: Array) -> Selection:
    return replace(
        selection, rows=selection.rows[places], gain=selection.gain[places], reason=selection.reason.take(places)
    )


def _short(constraints: Constraints, step: Selector, got: str) -> str:
    within = (
        f"max_per_group {constraints.max_per_group} of {constraints.group_by}"
        if constraints.group_by is not None
        else None
    )
    around = " and ".join(filter(None, [f"the quota by {constraints.quota.by}" if constraints.quota else None, within]))
    return f"{step.name}{f' within {around}' if around else ''} found only {got} {constraints.unit}; allow_short takes these"
