"""How near the rows of a pool are to all others on average, exactly and over all pairs."""

from __future__ import annotations

from threading import Lock

import numpy as np
import numpy.typing as npt

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import square_distance
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Vectors

# Rows that meet each other row before the next: their vectors stay in a cache meanwhile.
PANEL = 64


def mean_closeness(vectors: Vectors) -> npt.NDArray[np.float64]:
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
        part = _sums(X, scale, start, stop)
        with lock:
            np.add(total, part, out=total)

    Threads().run(add, n, PANEL)
    return total / (scale * n)


@compiled
def _sums(X, scale, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """(n,) int64: what rows start .. stop-1 and the rows after them add to each other's sums, in units of 1 / scale."""
    total = np.zeros(X.shape[0], np.int64)
    for j in range(start, X.shape[0]):
        for i in range(start, min(j + 1, stop)):
            term = np.int64(np.rint(scale / (1.0 + np.sqrt(square_distance(X[i], X[j])))))
            total[i] += term
            if i < j:
                total[j] += term
    return total
