"""How near rows are to all others, exactly and over all pairs."""

from __future__ import annotations

from threading import Lock

import numpy as np

from selection.blocks import chunks
from selection.kernels.compiled import density as loops
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Array, Doubles, Points, Rows, Vectors

# Rows that meet each other row before the next: their vectors stay in a cache meanwhile.
PANEL = 64

# Rows of the two sides of a tile of pairs.
PAIR_ROWS = 256
# Unit vectors are rounded to multiples of this: then products and their sums are exact in float64, in any order.
GRID = 2.0**-25


def mean_closeness(vectors: Vectors) -> Doubles:
    """(n,) float64: each row's mean of 1 / (1 + distance) over all n rows, itself included, which adds 1.

    Distances are Euclidean, in float64. The terms are added up as whole multiples of one small power of two, so a sum
    is the same in any order: neither blocks nor threads nor the order of the pool change it. What that rounds away is
    below n / 2**61 of a mean.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: n*n*d/2 operations in float64, on all threads. Memory: 8*n*d bytes.
    """
    n, d = vectors.shape
    X = np.empty((n, d))
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        X[rows] = tile
    scale = 2.0 ** (62 - n.bit_length())  # n terms of at most 1 stay in the range of int64
    total, lock = np.zeros(n, np.int64), Lock()

    def add(start: int, stop: int) -> None:
        part = loops.closeness_sums(X, scale, start, stop)
        with lock:
            np.add(total, part, out=total)

    Threads().run(add, n, PANEL)
    return total / (scale * n)


def epanechnikov_density(vectors: Points, rows: Rows, among: Rows, sigma: float) -> Doubles:
    """(r,) float64: for each row x the sum over the rows y of `among` of max(0, 1 - distance(x, y)^2 / sigma^2), 1 for y = x.

    Args:
        vectors: (n, d) of length 1, or 0: a zero vector has cosine 0 to every other row.
        rows: among `among`.
        sigma: > 0.

    The squared distance is 2 - 2 cosine. Sums are the same in any order: cosines are exact ones of the components
    rounded to multiples of GRID, terms are added up as whole multiples of one small power of two.

    Cost: 2*r*a*d operations in float64 for a rows in `among`. Memory: 16*d*PAIR_ROWS bytes, and 5 MB.
    """
    scale = 2.0 ** (62 - max(1, len(among)).bit_length())
    total = np.zeros(len(rows), np.int64)
    for others in chunks(among, PAIR_ROWS):
        right = _on_grid(vectors.take(others)).T
        for start in range(0, len(rows), PAIR_ROWS):
            part = rows[start : start + PAIR_ROWS]
            square = np.maximum(2.0 - 2.0 * (_on_grid(vectors.take(part)) @ right), 0.0)
            square[part[:, None] == others] = 0.0
            terms = np.rint(np.maximum(1.0 - square / sigma**2, 0.0) * scale).astype(np.int64)
            total[start : start + PAIR_ROWS] += terms.sum(axis=1)
    return total / scale


def _on_grid(X: Array) -> Doubles:
    return np.asarray(np.rint(X.astype(np.float64) / GRID) * GRID)
