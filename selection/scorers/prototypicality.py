"""How far rows are from what is typical: from the nearest centroid of a clustering of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.noise import hash_bits
from selection.pool import Pool
from selection.step import Scorer, check_choice, check_clusters
from selection.streams import child
from selection.types import Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Prototypicality(Scorer):
    """The distance 1 - cosine to the nearest centroid of a spherical k-means over the candidates and already selected rows.

    Args:
        n_clusters: the number of clusters: "sqrt" of the number of rows, or a number.
        prefer: "far" takes the rows farthest from their centroid first, as D4 keeps them; "near" the most prototypical
            ones: the score is then minus the distance.

    A zero vector has cosine 0 to every centroid. The cosine is exact, given the clusters, which are the same for any
    order of rows and blocks.

    Not for: noisy pools with `prefer: far`: noise is far from every centroid.

    Cost: the clustering, as in `semdedup`. Memory: vectors of 256 * n_clusters rows, 40 bytes a row.

    Source: Tirumala et al. 2023 (D4), Sorscher et al. 2022 (SSL prototypes).
    """

    n_clusters: int | str = "sqrt"
    prefer: str = "far"
    name: ClassVar[str] = "prototypicality"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def __post_init__(self) -> None:
        check_clusters(self.name, self.n_clusters)
        check_choice(self.name, "prefer", self.prefer, ("far", "near"))

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`."""
        from selection.kernels.clusters import cluster_count, hashed_order, spherical_clusters

        counts = pool.candidates
        counts[pool.get_already_selected()] = True
        order = hashed_order(pool.get_vectors(), hash_bits(pool.get_keys(), child(rng, 0)), counts)
        cosine = np.zeros(len(pool))
        if len(order):
            count = cluster_count(self.n_clusters, len(order))
            cosine = spherical_clusters(pool.get_vectors(), order, count, rng=child(rng, 1))[0].value
        return np.asarray(1.0 - cosine if self.prefer == "far" else cosine - 1.0, np.float32)
