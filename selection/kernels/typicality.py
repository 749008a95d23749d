"""The row of a set with the smallest mean distance to its nearest others, exactly.

Exact means the float64 distances in one fixed order, the smallest added up in ascending order. Float32 products bound
each row's mean from both sides (see `margin`); only rows whose lower bound does not exceed the smallest upper bound are
worked out.
"""

from __future__ import annotations

import math

import numpy as np

from selection.kernels.compiled import typicality as loops
from selection.kernels.compiled.assign import norms
from selection.kernels.nearest import LARGEST_NORM, SMALLEST_NORM
from selection.kernels.top_k import TILE_VALUES
from selection.types import Doubles, Floats


def most_typical(X: Floats, k: int, *, squared: bool = False) -> tuple[int, float]:
    """The row at the smallest mean distance to its k nearest others, and that mean; ties to the lowest row.

    Args:
        X: (m, d) float32, finite, m >= 2.
        k: 1 .. m-1.
        squared: squared Euclidean distances in place of Euclidean ones.

    Cost: 2*m*m*d operations in float32, m*d for each row that these leave open. Memory: 4*m*d bytes, a tile.
    """
    X = np.ascontiguousarray(X, np.float32)
    length = norms(X)
    largest, unit = float(length.max()), 1.0
    if largest > 0 and not SMALLEST_NORM < largest < LARGEST_NORM:  # a power of two is exact
        unit = 2.0 ** -math.frexp(largest)[1]
        X, length = X * np.float32(unit), length * unit
    square = length**2
    low, high = _bounds(X, square, k, squared=squared)
    best, at = np.inf, -1
    smallest = high.min()
    contenders = np.flatnonzero(low <= smallest)
    for row in contenders[np.argsort(low[contenders], kind="stable")].tolist():
        # A later row has a mean of at least its lower bound, and loses a tie to a lower row.
        if low[row] > best or (low[row] == best and row > at):
            continue
        mean = float(loops.exact_mean(X, row, X @ X[row], square, k, squared))
        if mean < best or (mean == best and row < at):
            best, at = mean, row
    return at, best / (unit**2 if squared else unit)


def _bounds(X: Floats, square: Doubles, k: int, *, squared: bool) -> tuple[Doubles, Doubles]:
    """(m,) a lower and an upper bound of each row's mean."""
    m = len(X)
    low, high = np.empty(m), np.empty(m)
    at_once = max(16, TILE_VALUES // m)
    for start in range(0, m, at_once):
        coarse = X[start : start + at_once] @ X.T
        loops.bound_means(coarse, start, square, k, X.shape[1], squared, low, high)
    return low, high
