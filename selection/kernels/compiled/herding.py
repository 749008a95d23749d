"""The compiled loops behind `herding`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot, square_distance

# Rows that one thread works on before it takes more.
ROWS_AT_ONCE = 4096
# What is known of each row: |x - c|^2, what a unit of the copy stands for, |x'|, |e|, and what |q - W x|^2 / W is at
# least, less a constant; inf for a row that cannot be picked.
SQUARE, STEP, REACH, REST, LOW = range(5)


@compiled
def add_scaled(whole, tile, factor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Add the rows times their factors, each number rounded to an integer."""
    for j in range(tile.shape[0]):
        for f in range(tile.shape[1]):
            whole[f] += np.int64(np.rint(factor[j] * np.float64(tile[j, f])))


@compiled
def shorten(tile, rows, centre, spread, copy, known, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the short copies of rows start .. stop-1 of a tile, and what is known of each."""
    d = tile.shape[1]
    x = np.empty(d)
    for j in range(start, stop):
        i = rows[j]
        for f in range(d):
            x[f] = np.float64(tile[j, f]) - centre[f]
        known[SQUARE, i] = dot(x, x)
        peak = 0.0
        for f in range(d):
            x[f] /= spread[f]
            peak = max(peak, abs(x[f]))
        known[STEP, i] = step = peak / 127
        known[REACH, i] = np.sqrt(dot(x, x))
        for f in range(d):
            k = np.rint(x[f] / step) if step > 0 else 0.0
            copy[i, f] = np.int8(k)
            x[f] -= step * k
        known[REST, i] = np.sqrt(dot(x, x))


@compiled
def bounds(copy, known, q, by, high, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write `low` of rows start .. stop-1, and the smallest upper bound to `high`.

    Args:
        q: (d,) int16, the whole numbers of q'.
        by: W, their step, and what the margin takes times rest (or step), reach, square and 1.
        high: one for each ROWS_AT_ONCE rows.
    """
    W, step, by_rest, by_step, by_reach, by_square, margin = by
    least = np.inf
    for i in range(start, stop):
        if known[LOW, i] == np.inf:
            continue
        x = copy[i]
        product = np.int32(0)
        for f in range(q.shape[0]):  # 32 bits throughout, which has vector instructions
            product = np.int32(product + np.int32(np.int32(x[f]) * np.int32(q[f])))
        middle = W * known[SQUARE, i] - 2.0 * step * known[STEP, i] * product
        cut = min(by_rest * known[REST, i], by_step * known[STEP, i])
        off = 2.0 * (cut + by_reach * known[REACH, i] + by_square * known[SQUARE, i] + margin)
        known[LOW, i] = middle - off
        least = min(least, middle + off)
    high[start // ROWS_AT_ONCE] = least


@compiled
def square_distances(X, q):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(b,) the squared distance of each row to q, summed in the fixed order."""
    out = np.empty(X.shape[0])
    for j in range(X.shape[0]):
        out[j] = square_distance(X[j], q)
    return out
