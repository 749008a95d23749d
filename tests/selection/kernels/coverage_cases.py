"""Slow, obvious versions of the coverage kernels, in the same float64 arithmetic, and vectors that are hard for them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import njit

from selection.kernels.compiled import sums
from selection.types import Array, Rows
from selection.vectors import ArrayVectors


def square_distances(X: Array, c: Array) -> Array:
    """(n,) float64: the definition of exact."""
    return ordered_sum((X.astype(np.float64) - c.astype(np.float64)) ** 2)


def dots(X: Array, c: Array) -> Array:
    """(n,) float64: the definition of exact."""
    return ordered_sum(X.astype(np.float64) * c.astype(np.float64))


def ordered_sum(terms: Array) -> Array:
    """(n,) of (n, d) float64: eight interleaved sums, then the features left over."""
    n, d = terms.shape
    whole = d - d % 8
    a = np.zeros((8, n))
    for f in range(whole):
        a[f % 8] += terms[:, f]
    total = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    for f in range(whole, d):
        total = total + terms[:, f]
    return total


@njit
def row_dots(X, Y):
    """(n,) of the compiled sum; it can be called by compiled code only."""
    return np.array([sums.dot(X[i], Y[i]) for i in range(len(X))])


@njit
def row_square_distances(X, Y):
    """(n,) of the compiled sum."""
    return np.array([sums.square_distance(X[i], Y[i]) for i in range(len(X))])


def naive_k_center(X, budget, centres, *, skip=0, scale=None, stop_at_zero=False):
    """Rows, distances and nearest centres, by the definition."""
    n = len(X)
    scale = np.ones(n) if scale is None else scale
    taken = np.zeros(n, bool)
    taken[centres] = True
    key, near = np.full(n, np.inf), np.full(n, -1)
    for c in centres:
        new = scale * square_distances(X, X[c])
        near[new < key] = c
        key = np.minimum(key, new)
    rows, distance, refs = [], [], []
    for _ in range(budget):
        order = np.lexsort((np.arange(n), -key))
        order = order[~taken[order]]
        i = order[min(skip, len(order) - 1)]
        if stop_at_zero and key[i] == 0:
            break
        rows.append(int(i))
        distance.append(np.sqrt(key[i]))
        refs.append(int(near[i]))
        taken[i] = True
        new = scale * square_distances(X, X[i])
        near[new < key] = i
        key = np.minimum(key, new)
    return rows, distance, refs


class Shuffled(ArrayVectors):
    """The same vectors in another storage order and block size; counts what it hands out."""

    def __init__(self, array: Array, *, block_rows: int = 7, seed: int = 0) -> None:
        super().__init__(array, block_rows=block_rows)
        self.order = np.random.default_rng(seed).permutation(len(array))
        self.taken = 0

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        for start in range(0, len(self.order), self.block_rows):
            rows = self.order[start : start + self.block_rows]
            yield rows, self.array[rows]

    def take(self, rows: Rows) -> Array:
        self.taken += len(rows)
        return super().take(rows)


def unit(X: Array) -> Array:
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def hard_vectors() -> dict[str, Array]:
    """Name -> (n, d) vectors: ties, near ties, duplicates, zeros, offsets, extreme ranges."""
    rng = np.random.default_rng(7)
    clustered = unit(rng.standard_normal((12, 24))[rng.integers(12, size=300)] + 0.3 * rng.standard_normal((300, 24)))
    with_zeros = clustered.copy()
    with_zeros[::17] = 0
    return {
        "clustered": clustered.astype(np.float32),
        "float16": clustered.astype(np.float16),
        "duplicates": np.repeat(clustered[:40], 6, axis=0)[rng.permutation(240)].astype(np.float32),
        "zeros": with_zeros.astype(np.float16),
        "identical": np.tile(clustered[:1], (120, 1)).astype(np.float32),
        "grid": np.stack(np.meshgrid(*[np.arange(5.0)] * 3), -1).reshape(-1, 3).astype(np.float32),
        "one_hot": np.eye(150, dtype=np.float32),
        "signs": (rng.choice([-1.0, 1.0], (300, 33)) / np.sqrt(33)).astype(np.float32),
        "near_ties": (clustered[:1] + 1e-7 * rng.standard_normal((200, 24))).astype(np.float32),
        "offset": (1000 + 0.01 * rng.standard_normal((200, 9))).astype(np.float32),
        "huge": (1e30 * rng.standard_normal((200, 10))).astype(np.float32),
        "tiny": (1e-30 * rng.standard_normal((200, 10))).astype(np.float32),
        "outlier": np.concatenate([clustered, 1e4 * clustered[:2]]).astype(np.float32),
        "one_dimension": rng.integers(0, 60, (150, 1)).astype(np.float32),
    }
