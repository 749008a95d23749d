"""Greedy k-center: again and again the row farthest from all centres so far, exactly.

Distances to the nearest centre only fall, so a stale one is an upper bound. The rows with the largest bounds are the
front. A phase takes the largest bounds of the front into memory and brings them up to date at once; then picks among them,
lazily, one after the other, for as long as the farthest of them is farther than the largest bound left out. A front, which
only saves looking through all bounds at each phase, is given up when the largest bounds are outside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selection.kernels import sketch
from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled.jit import compiled
from selection.kernels.nearest import Doubles, Nearest, Picks, put
from selection.kernels.top_k import Points
from selection.types import Array, Rows
from selection.vectors import TensorVectors

# Rows brought up to date in a phase: enough to give many picks, few enough for the caches (6 MiB at d = 384).
PHASE_ROWS = 4096

# Rows of a front: enough for many phases.
FRONT_ROWS = 2**15

# After how many picks sketches are considered, if more than SKETCH_BUDGET * d are to come: finding them costs about d picks.
SKETCH_AFTER = 512
SKETCH_BUDGET = 4

# A row at work is let go when its bound is this far below all that matters now. To go on a little costs less than to take
# it again soon.
RELEASE = 0.95


def k_center(
    vectors: Points,
    budget: int,
    *,
    centres: Rows,
    candidates: npt.NDArray[np.bool_],
    skip: int = 0,
    scale: Doubles | None = None,
    stop_at_zero: bool = False,
) -> Picks:
    """Pick `budget` candidates, each the farthest from the centres and all before it; ties to the lowest row.

    Args:
        vectors: (n, d), or outer products.
        centres: the centres to begin with, at least one; they are no picks.
        candidates: (n,) bool; no centre among them.
        skip: at each pick this many of the farthest are passed over; of fewer, all but the last.
        scale: (n,) float64 >= 0 that multiplies squared distances.
        stop_at_zero: end when no candidate is away from the centres.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass over the vectors, then at most n*budget*d float32 multiply-adds, in practice a tenth to a half of it; a fraction of
    that for large budgets where a few directions hold most of the vectors (see `sketch`). On a card all rows meet every centre: n*budget*d.
    Memory: 65 n bytes, 8 d bytes a centre, 4 d bytes for each of 4096 + skip rows; with sketches 3 kB a centre and 8 d bytes for each
    of 2000 rows more.
    Source: Gonzalez 1985; lazy bounds after Minoux 1978.
    """
    known = Nearest(vectors, centres, candidates, len(centres) + budget, scale)
    before, left = known.count, int(candidates.sum())
    value = np.full(len(centres) + budget, np.nan)
    near = np.full(len(centres) + budget, -1, np.int64)
    end, at_once, done = before + budget, PHASE_ROWS + skip, False
    n, d = vectors.shape
    buffer = np.empty((min(n, at_once), d), np.float32)
    if isinstance(vectors, TensorVectors):
        from selection.kernels.device.nearest import Bounds

        bounds = Bounds(vectors, known)
        while known.count < end and not done:
            bounds.refresh()
            rows, here_floor, out = bounds.largest(at_once)
            state, X = bounds.state(rows), known.take(rows, out=buffer)
            known.count, done = _pick(
                X, rows, state, known.centres, known.packed, known.high, known.low, known.centre_rows, known.count, end,
                here_floor, out if out >= 0 else n, skip, left - (known.count - before), stop_at_zero, value, near, known.split,
            )  # fmt: skip
            bounds.put(rows, state)
    consider = before + SKETCH_AFTER
    while known.count < end and not done:
        front, floor, out = largest(known.state["bound"], max(at_once, FRONT_ROWS))
        floor_row = int(out) if out >= 0 else n
        states = known.state.take(front)
        last = False
        while known.count < end and not done and not last:
            here, here_floor, out = largest(states["bound"], at_once)
            here_row = int(front[out]) if out >= 0 else n
            last = here_floor <= floor
            if last:  # what is outside the front decides; at a tie, the lower row of both
                here_row = min(here_row, floor_row) if here_floor == floor else floor_row
                here_floor = floor
            here = here[np.argsort(states["version"][here], kind="stable")]
            rows, state = front[here], states.take(here)
            X = known.take_refreshed(rows, state, RELEASE * here_floor, out=buffer)
            known.count, done = _pick(
                X, rows, state, known.centres, known.packed, known.high, known.low, known.centre_rows, known.count, end,
                here_floor, here_row, skip, left - (known.count - before), stop_at_zero, value, near, known.split,
            )  # fmt: skip
            put(states, here, state)
            if known.count >= consider and end - known.count > SKETCH_BUDGET * d and known.split == d:
                known.sketch = sketch.worth_it(X, state, known.centres[: known.count], len(known.centres))
                consider = end if known.sketch.count else 4 * known.count
            known.sketch.add(known.centres[: known.count])
        put(known.state, front, states)
    picked = slice(before, known.count)
    return Picks(known.centre_rows[picked], known.distance(value[picked]), known.centre_rows[near[picked]])


def largest(bound: Array, count: int) -> tuple[Rows, float, int]:
    """The places of the `count` largest bounds above -inf, equal ones by ascending place; and what is left out.

    Returns:
        places, ascending; a bound that none left out exceeds; the first place left out that has it, -1 if there is none.
    """
    bound = np.ascontiguousarray(bound)
    n = len(bound)
    floor = float(np.partition(bound, n - count)[n - count]) if count < n else -np.inf
    if floor == -np.inf:
        return np.flatnonzero(bound > -np.inf), floor, -1
    places = np.flatnonzero(bound >= floor)
    if len(places) == count:
        return places, floor, -1
    level = places[bound[places] == floor]
    out = level[len(level) - (len(places) - count) :]
    return np.setdiff1d(places, out, assume_unique=True), floor, int(out[0])


@compiled
def _pick(  # type: ignore[no-untyped-def]  # noqa: ANN202, C901, PLR0912
    X, rows, state, centres, packed, high, low, centre_rows, count, end,  # noqa: ANN001
    floor, floor_row, skip, left, stop_at_zero, value, near, split,  # noqa: ANN001
):  # fmt: skip
    """Pick among the rows of a phase while none outside can come first.

    A heap holds the rows by descending bound, then ascending row. Its top is brought up to date and made exact; what is
    still at the top then is the farthest. The rows passed over are set aside; a new centre sends back those it changes.

    Returns:
        the number of centres, and whether the end is reached before `end` centres.
    """
    heap = np.empty(len(rows), np.int64)
    size = 0
    for i in range(len(rows)):
        if state[i].bound >= floor:
            size = _push(heap, size, i, state, rows)
    aside = np.empty(len(rows), np.int64)
    n_aside = 0
    work = np.empty((1, loops.WORK))
    while count < end:
        place = min(skip, left - 1)
        if size == 0:
            return count, False
        i = heap[0]
        if state[i].bound < floor:
            return count, False
        if state[i].version < count:
            loops.refresh_one(X[i], state, i, work, centres, high, low, count, floor, split)
            _sift(heap, size, state, rows)
            continue
        if not state[i].exact:
            loops.resolve(X[i], state, i, centres, low, split)
            _sift(heap, size, state, rows)
            continue
        if state[i].bound == floor and rows[i] > floor_row:
            return count, False
        size = _pop(heap, size, state, rows)
        if n_aside < place:
            aside[n_aside] = i
            n_aside += 1
            continue
        if stop_at_zero and state[i].bound == 0.0:
            return count, True
        centre_rows[count] = rows[i]
        value[count] = state[i].bound
        near[count] = state[i].near
        state[i].bound = -np.inf
        loops.add_centre(X[i], centres, packed, high, low, count, split)
        count += 1
        left -= 1
        kept = 0
        for a in range(n_aside):
            i = aside[a]
            loops.refresh_one(X[i], state, i, work, centres, high, low, count, -np.inf, split)
            if state[i].exact and left > skip:  # else fewer are passed over than before: all compete again
                aside[kept] = i
                kept += 1
            else:
                size = _push(heap, size, i, state, rows)
        n_aside = kept
    return count, False


@compiled
def _before(i, j, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return state[i].bound > state[j].bound or (state[i].bound == state[j].bound and rows[i] < rows[j])


@compiled
def _push(heap, size, i, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if not _before(i, heap[parent], state, rows):
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = i
    return size + 1


@compiled
def _sift(heap, size, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Move the top, whose bound fell, to its place."""
    i = heap[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(heap[child + 1], heap[child], state, rows):
            child += 1
        if not _before(heap[child], i, state, rows):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = i


@compiled
def _pop(heap, size, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Take the top off."""
    size -= 1
    heap[0] = heap[size]
    if size:
        _sift(heap, size, state, rows)
    return size
