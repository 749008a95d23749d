"""Greedy k-center: again and again the row farthest from all centres so far, exactly.

Distances to the nearest centre only fall, so a stale one is an upper bound. A phase takes the rows with the largest
bounds into memory and brings them up to date at once; then picks among them, lazily, one after the other, for as long
as the farthest of them is farther than the largest bound left out. `Levels` gives the largest bounds, `Quantized` rules
out most of the centres that a row has to meet.

Where other processes read the vectors, the largest bounds are a front, which these bring up to date before its first
phase. That is nearly all of the work. Few rows of the front are then still above what is outside; these are picked
among as always.
"""

from __future__ import annotations

import numpy as np

from selection.kernels import sketch
from selection.kernels.compiled import k_center as loops
from selection.kernels.device.k_center import Bounds
from selection.kernels.levels import Levels
from selection.kernels.nearest import Nearest, Picks, largest, put_records
from selection.types import DeviceVectors, Doubles, Mask, PartedVectors, Points, Rows

# Rows brought up to date in a phase: enough to give many picks, few enough for the caches (6 MiB at d = 384).
PHASE_ROWS = 4096

# Where other processes read the vectors, a front holds one row in so many, at least so many: all centres are sent for
# each.
FRONTS = 4
FRONT_ROWS = 2**15

# Above every row: where no row is left out.
NO_ROW = 2**62

# Where there are no bytes: after how many picks sketches are considered, if more than SKETCH_BUDGET * d are to come. To
# find them costs about d picks.
SKETCH_AFTER = 512
SKETCH_BUDGET = 4

# A row at work is let go when its bound is this far below all that matters now. To go on a little costs less than to
# take it again soon.
RELEASE = 0.95


def k_center(
    vectors: Points,
    budget: int,
    *,
    centres: Rows,
    candidates: Mask,
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

    Cost: one pass over the vectors, then at most n*budget*d multiply-adds, in practice a tenth to a half of it; of
    bytes where the processor has an instruction for them (see `quantized`), else in float32, and a fraction of that for
    large budgets where a few directions hold most of the vectors (see `sketch`). On a GPU all rows meet every centre:
    n*budget*d. Where other processes read the vectors, they do most of this, in some tens of rounds; all centres go
    along.
    Memory: 65 n bytes and half a MiB, 9 d bytes a centre, 4 d bytes for each of 4096 + skip rows; with sketches 3 kB a
    centre and 8 d bytes for each of 2000 rows more.
    Source: Gonzalez 1985; lazy bounds after Minoux 1978.
    """
    known = Nearest(vectors, centres, candidates, len(centres) + budget, scale)
    before, left = known.count, int(candidates.sum())
    value = np.full(len(centres) + budget, np.nan)
    near = np.full(len(centres) + budget, -1, np.int64)
    end, at_once, done = before + budget, PHASE_ROWS + skip, False
    n, d = vectors.shape
    buffer = np.empty((min(n, at_once), d), np.float32)
    if isinstance(vectors, DeviceVectors):
        bounds = Bounds(vectors, known)
        while known.count < end and not done:
            bounds.refresh()
            rows, floor, out = bounds.largest(at_once)
            state, X = bounds.state(rows), known.take(rows, out=buffer)
            known.count, done = loops.pick(
                X, rows, state, known.centres, known.packed, known.high, known.low, known.centre_rows, known.count, end,
                floor, out if out >= 0 else n, skip, left - (known.count - before), stop_at_zero, value, near, known.split,
            )  # fmt: skip
            bounds.put(rows, state)
    parted = vectors if isinstance(vectors, PartedVectors) else None
    consider = end if parted or known.quantized.in_use else before + SKETCH_AFTER
    front, states, floor, floor_row = np.arange(n), known.state, -np.inf, NO_ROW
    while known.count < end and not done:
        if parted:
            front, floor, floor_row = _front(known, parted, max(at_once, FRONT_ROWS, n // FRONTS))
            states = known.state.take(front)
        levels = Levels(states)
        last = False
        while known.count < end and not done and not last:
            phase, phase_floor, phase_floor_row = _phase(levels, front, at_once)
            last = phase_floor <= floor
            if last:  # what is outside the front decides; at a tie, the lower row of both
                phase_floor_row = min(phase_floor_row, floor_row) if phase_floor == floor else floor_row
                phase_floor = floor
            phase = phase[np.argsort(states["version"][phase], kind="stable")]
            rows, state = front[phase], states.take(phase)
            X = known.take_refreshed(rows, state, RELEASE * phase_floor, out=buffer)
            known.count, done = loops.pick(
                X, rows, state, known.centres, known.packed, known.high, known.low, known.centre_rows, known.count, end,
                phase_floor, phase_floor_row, skip, left - (known.count - before), stop_at_zero, value, near, known.split,
            )  # fmt: skip
            put_records(states, phase, state)
            levels.put(phase)
            if known.count >= consider and end - known.count > SKETCH_BUDGET * d and known.split == d:
                known.sketch = sketch.worth_it(X, state, known.centres[: known.count], len(known.centres))
                consider = end if known.sketch.count else 4 * known.count
            known.sketch.add(known.centres[: known.count])
        if parted:
            put_records(known.state, front, states)
    picked = slice(before, known.count)
    return Picks(known.centre_rows[picked], known.distance(value[picked]), known.centre_rows[near[picked]])


def _front(known: Nearest, vectors: PartedVectors, count: int) -> tuple[Rows, float, int]:
    """As `largest` of all bounds, brought up to date where the vectors are; NO_ROW if no row is left out."""
    front, floor, out = largest(known.state["bound"], count)
    known.refresh_in_parts(vectors, front, RELEASE * floor)
    above = known.state["bound"][front] >= RELEASE * floor  # others are below the largest outside
    return front[above], floor, out if out >= 0 else NO_ROW


def _phase(levels: Levels, front: Rows, count: int) -> tuple[Rows, float, int]:
    """As `largest` of the bounds in levels, taken out of them; the row that is left out, or NO_ROW."""
    candidates = levels.take(count + 1)
    chosen, floor, out = largest(levels.bound[candidates], count)
    others = np.ones(len(candidates), bool)
    others[chosen] = False
    levels.put(candidates[others])
    return candidates[chosen], floor, int(front[candidates[out]]) if out >= 0 else NO_ROW
