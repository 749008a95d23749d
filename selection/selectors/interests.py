"""Divide the budget over clusters as the targets are divided, and take the rows of each that are like its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import apportion, as_written
from selection.blocks import chunks
from selection.errors import InvalidInput
from selection.kernels.ranking import highest
from selection.noise import hash_bits
from selection.pool import Pool
from selection.run_selector import interleaved
from selection.scorers.rds import target_vectors
from selection.step import Selector, check_clusters, check_integer, check_number
from selection.streams import child
from selection.types import Array, Doubles, Floats, Input, Points, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests(Selector):
    """See the targets as a mixture over clusters of the pool, and give each cluster its part of the budget.

    Target j gives cluster c the mass

        w(j, c) = (1 - smoothing) [c is the cluster of j] + smoothing * (share of the nearest rows of j that are in c)

    where the cluster of a target is that of the centroid of highest cosine. A cluster's part of the budget is in
    proportion to its mass over all targets, by largest remainder; what a cluster cannot give is divided among the
    others with mass in the same proportion. Inside a cluster the candidates are taken by descending cosine to its
    centre of interest, the sum over j of w(j, c) * target j / |target j|; ties to the lowest row.

    Args:
        n_clusters: the number of clusters of spherical k-means over the candidates and already selected rows: "sqrt" of
            their number, or a number.
        smoothing: in 0..1. 0 gives nothing to clusters without a target.
        n_neighbors: how many nearest rows of a target the smoothing looks at.

    Already selected rows count towards the part of their cluster. Rows in clusters without mass, and zero vectors, are
    never given: if the others are fewer than the budget, that is an error, or with `allow_short` a selection that is
    `exhausted`. The picks of the clusters are interleaved. `ref` is the cluster, `rank` the place in it, gain and value
    the cosine. Parts depend on the budget, so the step is not nested.

    Exact, given the clusters, which are the same for any order of rows and blocks. Cost: the clustering, as in
    `semdedup`; 2*n*m*d operations for the nearest rows of m targets; one pass over the clusters with mass. Memory:
    vectors of 256 * n_clusters rows, 50 bytes * m * n_neighbors, m * n_clusters and m * d numbers, 40 bytes a row.

    Not for: targets of one kind: `rds_plus` gives the most similar rows without clusters.

    Source: El-Kishky et al. 2023 (kNN-Embed), where a user is smoothed by the mixtures of the nearest users.
    """

    n_clusters: int | str = "sqrt"
    smoothing: float = 0.2
    n_neighbors: int = 10
    name: ClassVar[str] = "interests"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.TARGETS})

    def __post_init__(self) -> None:
        check_clusters(self.name, self.n_clusters)
        check_number(self.name, "smoothing", self.smoothing, least=0, most=1)
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`.

        Raises:
            InvalidInput: there are no targets, or one is a zero vector.
        """
        from selection.kernels.clusters import cluster_count, hashed_order, spherical_clusters
        from selection.kernels.normalize import unit_rows, unit_vectors

        vectors = pool.get_vectors()
        targets = unit_rows(target_vectors(pool.get_targets()))
        zero = np.flatnonzero(~targets.any(axis=1))
        if len(zero):
            raise InvalidInput(f"interests: target {pool.get_targets().printable()[zero[0]]} is a zero vector")
        counts = pool.candidates
        counts[pool.get_already_selected()] = True
        order = hashed_order(vectors, hash_bits(pool.get_keys(), child(rng, 0)), counts)
        if not len(order):
            return interleaved([])
        count = cluster_count(self.n_clusters, len(order))
        clusters, centroids = spherical_clusters(vectors, order, count, rng=child(rng, 1))
        cluster = np.full(len(pool), -1, np.int64)
        cluster[order] = clusters.place[order]
        unit = unit_vectors(vectors)
        weights = self._weights(unit, targets, cluster, centroids)
        parts = divided(weights.sum(axis=0), budget, pool, cluster)
        picks = []
        for c in np.flatnonzero(parts).tolist():
            centre = (weights[:, c, None] * targets.astype(np.float64)).sum(axis=0)  # target after target: no BLAS
            picks.append(_taken(pool, unit, cluster, c, int(parts[c]), centre, len(parts)))
        return interleaved(picks)

    def _weights(self, unit: Points, targets: Floats, cluster: Rows, centroids: Floats) -> Array:
        """(m, clusters) w(j, c) in whole numbers: multiplied by the neighbours and the denominator of the smoothing."""
        from selection.blocks import ArrayBlocks
        from selection.kernels.assign import most_similar_centre
        from selection.kernels.top_k import top_k

        m, share = len(targets), as_written(self.smoothing)
        depth = min(self.n_neighbors, int((cluster >= 0).sum()))
        weights = np.zeros((m, len(centroids)), np.int64)
        own = most_similar_centre(ArrayBlocks(targets), centroids).place
        weights[np.arange(m), own] = (share.denominator - share.numerator) * depth
        if share:
            near = top_k(unit, targets, depth=depth, skip=cluster < 0).row
            np.add.at(weights, (np.repeat(np.arange(m), depth), cluster[near.ravel()]), share.numerator)
        return weights


def divided(mass: Array, budget: int, pool: Pool, cluster: Rows) -> Rows:
    """(clusters,) how many candidates each cluster gives; fewer than the budget if those with mass have no more.

    Args:
        mass: (clusters,) whole numbers >= 0.
        cluster: (n,) of each row, -1 = none.
    """

    def by_cluster(rows: Array) -> Rows:
        return np.bincount(cluster[rows][cluster[rows] >= 0], minlength=len(mass))

    have, left = by_cluster(pool.get_already_selected()), np.where(mass > 0, by_cluster(pool.candidate_rows), 0)
    total = int(have.sum()) + min(budget, int(left.sum()))
    parts = apportion(mass.tolist(), total, have.tolist(), (have + left).tolist())
    return np.array(parts, np.int64) - have


def _taken(pool: Pool, unit: Points, cluster: Rows, c: int, count: int, centre: Doubles, clusters: int) -> Selection:
    """The `count` candidates of cluster c of highest cosine to its centre of interest."""
    from selection.kernels.compiled import top_k as loops
    from selection.kernels.top_k import TILE_ROWS

    rows = np.flatnonzero(pool.candidates & (cluster == c)).astype(np.int64)
    length = float(np.sqrt((centre**2).sum()))
    similarity = np.empty(len(rows))
    for part in chunks(np.arange(len(rows)), TILE_ROWS):
        loops.dot_all(np.ascontiguousarray(unit.take(rows[part])), centre / (length or 1.0), part, similarity)
    places = highest(similarity, count)
    value = np.clip(similarity[places], -1.0, 1.0)
    names = tuple(str(number) for number in range(clusters))
    reason = Reason.of("cluster", count, ref=np.full(count, c), rank=np.arange(count), value=value, names=names)
    return Selection(rows[places], value.astype(np.float32), reason)
