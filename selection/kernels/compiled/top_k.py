"""The compiled loops behind `top_k`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot

# Coarse similarities that are looked at together.
LANES = 32


@compiled
def scan(tile):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The first row with a value that is not finite (-1: none), and the largest norm."""
    largest = 0.0
    for j in range(tile.shape[0]):
        square = dot(tile[j], tile[j])
        if not np.isfinite(square):  # squares of finite float32 cannot overflow float64
            return j, np.inf
        largest = max(largest, square)
    return -1, np.sqrt(largest)


@compiled
def dot_all(tile, query, rows, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[rows[j]] = the exact similarity of tile[j] to a float64 query."""
    for j in range(tile.shape[0]):
        out[rows[j]] = dot(tile[j], query)


@compiled
def exact_max(coarse, j, x, queries, first_query, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact maximum over the queries whose coarse similarity to x is not below `floor`.

    Where the margin is infinite so is the floor, and every query is decided exactly.
    """
    best = -np.inf
    for i in range(coarse.shape[0]):
        if not coarse[i, j] < floor:
            best = max(best, dot(x, queries[first_query + i]))
    return best


@compiled
def coarse_maxima(coarse):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(rows,) the highest coarse similarity of each row."""
    highest = coarse[0].copy()
    for i in range(1, coarse.shape[0]):
        for j in range(coarse.shape[1]):
            highest[j] = max(highest[j], coarse[i, j])
    return highest


@compiled
def exact_maxima(coarse, tile, rows, queries, margin, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """out[rows[j]] = the exact maximum similarity of tile[j] to any query."""
    highest = coarse_maxima(coarse)
    for j in range(tile.shape[0]):
        out[rows[j]] = exact_max(coarse, j, tile[j], queries, 0, np.float64(highest[j]) - 2.0 * margin)


@compiled
def after(score, row, other_score, other_row):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether (score, row) comes after the other in a list: lower score, or the same and a higher row."""
    return score < other_score or (score == other_score and row > other_row)


@compiled
def cut(score, row, size, depth):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring the `depth` first of `size` entries to the front, the last of them to depth-1 (Hoare's selection)."""
    low, high, k = 0, size - 1, depth - 1
    while low < high:
        middle = (low + high) // 2
        ps, pr = score[middle], row[middle]
        i, j = low, high
        while i <= j:
            while after(ps, pr, score[i], row[i]):
                i += 1
            while after(score[j], row[j], ps, pr):
                j -= 1
            if i <= j:
                score[i], score[j] = score[j], score[i]
                row[i], row[j] = row[j], row[i]
                i += 1
                j -= 1
        if k <= j:
            high = j
        elif k >= i:
            low = i
        else:
            return


@compiled
def offer(  # type: ignore[no-untyped-def]  # noqa: ANN201
    coarse, tile, rows, skip, queries, starts, first, last, margin,  # noqa: ANN001
    bound_score, bound_row, score, row, size, last_score, last_row, depth,  # noqa: ANN001
):  # fmt: skip
    """Offer the rows of a tile to lists first..last-1; each list keeps a superset of its `depth` best so far.

    `last_score`, `last_row` hold the entry at depth-1 after the latest cut: nothing after it can be among the best.
    `bound_score`, `bound_row`: only what comes after these is wanted.
    """
    capacity = score.shape[1]
    offset = starts[first]
    for which in range(first, last):
        part = coarse[starts[which] - offset : starts[which + 1] - offset]
        single = part.shape[0] == 1
        highest = part[0] if single else coarse_maxima(part)
        lowest_wanted = last_score[which] - margin[which]
        highest_wanted = bound_score[which] + margin[which]
        for start in range(0, tile.shape[0], LANES):
            # Most lanes have none: a float32 is below a float64 if it is below that rounded to float32.
            if not reached(highest[start : start + LANES], np.float32(lowest_wanted)):
                continue
            for j in range(start, min(start + LANES, tile.shape[0])):
                near = np.float64(highest[j])
                # Written so that a NaN from an overflow passes both tests.
                if near < lowest_wanted or near > highest_wanted or skip[rows[j]]:
                    continue
                if single:
                    exact = dot(tile[j], queries[starts[which]])
                else:
                    exact = exact_max(part, j, tile[j], queries, starts[which], near - 2.0 * margin[which])
                if not after(exact, rows[j], bound_score[which], bound_row[which]):
                    continue
                if not after(last_score[which], last_row[which], exact, rows[j]):
                    continue
                at = size[which]
                score[which, at] = exact
                row[which, at] = rows[j]
                size[which] = at + 1
                if at + 1 == capacity:
                    cut(score[which], row[which], capacity, depth)
                    size[which] = depth
                    last_score[which] = score[which, depth - 1]
                    last_row[which] = row[which, depth - 1]
                    lowest_wanted = last_score[which] - margin[which]


@compiled
def reached(values, low):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Whether any of some float32 numbers is not below a limit; in vector registers, since it looks at all."""
    count = np.int32(0)
    for j in range(len(values)):
        count += np.int32(not values[j] < low)
    return count > 0


@compiled
def advance(row, turns, used, budget, place, turn, picked, picked_turn, picked_place, count):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Round robin in which the list whose turn it is moves to its next unused row.

    Args:
        row: (lists, depth) the lists, -1 behind the end of one.
        turns: (t,) which list each turn of a round belongs to.
        used: (n,) rows taken or not wanted; written to.
        place: (lists,) how far each list is read; written to.
        turn: the turn to begin with, counted from the first of all rounds.
        picked, picked_turn, picked_place: (budget,) the picks; written to from `count` on.

    Returns:
        the turn to go on with, and the picks so far: fewer than the budget if a list was read to its end.
    """
    while count < budget:
        which = turns[turn % len(turns)]
        at = place[which]
        while at < row.shape[1] and row[which, at] >= 0 and used[row[which, at]]:
            at += 1
        place[which] = at
        if at == row.shape[1] or row[which, at] < 0:
            break
        used[row[which, at]] = True
        picked[count] = row[which, at]
        picked_turn[count] = turn
        picked_place[count] = at
        count += 1
        turn += 1
    return turn, count


@compiled
def capped_turns(row, turns, ended, place, used, caps, lose, state, picks):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Round robin within capacities: a free row of a full group is passed over without losing the turn.

    Args:
        row: (lists, depth) the lists, -1 behind the end of one.
        turns: (t,) which list each turn of a round belongs to.
        ended: (lists,) whether a list has no rows beyond those here.
        place: (t,) how far each turn has read its list; written to.
        used: (n,) rows taken; written to.
        caps: (c, n) the group of each row in each capacity, -1 is none, and (c, n) its cost; (c,) where the groups of
            each capacity begin in the last two: what is left, and when each closed (0: it is open; else 1 + how many
            rows were selected by then), which are written to. The last capacity is that of the whole.
        lose: whether a row that is taken costs the turn, else the list moves on.
        state: the turn, the picks so far, the turns since a list had a row, what closed groups left over, and how many
            rows were selected before; written to.
        picks: (n,) each: rows, turns and places in the list; written to.

    Returns:
        False if a list was read to its end and goes on.
    """
    whole, closed = caps[2][-1], caps[4]
    while not closed[whole] and state[2] < len(turns):
        mine = int(state[0]) % len(turns)
        which = turns[mine]
        candidate = -1
        while candidate < 0 and place[mine] < row.shape[1] and row[which, place[mine]] >= 0:
            candidate = _offered(row[which, place[mine]], used, caps, lose, state)
            place[mine] += 1
            if closed[whole]:
                break
        if candidate < 0 and closed[whole]:
            return True
        if candidate < 0 and place[mine] == row.shape[1] and not ended[which]:
            return False
        if candidate >= 0 and not used[candidate]:
            used[candidate] = True
            at = int(state[1])
            picks[0][at], picks[1][at], picks[2][at] = candidate, int(state[0]), place[mine] - 1
            state[1] += 1
        state[2] = state[2] + 1 if candidate < 0 else 0
        state[0] += 1
    return True


@compiled
def _offered(candidate, used, caps, lose, state):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """The row, if it ends the turn: taken already, or free and with room, which it then has used; else -1."""
    if used[candidate]:
        return candidate if lose else -1
    group, cost, first, left, closed = caps
    tight = -1
    for c in range(len(first)):
        at = first[c] + group[c, candidate]
        if group[c, candidate] >= 0 and closed[at]:
            return -1
        if group[c, candidate] >= 0 and tight < 0 and cost[c, candidate] > left[at]:
            tight = at
    if tight >= 0:
        closed[tight] = 1 + int(state[4] + state[1])
        state[3] += left[tight]
        return -1
    for c in range(len(first)):
        if group[c, candidate] >= 0:
            left[first[c] + group[c, candidate]] -= cost[c, candidate]
            if left[first[c] + group[c, candidate]] <= 0:
                closed[first[c] + group[c, candidate]] = 2 + int(state[4] + state[1])
    return candidate
