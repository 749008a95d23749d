"""A first batch without labels: the most typical row of each of many clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from selection.noise import hash_bits
from selection.step import Selector, check_flag, check_integer
from selection.streams import child
from selection.types import Input, Pool, Reason, Rows, Selection, Vectors

# Keeps the typicality of rows that coincide with their neighbours finite, as in the authors' code.
LEAST_DISTANCE = 1e-5

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TypiClust(Selector):
    """From each cluster in turn take the row with the smallest mean distance to its nearest cluster mates (TypiClust).

    The rows, selected ones included, are divided into as many clusters as there are selected rows and picks to come, so
    at least one cluster for each pick holds nothing selected. Those with the fewest selected rows come first, then the
    largest; after the last the first comes again. Typicality is 1 / (mean distance + 1e-5), among the cluster's
    rows that are not selected.

    Args:
        n_neighbors: cluster mates that count, at most half of those left, at least one.
        min_size: clusters of so many rows or fewer wait until the larger ones are used up.
        max_clusters: how many there are at most.
        squared: squared Euclidean distances, as the authors' code has them; the paper has Euclidean ones.

    Clusters are those of spherical k-means, see `selection.kernels.clusters`: by cosine, on a sample hashed from the keys,
    the same for any order of rows and blocks. Zero vectors belong to none and come last. Typicality is exact, ties to the
    lowest row; it is 0 where no mate is left. `ref` of a reason is the cluster, `rank` how often it was visited
    before, gain and value the typicality. Other budgets give other clusters, so the step is not nested.

    Cost for K clusters of n rows: 2*d*K*(256*K*10 + n) operations to cluster; then for each pick 2*d times the squared size
    of its cluster, about (n/K)**2: put `random_subpool` before it where n is large and K small. Memory: vectors of 256*K
    rows, then 4*d bytes a row of the largest cluster.

    Source: Hacohen et al. 2022, `typiclust.py` (k-means++ by faiss or scikit-learn there, without a seed).
    """

    n_neighbors: int = 20
    min_size: int = 5
    max_clusters: int = 500
    squared: bool = False
    name: ClassVar[str] = "typiclust"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_integer(self.name, "min_size", self.min_size, least=0)
        check_integer(self.name, "max_clusters", self.max_clusters, least=1)
        check_flag(self.name, "squared", self.squared)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.clusters import hashed_order, spherical_clusters

        vectors = pool.get_vectors()
        order = hashed_order(vectors, hash_bits(pool.get_keys(), child(rng, 0)))
        count = min(len(pool.get_already_selected()) + budget, self.max_clusters, len(order))
        cluster = np.full(len(pool), -1, np.int64)
        if count:
            cluster = spherical_clusters(vectors, order, count)[0].place
        return self.draw(pool, budget, cluster)

    def draw(self, pool: Pool, budget: int, cluster: Rows) -> Selection:
        """Choose among rows whose clusters are known.

        Args:
            cluster: (n,) of each row, -1 = none.
        """
        count = int(cluster.max(initial=-1)) + 1
        cluster = np.where(cluster < 0, count, cluster)
        candidates = np.flatnonzero(pool.candidates).astype(np.int64)
        candidates = candidates[np.argsort(cluster[candidates], kind="stable")]
        left = np.split(candidates, np.cumsum(np.bincount(cluster[candidates], minlength=count + 1))[:-1])
        rows: list[int] = []
        value: list[float] = []
        ref: list[int] = []
        rank: list[int] = []
        for c, visit in self._visits(pool, cluster, [len(rows_left) for rows_left in left]):
            if len(rows) == budget:
                break
            place, typicality = self._most_typical(pool.get_vectors(), left[c])
            rows.append(left[c][place])
            left[c] = np.delete(left[c], place)
            value.append(typicality)
            ref.append(c)
            rank.append(visit)
        names = (*(str(c) for c in range(count)), "none")
        reason = Reason.of(
            "cluster", len(rows), ref=np.array(ref), rank=np.array(rank), value=np.array(value), names=names
        )
        return Selection(np.array(rows, np.int64), np.array(value, np.float32), reason)

    def _visits(self, pool: Pool, cluster: Rows, left: list[int]) -> Iterator[tuple[int, int]]:
        """Yield `(cluster, how often it was visited)`, once for each of its rows that are left; the last cluster is none."""
        size = np.bincount(cluster, minlength=len(left))
        selected = np.bincount(cluster[pool.get_already_selected()], minlength=len(left))
        waits = (size <= self.min_size).astype(np.int64)
        waits[-1] = 2
        order = np.lexsort((np.arange(len(left)), -size, selected, waits))
        for stage in range(3):
            turns = [c for c in order.tolist() if waits[c] == stage]
            for visit in range(max((left[c] for c in turns), default=0)):
                for c in turns:
                    if visit < left[c]:
                        yield c, visit

    def _most_typical(self, vectors: Vectors, rows: Rows) -> tuple[int, float]:
        """The place of the most typical of some rows, and its typicality."""
        from selection.kernels.typicality import most_typical

        if len(rows) == 1:
            return 0, 0.0
        k = min(self.n_neighbors, max(len(rows) // 2, 1))
        place, mean = most_typical(vectors.take(rows), k, squared=self.squared)
        return place, 1.0 / (mean + LEAST_DISTANCE)
