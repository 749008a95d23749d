"""The compiled loops behind `k_center`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import nearest
from selection.kernels.compiled.jit import compiled


@compiled
def pick(  # type: ignore[no-untyped-def]  # noqa: ANN201, C901, PLR0912
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
            size = push(heap, size, i, state, rows)
    aside = np.empty(len(rows), np.int64)
    n_aside = 0
    work = np.empty((1, nearest.WORK))
    while count < end:
        place = min(skip, left - 1)
        if size == 0:
            return count, False
        i = heap[0]
        if state[i].bound < floor:
            return count, False
        if state[i].version < count:
            nearest.refresh_one(X[i], state, i, work, centres, high, low, count, floor, split)
            sift(heap, size, state, rows)
            continue
        if not state[i].exact:
            nearest.resolve(X[i], state, i, centres, low, split)
            sift(heap, size, state, rows)
            continue
        if state[i].bound == floor and rows[i] > floor_row:
            return count, False
        size = pop(heap, size, state, rows)
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
        nearest.add_centre(X[i], centres, packed, high, low, count, split)
        count += 1
        left -= 1
        kept = 0
        for a in range(n_aside):
            i = aside[a]
            nearest.refresh_one(X[i], state, i, work, centres, high, low, count, -np.inf, split)
            if state[i].exact and left > skip:  # else fewer are passed over than before: all compete again
                aside[kept] = i
                kept += 1
            else:
                size = push(heap, size, i, state, rows)
        n_aside = kept
    return count, False


@compiled
def before(i, j, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    return state[i].bound > state[j].bound or (state[i].bound == state[j].bound and rows[i] < rows[j])


@compiled
def push(heap, size, i, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    at = size
    while at > 0:
        parent = (at - 1) // 2
        if not before(i, heap[parent], state, rows):
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = i
    return size + 1


@compiled
def sift(heap, size, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move the top, whose bound fell, to its place."""
    i = heap[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and before(heap[child + 1], heap[child], state, rows):
            child += 1
        if not before(heap[child], i, state, rows):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = i


@compiled
def pop(heap, size, state, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Take the top off."""
    size -= 1
    heap[0] = heap[size]
    if size:
        sift(heap, size, state, rows)
    return size
