"""A batch that is uncertain and diverse: the rows nearest to the centroids of k-means weighted by uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from selection.selectors.kmeans_pp import KMeansPP
from selection.selectors.lightweight import by_key
from selection.step import Selector
from selection.types import Floats, Input, Pool, Reason, Rows, Selection, Vectors

Doubles = npt.NDArray[np.float64]

# Lloyd's steps at most; it ends when no centroid moves.
ITERATIONS = 20
# How far a float64 distance by inner products may be off, relative to the squared norms; for up to a million dimensions.
MARGIN = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Clue(Selector):
    """k-means with as many clusters as picks, each row weighted by its entropy; of each centroid the nearest row (CLUE).

    Only candidates count. The start is k-means++ by the same weights, then up to 20 steps of Lloyd. Where every row is certain,
    all weigh the same; a centroid of which no row weighs anything stays. Centroids take their rows in the order in which k-means++
    found them: each the nearest that is not taken yet, of whatever cluster, ties to the lowest row. Other budgets give other
    clusters, so the step is not nested.

    Distances are exact and sums go by the keys, so no order of rows, blocks or threads changes the batch. The reason's `ref`
    is the cluster, its `value` the distance to the centroid; the gain is the row's entropy.

    Cost for n rows, d dimensions and b picks: up to 20 passes of 4*n*b*d operations, one of 2*n*b*d in float64, and one of 2*n*d
    for each centroid whose nearest row was taken: for large pools put a filter in front. Memory: about 100 bytes a row and
    one block.
    Source: Prabhu et al. 2021, `CLUESampling`, at temperature 1.
    """

    name: ClassVar[str] = "clue"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES})

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.probabilities import entropy
        from selection.kernels.probabilities import by_row

        vectors, candidates = pool.get_vectors(), pool.candidates
        doubt = by_row(pool.get_probabilities(), Input.PROBABILITIES, entropy)
        weights = np.maximum(doubt, 0)
        largest = weights[candidates].max()
        weights = weights / largest if largest > 0 else np.ones_like(weights)
        weighted = Pool(vectors=vectors, columns={"weight": weights}, keys=pool.keys, eligible=candidates)
        start = KMeansPP(weights="weight").select(weighted, budget, rng=rng).rows
        centroids = np.asarray(vectors.take(start), np.float32)
        centroids = weighted_centroids(vectors, by_key(pool), weights, centroids)
        rows, distance = distinct_nearest(vectors, centroids, candidates)
        names = tuple(str(c) for c in range(budget))
        reason = Reason.of("cluster", budget, ref=np.arange(budget), value=distance, names=names)
        return Selection(rows, doubt[rows], reason)


def weighted_centroids(vectors: Vectors, order: Rows, weights: Floats, start: Floats) -> Floats:
    """(b, d) float32: where Lloyd's algorithm ends, or stands after ITERATIONS.

    Args:
        vectors: (n, d).
        order: the rows that count, in the order of the sums.
        weights: (n,) float32 in 0 .. 1.
        start: (b, d) float32 centroids to begin with.

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
        for at in range(0, len(order), TILE_ROWS):
            rows = order[at : at + TILE_ROWS]
            add_rows(np.asarray(vectors.take(rows), np.float32) * weights[rows, None], place[rows], total)
        mass = np.bincount(place[order], weights[order], minlength=len(centroids))
        before, moved = centroids, mass > 0
        centroids = before.copy()
        centroids[moved] = total[moved] / mass[moved, None]
        if (centroids == before).all():
            break
    return centroids


def distinct_nearest(vectors: Vectors, centroids: Floats, candidates: npt.NDArray[np.bool_]) -> tuple[Rows, Doubles]:
    """For each centroid in turn the nearest candidate that no earlier one took, and its distance; as many as centroids."""
    rows, distance = _nearest(vectors, centroids, candidates)
    left = candidates.copy()
    for c, row in enumerate(rows.tolist()):
        if not left[row]:
            rows[c : c + 1], distance[c : c + 1] = _nearest(vectors, centroids[c : c + 1], left)
        left[rows[c]] = False
    return rows, distance


def _nearest(vectors: Vectors, centroids: Floats, wanted: npt.NDArray[np.bool_]) -> tuple[Rows, Doubles]:
    """The nearest wanted row of each centroid and its exact distance; ties to the lowest row."""
    from selection.kernels.top_k import TILE_ROWS, TILE_VALUES, tiles

    centres = centroids.astype(np.float64)
    norm = (centres**2).sum(axis=1)
    best = np.full(len(centres), np.inf)
    found = np.full(len(centres), -1, np.int64)
    for numbers, tile, _ in tiles(vectors, max(64, min(TILE_ROWS, TILE_VALUES // len(centres)))):
        keep = wanted[numbers]
        rows, x = numbers[keep], tile[keep].astype(np.float64)
        if not len(rows):
            continue
        size = (x**2).sum(axis=1)[:, None] + norm
        coarse = size - 2.0 * (x @ centres.T)
        # Inner products only rule rows out; what they leave open is worked out.
        bound = np.minimum(best, (coarse + MARGIN * size).min(axis=0))
        open_ = coarse - MARGIN * size <= bound
        for c in np.flatnonzero(open_.any(axis=0)).tolist():
            some = np.flatnonzero(open_[:, c])
            square = ((x[some] - centres[c]) ** 2).sum(axis=1)
            at = np.lexsort((rows[some], square))[0]
            best[c], found[c] = min((best[c], found[c]), (square[at], rows[some[at]]))
    return found, np.sqrt(best)
