"""The compiled loops behind `typicality`."""

from __future__ import annotations

import numpy as np
from numba import prange

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.margin import distance_margin
from selection.kernels.compiled.nearest import TINY
from selection.kernels.compiled.sums import square_distance


@compiled
def insert(smallest, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put a value below the last of an ascending array into its place; the last falls out."""
    at = len(smallest) - 1
    while at > 0 and smallest[at - 1] > value:
        smallest[at] = smallest[at - 1]
        at -= 1
    smallest[at] = value


@compiled(parallel=True)
def bound_means(coarse, start, square, k, d, squared, low, high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bounds of the mean distance of rows start, start + 1, ... to their k nearest others.

    Args:
        coarse: (rows, m) float32 inner products with all rows.
        square: (m,) float64 squared norms.
        low, high: (m,) written to.
    """
    gamma, largest = distance_margin(d), square.max()
    for j in prange(coarse.shape[0]):
        row = start + j
        smallest = np.full(k, np.inf)
        for i in range(coarse.shape[1]):
            value = square[i] - 2.0 * np.float64(coarse[j, i])
            if value < smallest[k - 1] and i != row:
                insert(smallest, value)
        slack = gamma * (square[row] + largest) + TINY
        below = above = 0.0
        for i in range(k):
            least = max(0.0, smallest[i] + square[row] - slack)
            most = max(0.0, smallest[i] + square[row] + slack)
            below += least if squared else np.sqrt(least)
            above += most if squared else np.sqrt(most)
        # The factors cover the roundings of these sums.
        low[row] = below / k * (1.0 - 1e-12)
        high[row] = above / k * (1.0 + 1e-12)


@compiled
def exact_mean(X, row, coarse, square, k, squared):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The mean distance of one row to its k nearest others, given its float32 inner products with all rows (m,)."""
    slack = distance_margin(X.shape[1]) * (square[row] + square.max()) + TINY
    smallest = np.full(k, np.inf)
    for i in range(len(coarse)):
        value = square[i] - 2.0 * np.float64(coarse[i])
        if value < smallest[k - 1] and i != row:
            insert(smallest, value)
    limit = smallest[k - 1] + 2.0 * slack
    smallest[:] = np.inf
    for i in range(len(coarse)):
        if i != row and square[i] - 2.0 * np.float64(coarse[i]) <= limit:
            value = square_distance(X[row], X[i])
            if value < smallest[k - 1]:
                insert(smallest, value)
    total = 0.0
    for i in range(k):
        total += smallest[i] if squared else np.sqrt(smallest[i])
    return total / k
