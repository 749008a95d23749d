"""Greedy facility location where each row can be covered by a few rows only.

The value, its integers and its ties are those of `facility_location`; here every similarity is worked out exactly beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selection.kernels.compiled import facility_location as loops
from selection.kernels.facility_location import BITS, scaled
from selection.kernels.float16 import as_float32
from selection.kernels.neighbours import nearest_neighbours
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Array, Doubles, Rows, Vectors

# Rows whose neighbours are looked up at once.
NEIGHBOUR_ROWS = 1024


@dataclass(frozen=True)
class Picks:
    """Rows in pick order.

    Attributes:
        rows: (b,) int64.
        gain: (b,) float64, what each added to the value.
        before: the value before the first pick, from what is already selected.
    """

    rows: Rows
    gain: Doubles
    before: float


def greedy_lists(
    starts: Rows,
    refs: Rows,
    similarity: Array,
    among: Rows,
    budget: int,
    *,
    weights: Doubles,
    taken: Rows,
    exact_weights: bool = True,
) -> Picks:
    """Lazy greedy where each candidate can cover only the references of its list.

    Args:
        starts: (n + 1,) candidate j covers refs[starts[j]:starts[j+1]].
        refs: (edges,) int64 in 0..n-1.
        similarity: (edges,) float64 in 0..1; rounded to multiples of 2**-40.
        among: candidates.
        budget: 0 .. len(among).
        weights: (n,) >= 0.
        taken: rows that cover from the start.
        exact_weights: see `facility_location.scaled`.

    Cost: a scan of a list for each look at a candidate. Memory: 8 bytes an edge beside the arguments.
    """
    n = len(starts) - 1
    weight, scale, unit = scaled(weights, exact=exact_weights)
    edges = np.rint(np.asarray(similarity, np.float64) * unit).astype(np.int64)
    covered = np.zeros(n, np.int64)
    for j in taken.tolist():
        loops.gain_of_list(refs[starts[j] : starts[j + 1]], edges[starts[j] : starts[j + 1]], weight, covered, True)
    before = float((weight * covered).sum() / unit * scale)
    upper = np.full(n, np.iinfo(np.int64).max)
    rows, gains = np.empty(budget, np.int64), np.empty(budget, np.int64)
    loops.greedy_lists(starts, refs, edges, weight, covered, among.copy(), upper, budget, rows, gains)
    return Picks(rows, gains / unit * scale, before)


def neighbour_lists(vectors: Vectors, count: int, *, count_itself: bool = False) -> tuple[Rows, Rows, Doubles]:
    """Which rows each row can cover: those that have it among their `count` nearest others by cosine, and itself.

    Args:
        vectors: (n, d).
        count: >= 1.
        count_itself: search the `count` rows of highest inner product, which a row itself may be one of.

    Returns:
        starts (n + 1,), refs (edges,) ascending within a list, similarity (edges,): see `greedy_lists`.

    Cost: a search for n queries, n * count exact products. Memory: 32 bytes * n * count, vectors of NEIGHBOUR_ROWS * count rows.
    """
    n = vectors.shape[0]
    count = min(count, n if count_itself else n - 1)
    norms = np.zeros(n)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        loops.norms_of(tile, rows, norms)
    neighbours = np.empty((n, count + 1), np.int64)
    similarity = np.empty((n, count + 1))
    graph = None if count_itself else nearest_neighbours(vectors, count)
    for start in range(0, n, NEIGHBOUR_ROWS):
        rows = np.arange(start, min(start + NEIGHBOUR_ROWS, n), dtype=np.int64)
        xs = as_float32(vectors.take(rows))
        near = vectors.nearest(xs, count)[1] if graph is None else graph[rows]
        near = np.where(near == rows[:, None], -1, near)
        near = np.concatenate([near, rows[:, None]], axis=1)
        others, which = np.unique(near, return_inverse=True)
        ys = as_float32(vectors.take(np.maximum(others, 0)))
        which = np.where(near < 0, -1, which.reshape(near.shape))
        neighbours[rows] = near
        similarity[rows] = loops.exact_pairs(xs, norms[rows], ys, norms[np.maximum(others, 0)], which, 2.0**BITS)
    row, place = np.nonzero(similarity > 0)
    by = neighbours[row, place]
    order = np.argsort(by, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(by, minlength=n))]).astype(np.int64)
    return starts, row[order].astype(np.int64), similarity[row, place][order]
