"""Round robin in which a list loses its turn if its next row is taken; the lists that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selection.types import Array, Capacity, Floats, Points, Rows

# How many list entries are computed at first for each row of the budget. Between 1.2 and 14 are needed on clustered
# data, 2.8 in BETR.
OVERLAP = 4
LEAST_DEPTH = 64
# The most memory for all lists together. A deeper search continues in bands, with a pass over the vectors for each.
LIST_BYTES = 256 * 2**20
ENTRY_BYTES = 64


@dataclass(frozen=True, eq=False)
class TurnLists:
    """The lists that take turns.

    Attributes:
        queries: (q, d) float32, without repetition inside a list.
        starts: (lists + 1,) int64: list l ranks rows by the maximum over queries starts[l] .. starts[l+1]-1.
        turns: (t,) int64: the list that has each turn of a round. Equal targets share a list.
    """

    queries: Floats
    starts: Rows
    turns: Rows


def lists_by_query(vectors: Floats) -> TurnLists:
    """One turn for each target; their vectors are (m, d)."""
    queries, place = distinct(vectors)
    return TurnLists(queries, np.arange(len(queries) + 1), place)


def lose_turn(
    vectors: Points, lists: TurnLists, budget: int, *, taken: Rows, excluded: Array, max_bytes: int
) -> tuple[Rows, Rows, Array]:
    """Round robin in which a list loses its turn if its next row is already taken.

    Reading the lists round by round, the first occurrence of each row is a pick: row x comes at the turn
    min over lists of rank * lists + position. A row outside all lists of depth R comes after round R, so lists of depth
    R suffice once they contain `budget` rows.

    Args:
        taken: rows that keep their places in the lists and are never picked.
        excluded: (n,) bool, rows that are in no list.
        max_bytes: the most memory for the lists at a time.

    Returns:
        picked rows, the turn of each, and its similarity (float64).
    """
    from selection.kernels.top_k import top_k

    n, turns = vectors.shape[0], len(lists.turns)
    # Equal targets share a list, and the first of them always has the first turn: only its position counts.
    count = len(lists.starts) - 1
    position = np.full(count, turns, np.int64)
    np.minimum.at(position, lists.turns, np.arange(turns))
    order = np.argsort(position)
    seen = np.zeros(n, bool)
    seen[taken] = True
    below: tuple[Array, Rows] | None = None
    picks: list[tuple[Rows, Rows, Array]] = []
    picked, depth = 0, 0
    target_depth = first_depth(budget + len(taken), count)
    while picked < budget and depth < n:
        band = max(1, min(target_depth - depth, n - depth, max_bytes // (ENTRY_BYTES * count)))
        top = top_k(vectors, lists.queries, starts=lists.starts, depth=band, skip=excluded, below=below)
        rows = top.row[order].T.ravel()
        turn = ((depth + np.arange(band))[:, None] * turns + position[order]).ravel()
        score = top.score[order].T.ravel()
        new = np.flatnonzero(rows >= 0)
        new = new[~seen[rows[new]]]
        new = new[np.sort(np.unique(rows[new], return_index=True)[1])]
        seen[rows[new]] = True
        picks.append((rows[new], turn[new], score[new]))
        picked += len(new)
        depth += band
        # The bound of an exhausted list is -inf, so no row is below it.
        below = top.score[:, -1].copy(), top.row[:, -1].copy()
        target_depth = max(target_depth, int(np.ceil(depth * max(1.5, 1.3 * budget / max(picked, 1)))))
    rows, turn, score = (np.concatenate(parts)[:budget] for parts in zip(*picks, strict=True))
    return rows, turn, score


def capped_round_robin(
    vectors: Points,
    lists: TurnLists,
    capacities: Sequence[Capacity],
    *,
    taken: Rows,
    excluded: Array,
    lose: bool,
    first: int,
    max_bytes: int,
) -> tuple[Rows, Rows, Array, float]:
    """Round robin in which a list moves on from a free row of a full group, without losing its turn.

    A row that does not fit into what its group has left closes the group. The draw ends once a row does not fit into
    the last capacity, that of the whole, or all lists have ended.

    Args:
        capacities: written to.
        taken, excluded: as for `lose_turn`; taken rows cost nothing, also those of full groups.
        lose: whether a row that is taken costs the list its turn; else the list moves on from it, too.
        first: how many rows are expected, for the depth of the first lists.
        max_bytes: the most memory for what is searched at a time. Lists are kept from the place on that all of their
            turns have read.

    Returns:
        picked rows, the turn of each, its similarity (float64), and what closed groups left over.
    """
    from selection.kernels.compiled import top_k as loops
    from selection.kernels.top_k import top_k

    n, count, turns = vectors.shape[0], len(lists.starts) - 1, len(lists.turns)
    group = np.stack([capacity.group for capacity in capacities])
    cost = np.stack([np.asarray(capacity.cost, np.float64) for capacity in capacities])
    sizes = [len(capacity.left) for capacity in capacities]
    starts = np.cumsum([0, *sizes[:-1]])
    left = np.concatenate([np.asarray(capacity.left, np.float64) for capacity in capacities])
    closed = np.concatenate([np.asarray(capacity.closed, np.int64) for capacity in capacities])
    used = np.zeros(n, np.bool_)
    used[taken] = True
    picks = tuple(np.empty(n, np.int64) for _ in range(3))
    picked, turn_of, place_of = picks
    caps = (group, cost, starts, left, closed)
    value, state = np.empty(n), np.array([0.0, 0.0, 0.0, 0.0, len(taken)])
    place = np.zeros(turns, np.int64)
    row, score = np.empty((count, 0), np.int64), np.empty((count, 0))
    below: tuple[Array, Rows] | None = None
    depth, done = first_depth(first + len(taken), count), n == 0
    while not done:
        skip = excluded | ((closed[starts[:, None] + group] > 0) & (group >= 0)).any(axis=0)
        skip[taken] = excluded[taken]
        skip[picked[: int(state[1])]] = not lose
        band = max(1, min(depth, n, max_bytes // (ENTRY_BYTES * count)))
        top = top_k(vectors, lists.queries, starts=lists.starts, depth=band, skip=skip, below=below)
        below = top.score[:, -1].copy(), top.row[:, -1].copy()
        read = int(place.min())
        row, score = np.hstack([row[:, read:], top.row]), np.hstack([score[:, read:], top.score])
        place -= read
        before = int(state[1])
        done = loops.capped_turns(row, lists.turns, below[1] < 0, place, used, caps, lose, state, picks)
        new = slice(before, int(state[1]))
        value[new] = score[lists.turns[turn_of[new] % turns], place_of[new]]
        depth *= 2
    for capacity, start, size in zip(capacities, starts, sizes, strict=True):
        capacity.left[:] = left[start : start + size].tolist()
        capacity.closed[:] = closed[start : start + size].tolist()
    end = int(state[1])
    return picked[:end], turn_of[:end], value[:end], float(state[3])


def first_depth(count: int, lists: int) -> int:
    """A depth at which the lists usually hold `count` rows; depth `count` is always enough, even for a single list."""
    return min(count, max(LEAST_DEPTH, -(-OVERLAP * count // lists)))


def distinct(vectors: Floats) -> tuple[Floats, Rows]:
    """The vectors that differ in any bit, in the order of first occurrence, and the position of each vector in them."""
    as_bytes = np.ascontiguousarray(vectors).view(np.dtype((np.void, vectors.shape[1] * 4))).ravel()
    _, first, inverse = np.unique(as_bytes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return vectors[first[order]], place[inverse.ravel()].astype(np.int64)
