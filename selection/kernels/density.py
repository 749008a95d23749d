"""How near the rows of a pool are to all others on average, exactly and over all pairs."""

from __future__ import annotations

from threading import Lock

import numpy as np

from selection.kernels.compiled import density as loops
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Doubles, Vectors

# Rows that meet each other row before the next: their vectors stay in a cache meanwhile.
PANEL = 64


def mean_closeness(vectors: Vectors) -> Doubles:
    """(n,) float64: each row's mean of 1 / (1 + distance) over all n rows, itself included, which adds 1.

    Distances are Euclidean, in float64. The terms are added up as whole multiples of one small power of two, so a sum is the
    same in any order: neither blocks nor threads nor the order of the pool change it. What that rounds away is below
    n / 2**61 of a mean.

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
