"""The compiled loops behind `graph_greedy`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.facility_location import heapify, sift_down
from selection.kernels.compiled.jit import compiled

_EMPTY = np.uint64(0)
_ALL = np.uint64(2**64 - 1)
_PAIRS, _FOURS, _BYTES = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_ONES = np.uint64(0x0101010101010101)
_1, _2, _4, _56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)


@compiled
def best_of(part, score, votes, selected):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The row of a part with the highest score that is not selected, ties to the most votes, then to the lowest row."""
    best = -1
    for row in part:
        if selected[row]:
            continue
        if best < 0 or score[row] > score[best]:
            best = row
        elif score[row] < score[best] or votes[row] < votes[best]:
            continue
        elif votes[row] > votes[best] or row < best:
            best = row
    return best


@compiled
def vote(weight, times, base):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """What a vote counts. A voter below the base has selected rows alone among its neighbours: whatever it counts, none is asked for."""
    return weight[max(0, min(times - base, len(weight) - 1))]


@compiled
def take_vote(row, neighbours, starts, voters, weight, selected, times, base, score):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Select a row: it votes no more, and the votes of those that voted for it count less."""
    selected[row] = True
    for e in range(neighbours.shape[1]):
        if neighbours[row, e] >= 0:
            score[neighbours[row, e]] -= vote(weight, times[row], base)
    for at in range(starts[row], starts[row + 1]):
        voter = voters[at]
        if selected[voter]:
            continue
        change = vote(weight, times[voter] + 1, base) - vote(weight, times[voter], base)
        times[voter] += 1
        for e in range(neighbours.shape[1]):
            if neighbours[voter, e] >= 0:
                score[neighbours[voter, e]] += change


@compiled
def fewest_times(selected, times, degree, base):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The fewest selected rows among the neighbours of a voter that still has others; `base` where there is no such voter."""
    fewest = -1
    for v in range(len(times)):
        if not selected[v] and times[v] < degree[v] and (fewest < 0 or times[v] < fewest):
            fewest = times[v]
    return fewest if fewest >= 0 else base


@compiled
def count_votes(neighbours, weight, selected, times, base, score):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the scores anew, for another base."""
    score[:] = 0
    for v in range(len(times)):
        if not selected[v]:
            for e in range(neighbours.shape[1]):
                if neighbours[v, e] >= 0:
                    score[neighbours[v, e]] += vote(weight, times[v], base)


@compiled
def cover(starts, near, taken, candidates, rows, gain):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Greedy cover; writes to `candidates`, `rows` and `gain`, returns how many rows there are."""
    n = len(starts) - 1
    covered = np.zeros(n, np.bool_)
    degree = starts[1:] - starts[:-1]
    for row in taken:
        cover_ball(row, starts, near, covered, degree)
    for count in range(len(rows)):
        best = -1
        for row in range(n):
            if candidates[row] and (best < 0 or degree[row] > degree[best]):
                best = row
        if best < 0 or degree[best] == 0:
            return count
        rows[count] = best
        gain[count] = degree[best]
        candidates[best] = False
        cover_ball(best, starts, near, covered, degree)
    return len(rows)


@compiled
def cover_ball(row, starts, near, covered, degree):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Cover the rows of a ball; `degree` stays the number of uncovered rows in each."""
    for at in range(starts[row], starts[row + 1]):
        other = near[at]
        if not covered[other]:
            covered[other] = True
            for back in range(starts[other], starts[other + 1]):
                degree[near[back]] -= 1


@compiled
def bits(word):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many bits of a 64-bit word are set (Warren, Hacker's Delight, section 5-1)."""
    word -= (word >> _1) & _PAIRS
    word = (word & _FOURS) + ((word >> _2) & _FOURS)
    word = (word + (word >> _4)) & _BYTES
    return np.int64((word * _ONES) >> _56)


@compiled
def reach(row, neighbours, live, covered, reached, pending, queue, seen, take):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """How many rows are newly reached from a row, summed over the samples; with `take` they are covered.

    Bit r of a word is sample r. `covered` holds the samples in which a row is reached already; what it leads to then is
    reached as well, so the search stops there. `reached` and `pending` are zero before and after.
    """
    start = _ALL & ~covered[row]
    if start == _EMPTY:
        return np.int64(0)
    n = len(queue)
    reached[row] = start
    pending[row] = start
    queue[0] = row
    seen[0] = row
    head, waiting, count = 0, 1, 1
    while waiting:
        node = queue[head]
        head = (head + 1) % n
        waiting -= 1
        samples = pending[node]
        pending[node] = _EMPTY
        for e in range(neighbours.shape[1]):
            neighbour = neighbours[node, e]
            if neighbour < 0:
                continue
            new = samples & live[node, e] & ~(reached[neighbour] | covered[neighbour])
            if new == _EMPTY:
                continue
            if reached[neighbour] == _EMPTY:
                seen[count] = neighbour
                count += 1
            if pending[neighbour] == _EMPTY:
                queue[(head + waiting) % n] = neighbour
                waiting += 1
            reached[neighbour] |= new
            pending[neighbour] |= new
    total = np.int64(0)
    for i in range(count):
        total += bits(reached[seen[i]])
        if take:
            covered[seen[i]] |= reached[seen[i]]
        reached[seen[i]] = _EMPTY
    return total


@compiled
def spread(neighbours, live, heap, taken, rows, gain):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lazy greedy; writes to `heap` (the candidates), `rows` and `gain`."""
    n = len(neighbours)
    covered, reached, pending = np.zeros(n, np.uint64), np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    queue, seen = np.empty(n, np.int64), np.empty(n, np.int64)
    for row in taken:
        reach(row, neighbours, live, covered, reached, pending, queue, seen, True)
    upper = np.zeros(n, np.int64)
    known_at = np.zeros(n, np.int64)
    for row in heap:
        upper[row] = reach(row, neighbours, live, covered, reached, pending, queue, seen, False)
    size = len(heap)
    heapify(heap, size, upper)
    count = 0
    while count < len(rows):
        row = heap[0]
        if known_at[row] == count:
            gain[count] = reach(row, neighbours, live, covered, reached, pending, queue, seen, True)
            rows[count] = row
            count += 1
            size -= 1
            heap[0] = heap[size]
        else:
            upper[row] = reach(row, neighbours, live, covered, reached, pending, queue, seen, False)
            known_at[row] = count
        if size > 0:
            sift_down(heap, size, 0, upper)
