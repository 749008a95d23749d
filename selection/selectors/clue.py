"""An uncertain and diverse batch: the rows nearest to the centroids of a k-means weighted by uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.blocks import chunks
from selection.pool import Pool
from selection.selectors.kmeans_pp import KMeansPP
from selection.step import Selector
from selection.types import Doubles, Floats, Input, Mask, Reason, Rows, Selection, Vectors

ITERATIONS = 20  # of Lloyd's algorithm at most; it ends earlier when no centroid moves
# The largest error of a float64 squared distance computed by inner products, relative to the squared norms; for up to a
# million dimensions.
MARGIN = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue(Selector):
    """The rows nearest to the centroids of a k-means with rows weighted by entropy, a cluster for each pick (CLUE).

    Only candidates count. k-means++ with the same weights gives the start; up to 20 iterations of Lloyd's algorithm
    follow. If every row has entropy 0, all have the same weight. A centroid whose rows all have weight 0 does not move.
    Centroids choose in the order in which k-means++ drew them: each takes the nearest row that is not taken yet, from
    any cluster, ties to the lowest row. Other budgets give other clusters, so the step is not nested.

    Distances are exact and sums follow the keys, so the order of rows, blocks or threads does not change the batch. The
    reason's `ref` is the cluster, its `value` the distance to the centroid; the gain is the row's entropy.

    Not for: rare classes: centroids go where uncertain rows are many.

    Cost for n rows, d dimensions and b picks: up to 20 passes of 4*n*b*d operations, one of 2*n*b*d in float64, and one
    of 2*n*d for each centroid whose nearest row was taken. For large pools put a filter in front. Memory: about 100
    bytes a row and one block.
    Source: Prabhu et al. 2021, `CLUESampling`, at temperature 1.
    """

    name: ClassVar[str] = "clue"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES})

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.probabilities import entropy
        from selection.kernels.probabilities import by_row

        vectors, candidates = pool.get_vectors(), pool.candidates
        uncertainty = by_row(pool.get_probabilities(), Input.PROBABILITIES, entropy)
        weights = np.maximum(uncertainty, 0)
        largest = weights[candidates].max()
        weights = weights / largest if largest > 0 else np.ones_like(weights)
        weighted = Pool(vectors=vectors, columns={"weight": weights}, keys=pool.keys, eligible=candidates)
        start = KMeansPP(weights="weight").select(weighted, budget, rng=rng).rows
        centroids = np.asarray(vectors.take(start), np.float32)
        centroids = weighted_centroids(vectors, pool.candidates_by_key(), weights, centroids)
        rows, distance = distinct_nearest(vectors, centroids, candidates)
        names = tuple(str(c) for c in range(budget))
        reason = Reason.of("cluster", budget, ref=np.arange(budget), value=distance, names=names)
        return Selection(rows, uncertainty[rows], reason)


def weighted_centroids(vectors: Vectors, order: Rows, weights: Floats, start: Floats) -> Floats:
    """(b, d) float32: the centroids when Lloyd's algorithm ends, or after ITERATIONS.

    Args:
        vectors: (n, d).
        order: the rows that count, in the order in which they are summed.
        weights: (n,) float32 in 0 .. 1.
        start: (b, d) float32, the first centroids.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    from selection.kernels.assign import nearest_centres
    from selection.kernels.compiled.duplicates import add_rows
    from selection.kernels.top_k import TILE_ROWS

    centroids = start
    for _ in range(ITERATIONS):
        place = nearest_centres(vectors, centroids)[0].place
        total = np.zeros(centroids.shape)
        for rows in chunks(order, TILE_ROWS):
            add_rows(np.asarray(vectors.take(rows), np.float32) * weights[rows, None], place[rows], total)
        mass = np.bincount(place[order], weights[order], minlength=len(centroids))
        before, moved = centroids, mass > 0
        centroids = before.copy()
        centroids[moved] = total[moved] / mass[moved, None]
        if (centroids == before).all():
            break
    return centroids


def distinct_nearest(vectors: Vectors, centroids: Floats, candidates: Mask) -> tuple[Rows, Doubles]:
    """(b,) the nearest candidate of each centroid in turn that no earlier centroid took, and (b,) its distance."""
    rows, distance = _nearest(vectors, centroids, candidates)
    left = candidates.copy()
    for c, row in enumerate(rows.tolist()):
        if not left[row]:
            rows[c : c + 1], distance[c : c + 1] = _nearest(vectors, centroids[c : c + 1], left)
        left[rows[c]] = False
    return rows, distance


def _nearest(vectors: Vectors, centroids: Floats, allowed: Mask) -> tuple[Rows, Doubles]:
    """The nearest allowed row of each centroid and its exact distance; ties to the lowest row."""
    from selection.kernels.top_k import TILE_ROWS, TILE_VALUES, tiles

    centres = centroids.astype(np.float64)
    norm = (centres**2).sum(axis=1)
    best = np.full(len(centres), np.inf)
    nearest = np.full(len(centres), -1, np.int64)
    for numbers, tile, _ in tiles(vectors, max(64, min(TILE_ROWS, TILE_VALUES // len(centres)))):
        keep = allowed[numbers]
        rows, x = numbers[keep], tile[keep].astype(np.float64)
        if not len(rows):
            continue
        size = (x**2).sum(axis=1)[:, None] + norm
        coarse = size - 2.0 * (x @ centres.T)
        # Inner products only rule rows out; exact distances decide among the others.
        bound = np.minimum(best, (coarse + MARGIN * size).min(axis=0))
        possible = coarse - MARGIN * size <= bound
        for c in np.flatnonzero(possible.any(axis=0)).tolist():
            places = np.flatnonzero(possible[:, c])
            square = ((x[places] - centres[c]) ** 2).sum(axis=1)
            i = np.lexsort((rows[places], square))[0]
            best[c], nearest[c] = min((best[c], nearest[c]), (square[i], rows[places[i]]))
    return nearest, np.sqrt(best)
