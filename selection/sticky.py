"""Hold back change: what a fresh draw takes, with at most so many rows of an earlier selection given up for it.

Rows of the earlier selection that the fresh draw takes as well stay. Of the others, those leave that have no place
any more: within today's budget, quota and `max_per_group`, or beside the row that a filter kept in their stead. Free
places go to the new rows of the fresh draw, best first. Each further new row, best first, takes the place of rows that
the fresh draw wants least, as long as all that is given up so costs no more than `max_churn` of the budget.

How much the fresh draw wants a row that it does not take: its place where the selector goes on to choose among these
rows, beside those of the fresh draw. Rows that a filter left out, or that the selector does not choose even then, come
last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np

from selection.allocation import as_written
from selection.constraints import BoundConstraints
from selection.groups import NO_GROUP
from selection.pool import Pool
from selection.run_selector import at_places, joined
from selection.step import check_number
from selection.types import Doubles, DroppedRows, Floats, Mask, Reason, RetrievedRows, Rows, Selection

NAME = "sticky"
# What the reports of this name say: of rows that are taken, and of those that are not.
STAYS, KEPT, REPLACES, FILLS = "stays", "kept", "replaces", "fills"
REPLACED, NO_PLACE, HELD_BACK = "replaced", "no_place", "held_back"
# The constraints that a row may have no place in.
BUDGET, QUOTA, MAX_PER_GROUP, SUBSTITUTE = "budget", "quota", "max_per_group", "substitute"


@dataclass(frozen=True, eq=False)
class Sticky:
    """An earlier selection, of which a draw gives up at most a part for other rows.

    Attributes:
        rows: (r,) of the pool, in pick order. Rows that are no candidates leave, as do those that a filter bars.
        gain: (r,) float32.
        max_churn: 0 to 1, the part of the budget, rounded down, that rows may be given up for.
    """

    rows: Rows
    gain: Floats
    max_churn: float

    def __post_init__(self) -> None:
        check_number("recipe", "max_churn", self.max_churn, least=0, most=1)


def churn_limit(max_churn: float, budget: int) -> int:
    """How many rows or tokens of a budget may be given up for others.

    >>> churn_limit(0.29, 100), churn_limit(0.1, 9)
    (29, 0)
    """
    return math.floor(as_written(max_churn) * budget)


def stick(
    sticky: Sticky, fresh: Selection, wanted: Rows, barred: Rows, bound: BoundConstraints, pool: Pool
) -> Selection:
    """A fresh draw, held back to the rows of an earlier selection that it may not replace.

    Args:
        fresh: what the steps take of the pool within the constraints.
        wanted: rows of the earlier selection, as the selector would take them beside those of the fresh draw.
        barred: rows that may not stay.
        bound: the constraints, bound to the pool.

    Returns:
        Rows of the fresh draw in its order, then those that it does not take and that are held: their reason is "kept".
        Reports of the step "sticky" tell of each row that is taken whether it "stays", is "kept" though the fresh draw
        does not take it, "replaces" the row that they name or "fills" a free place; and of each other whether it is
        "replaced" by the row that they name, has "no_place" within the constraint that they name, or is "held_back".
        Values are places from 1: in the earlier selection, and of rows that are held back in the fresh draw.

    Cost: n log n of the rows of both. Where the quota goes by predicted classes, the probabilities of these rows.
    """
    last = sticky.rows[pool.candidates[sticky.rows] & ~np.isin(sticky.rows, barred)]
    order = np.concatenate([wanted, last])
    order = order[np.sort(np.unique(order, return_index=True)[1])]
    order = order[~np.isin(order, np.concatenate([fresh.rows, barred]))]
    rows = np.concatenate([fresh.rows, order])
    exchange = _Exchange(_rooms(fresh, rows, bound, pool), len(fresh.rows))
    limit = churn_limit(sticky.max_churn, bound.constraints.amount)
    exchange.run(np.isin(fresh.rows, last), limit, fill=not bound.constraints.in_tokens)
    return _result(sticky, fresh, rows, exchange)


@dataclass(eq=False)
class _Room:
    """What each group of one division of the rows may still get.

    Attributes:
        name: of the constraint.
        group: (r,) the group of each row, `NO_GROUP` = in none.
        cost: (r,) what each row takes.
        left: of each group.
    """

    name: str
    group: list[int]
    cost: list[float]
    left: list[float]

    @classmethod
    def of(cls, name: str, group: Rows, cost: Doubles, left: Doubles) -> _Room:
        """A room with so much left for each group."""
        return cls(name, group.tolist(), cost.tolist(), left.tolist())

    @classmethod
    def as_taken(cls, name: str, group: Rows, cost: Doubles, count: int) -> _Room:
        """A room with as much for each group as the first `count` rows take."""
        left = np.bincount(group[:count], cost[:count], minlength=int(group.max(initial=0)) + 1)
        return cls.of(name, group, cost, left.astype(np.float64))

    def lacks(self, row: int) -> float:
        """How much more room the row needs; 0 or less if it fits."""
        group = self.group[row]
        return 0.0 if group == NO_GROUP else self.cost[row] - self.left[group]

    def take(self, row: int, sign: int = 1) -> None:
        """Take the room of a row, or give it back with -1."""
        if self.group[row] != NO_GROUP:
            self.left[self.group[row]] -= sign * self.cost[row]


def _rooms(fresh: Selection, rows: Rows, bound: BoundConstraints, pool: Pool) -> list[_Room]:
    """The constraints on some rows, those of the fresh draw first. The whole is the first of them.

    The whole, and each group of a quota that divides, get as much as the fresh draw gives them.
    """
    cost, count = bound.cost[rows], len(fresh.rows)
    rooms = [_Room.as_taken(BUDGET, np.zeros(len(rows), np.int64), cost, count)]
    quota = bound.constraints.quota
    if quota is not None:
        seen = np.union1d(rows, pool.get_already_selected()) if quota.predicts else np.arange(len(pool))
        part = pool.take(seen) if quota.predicts else pool
        of_part = bound.constraints.on(part) if quota.predicts else bound
        assert of_part.quota_group is not None
        group = of_part.quota_group[np.searchsorted(seen, rows)]
        if quota.divides:  # rows of no group get nothing
            group = np.where(group == NO_GROUP, len(of_part.quota_names), group)
            rooms.append(_Room.as_taken(QUOTA, group, cost, count))
        else:
            rooms.append(_Room.of(QUOTA, group, cost, of_part.caps(part)))
    if bound.value_group is not None:
        rooms.append(_Room.of(MAX_PER_GROUP, bound.value_group[rows], np.ones(len(rows)), bound.per_value(pool)))
    substitutes = _substitutes(fresh, rows)
    if substitutes is not None:
        ones = np.ones(len(rows))
        rooms.append(_Room.of(SUBSTITUTE, substitutes, ones, ones))
    return rooms


def _substitutes(fresh: Selection, rows: Rows) -> Rows | None:
    """(r,) the group of rows of which filters keep one: a row, and those that they left out for it.

    None without such filters. A row is left out for one that a later filter may leave out for another, so references
    are followed to their end.
    """
    pairs = [
        (report.rows[is_row], report.reason.ref[is_row])
        for report in fresh.dropped
        if (is_row := np.isin(report.reason.kind, list(Reason.ROW_KINDS)) & (report.reason.ref >= 0)).any()
    ]
    if not pairs:
        return None
    kept_for = {row: ref for dropped, refs in pairs for row, ref in zip(dropped.tolist(), refs.tolist(), strict=True)}
    ends = []
    for row in rows.tolist():
        while row in kept_for:
            row = kept_for[row]  # noqa: PLW2901
        ends.append(row)
    return np.unique(ends, return_inverse=True)[1].astype(np.int64)


@dataclass(eq=False)
class _Exchange:
    """Which rows stay, come and leave. Rows are numbered: those of the fresh draw first, then the others of the earlier
    selection, each in the order in which the fresh draw wants them.

    Attributes:
        rooms: what they must fit into; written to.
        fresh: how many rows the fresh draw takes.
        held: rows of the earlier selection that stay though the fresh draw does not take them.
        came: new row -> the row that it takes the place of, None where a place was free.
        left: row of the earlier selection -> the row that takes its place; None where it has to make room.
        no_place: row of the earlier selection -> the room that it does not fit into.
        held_back: new rows that do not come.
    """

    rooms: list[_Room]
    fresh: int
    held: set[int] = field(default_factory=set)
    came: dict[int, int | None] = field(default_factory=dict)
    left: dict[int, int | None] = field(default_factory=dict)
    no_place: dict[int, _Room] = field(default_factory=dict)
    held_back: list[int] = field(default_factory=list)
    _stacks: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = field(default_factory=dict)

    def run(self, stays: Mask, limit: float, *, fill: bool) -> None:
        """Exchange rows.

        Args:
            stays: (fresh,) which rows of the fresh draw the earlier selection has.
            limit: what rows that leave for others may cost together.
            fill: take as many rows as the fresh draw, even where that takes more than the limit allows.
        """
        cost = self.rooms[0].cost
        for row in np.flatnonzero(stays).tolist():
            self._take(row)
        for row in range(self.fresh, len(cost)):
            blocking = self._blocking(row)
            if blocking:
                self.no_place[row] = blocking[0]
            else:
                self.held.add(row)
                self._take(row)
        all_may_leave = sum(cost[row] for row in self.held) <= limit
        for row in np.flatnonzero(~stays).tolist():
            limit -= self._come(row, limit)
        self._fill_free()
        while fill and self.held_back and self.rooms[0].lacks(self.held_back[0]) <= 0:
            # Each such row is one of the fresh draw, which fits as a whole, so there is an end.
            self._make_room(self.held_back.pop(0))
            self._fill_free()
        if all_may_leave:
            self.came |= dict.fromkeys(self.held_back)
            self.left |= dict.fromkeys(sorted(self.held))
            self.held_back, self.held = [], set()

    def _come(self, row: int, limit: float) -> float:
        """Let a new row come if it fits or may take the place of others; gives what these cost."""
        blocking = self._blocking(row)
        leaving = self._leaving(row, blocking, limit) if blocking else []
        if leaving is None:
            self.held_back.append(row)
            return 0.0
        for other in leaving:
            self._give_up(other, row)
        self.came[row] = leaving[0] if leaving else None
        self._take(row)
        return sum(self.rooms[0].cost[other] for other in leaving)

    def _leaving(self, row: int, blocking: list[_Room], limit: float) -> list[int] | None:
        """The least wanted of the rows held, each in every group that has no room, that make room for a new row.

        None if they cannot, or cost more than the limit.
        """
        stack = self._stack(row, blocking)
        lacking = [room.lacks(row) for room in blocking]
        leaving: list[int] = []
        spent = 0.0
        for other in reversed(stack):
            if max(lacking) <= 0:
                break
            if other in self.held:
                spent += self.rooms[0].cost[other]
                leaving.append(other)
                lacking = [amount - room.cost[other] for amount, room in zip(lacking, blocking, strict=True)]
            if spent > limit:
                return None
        return leaving if max(lacking) <= 0 else None

    def _stack(self, row: int, blocking: list[_Room]) -> list[int]:
        """The rows held that are in the same groups of some rooms as a row, the least wanted last."""
        places = tuple(i for i, room in enumerate(self.rooms) if room in blocking)
        if places not in self._stacks:
            stacks: dict[tuple[int, ...], list[int]] = {}
            for other in sorted(self.held):
                stacks.setdefault(tuple(self.rooms[i].group[other] for i in places), []).append(other)
            self._stacks[places] = stacks
        stack = self._stacks[places].get(tuple(self.rooms[i].group[row] for i in places), [])
        while stack and stack[-1] not in self.held:
            stack.pop()
        return stack

    def _fill_free(self) -> None:
        """Let rows that were held back come where others have left room."""
        waiting, self.held_back = self.held_back, []
        for row in waiting:
            self._come(row, -1.0)

    def _make_room(self, row: int) -> None:
        """Let a new row come: in each group that has no room, the least wanted of the rows held leave for it."""
        for room in self.rooms:
            while room.lacks(row) > 0:
                other = max(held for held in self.held if room.group[held] == room.group[row])
                self._give_up(other, None)
                self.no_place[other] = room
                del self.left[other]
        self.came[row] = None
        self._take(row)

    def _give_up(self, row: int, for_row: int | None) -> None:
        self.held.remove(row)
        self.left[row] = for_row
        for room in self.rooms:
            room.take(row, -1)

    def _take(self, row: int) -> None:
        for room in self.rooms:
            room.take(row)

    def _blocking(self, row: int) -> list[_Room]:
        return [room for room in self.rooms if room.lacks(row) > 0]


def _result(sticky: Sticky, fresh: Selection, rows: Rows, exchange: _Exchange) -> Selection:
    count = exchange.fresh
    taken = np.setdiff1d(np.arange(count), exchange.held_back)
    held = np.array(sorted(exchange.held), np.int64)
    order = np.argsort(sticky.rows)
    place = order[np.searchsorted(sticky.rows, rows[held], sorter=order)] if len(held) else held
    chosen = at_places(fresh, taken)
    chosen = replace(
        chosen,
        rows=np.concatenate([chosen.rows, rows[held]]),
        gain=np.concatenate([chosen.gain, np.asarray(sticky.gain, np.float32)[place]]),
        reason=joined([chosen.reason, Reason.of(KEPT, len(held))]),
    )
    dropped = [_without(report, rows[held]) for report in fresh.dropped]
    return replace(
        chosen,
        dropped=(*dropped, DroppedRows(NAME, *_why_not(rows, exchange))),
        retrieved=(
            *(report.of(chosen.rows) for report in fresh.retrieved),
            RetrievedRows(NAME, chosen.rows, _why(sticky, chosen.rows, len(taken), rows, exchange)),
        ),
    )


def _why(sticky: Sticky, chosen: Rows, taken: int, rows: Rows, exchange: _Exchange) -> Reason:
    """Of each row that is taken: the first `taken` are of the fresh draw, the others are held."""
    before = {row: place for place, row in enumerate(sticky.rows.tolist(), 1)}
    replaced = {int(rows[row]): other for row, other in exchange.came.items()}
    kind, ref, value = [], [], []
    for place, row in enumerate(chosen.tolist()):
        other = replaced.get(row)
        kind.append(KEPT if place >= taken else STAYS if row not in replaced else FILLS if other is None else REPLACES)
        ref.append(-1 if other is None else int(rows[other]))
        value.append(np.nan if row in replaced else before[row])
    count = len(chosen)
    reason = Reason.of(KEPT, count, ref=np.array(ref, np.int64), value=np.array(value, np.float32))
    return replace(reason, kind=np.array(kind, np.str_))


def _why_not(rows: Rows, exchange: _Exchange) -> tuple[Rows, Reason]:
    """The rows of both that are not taken, and why."""
    names = (BUDGET, QUOTA, MAX_PER_GROUP, SUBSTITUTE)
    lines = [
        *((row, REPLACED, -1 if other is None else int(rows[other]), np.nan) for row, other in exchange.left.items()),
        *((row, NO_PLACE, names.index(room.name), np.nan) for row, room in exchange.no_place.items()),
        *((row, HELD_BACK, -1, row + 1.0) for row in exchange.held_back),
    ]
    row, kind, ref, value = (list(column) for column in zip(*lines, strict=True)) if lines else ([], [], [], [])
    reason = Reason.of(HELD_BACK, len(row), ref=np.array(ref, np.int64), value=np.array(value, np.float32), names=names)
    return rows[np.array(row, np.int64)], replace(reason, kind=np.array(kind, np.str_))


def _without(report: DroppedRows, rows: Rows) -> DroppedRows:
    """The report without some rows."""
    stays = np.flatnonzero(~np.isin(report.rows, rows))
    return replace(report, rows=report.rows[stays], reason=report.reason.take(stays))
