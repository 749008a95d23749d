"""A first batch without labels: the most typical row of each of many clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np

from selection.noise import hash_bits
from selection.pool import Pool
from selection.step import Selector, check_flag, check_integer, check_version
from selection.streams import child
from selection.types import Input, Reason, Rows, Selection, Vectors

# Keeps the typicality of rows that coincide with their neighbours finite, as in the authors' code.
LEAST_DISTANCE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class TypiClust(Selector):
    """Take, from each cluster in turn, the row with the smallest mean distance to its nearest rows there (TypiClust).

    All rows, already selected ones included, are divided into as many clusters as there are selected rows and picks to
    come, so at least one cluster for each pick has no selected row. Clusters with the fewest selected rows come first,
    then the largest; after the last cluster the first comes again. Typicality is 1 / (mean distance + 1e-5), among the
    rows of the cluster that are not selected.

    Args:
        n_neighbors: how many nearest rows of the cluster count: at most half of those left, at least one.
        min_size: clusters of this many rows or fewer wait until the larger clusters are used up.
        max_clusters: the most clusters.
        squared: use squared Euclidean distances, as in the authors' code; the paper has Euclidean distances.
        version: 1 clusters from random starts, as winnow 0.2 did.

    The clusters are those of spherical k-means, see `selection.kernels.clusters`: by cosine, on a sample hashed from
    the keys, the same for any order of rows and blocks. Zero vectors are in no cluster and come last. Typicality is
    exact, ties to the lowest row; it is 0 if the row is the last of its cluster. `ref` of a reason is the cluster,
    `rank` how often the cluster had its turn before, gain and value the typicality. Other budgets give other clusters,
    so the step is not nested.

    Not for: budgets of thousands: clusters are at most `max_clusters`, and most picks then share one with others.

    Cost for K clusters of n rows: about 2*d*K*(256*K*15 + n) operations to cluster; then for each pick 2*d times the
    squared size of its cluster, about (n/K)**2. Put `random_subpool` in front if n is large and K small. Memory:
    vectors of 256*K rows, then 4*d bytes for each row of the largest cluster.

    Source: Hacohen et al. 2022, `typiclust.py`, which runs k-means++ by faiss or scikit-learn without a seed.
    """

    n_neighbors: int = 20
    min_size: int = 5
    max_clusters: int = 500
    squared: bool = False
    version: int = 2
    name: ClassVar[str] = "typiclust"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_integer(self.name, "min_size", self.min_size, least=0)
        check_integer(self.name, "max_clusters", self.max_clusters, least=1)
        check_flag(self.name, "squared", self.squared)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """The clusters decide the picks."""
        return self.version

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.clusters import hashed_order, spherical_clusters

        vectors = pool.get_vectors()
        order = hashed_order(vectors, hash_bits(pool.get_keys(), child(rng, 0)))
        count = min(len(pool.get_already_selected()) + budget, self.max_clusters, len(order))
        cluster = np.full(len(pool), -1, np.int64)
        if count:
            cluster = spherical_clusters(vectors, order, count, rng=child(rng, 1) if self.version > 1 else None)[
                0
            ].place
        return self.draw(pool, budget, cluster)

    def draw(self, pool: Pool, budget: int, cluster: Rows) -> Selection:
        """Choose among rows with known clusters.

        Args:
            cluster: (n,) int64, the cluster of each row, -1 = none.
        """
        count = int(cluster.max(initial=-1)) + 1
        cluster = np.where(cluster < 0, count, cluster)
        candidates = pool.candidate_rows
        candidates = candidates[np.argsort(cluster[candidates], kind="stable")]
        left = np.split(candidates, np.cumsum(np.bincount(cluster[candidates], minlength=count + 1))[:-1])
        picks: list[tuple[int, float, int, int]] = []
        for c, visit in islice(self._visits(pool, cluster, [len(rows_left) for rows_left in left]), budget):
            place, typicality = self._most_typical(pool.get_vectors(), left[c])
            picks.append((left[c][place], typicality, c, visit))
            left[c] = np.delete(left[c], place)
        rows, value, ref, rank = (np.array(column) for column in zip(*picks, strict=True))
        names = (*(str(c) for c in range(count)), "none")
        reason = Reason.of("cluster", len(rows), ref=ref, rank=rank, value=value, names=names)
        return Selection(rows, value.astype(np.float32), reason)

    def _visits(self, pool: Pool, cluster: Rows, left: list[int]) -> Iterator[tuple[int, int]]:
        """Yield `(cluster, earlier visits)` for each row left in a cluster; the last cluster is that of rows in none."""
        size = np.bincount(cluster, minlength=len(left))
        selected = np.bincount(cluster[pool.get_already_selected()], minlength=len(left))
        # Larger clusters, then small ones, then rows without a cluster.
        stage = (size <= self.min_size).astype(np.int64)
        stage[-1] = 2
        order = np.lexsort((np.arange(len(left)), -size, selected, stage))
        for current in range(3):
            turns = [c for c in order.tolist() if stage[c] == current]
            for visit in range(max((left[c] for c in turns), default=0)):
                for c in turns:
                    if visit < left[c]:
                        yield c, visit

    def _most_typical(self, vectors: Vectors, rows: Rows) -> tuple[int, float]:
        """The position of the most typical of `rows`, and its typicality."""
        from selection.kernels.typicality import most_typical

        if len(rows) == 1:
            return 0, 0.0
        k = min(self.n_neighbors, max(len(rows) // 2, 1))
        place, mean = most_typical(vectors.take(rows), k, squared=self.squared)
        return place, 1.0 / (mean + LEAST_DISTANCE)
