"""Drop rows whose vector is almost that of another row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.filters.duplicates import DuplicateFilter
from selection.noise import hash_bits
from selection.pool import Pool
from selection.scorers.column import numbers
from selection.step import check_choice, check_clusters, check_name, check_number, check_version
from selection.streams import child
from selection.types import Array, Duplicates, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class SemDedup(DuplicateFilter):
    """Cluster the rows; inside each cluster, drop rows that have a cosine above 1 - eps to another row.

    Args:
        eps: the largest distance (1 - cosine) at which two rows count as duplicates. A larger eps drops more.
        n_clusters: the number of clusters of spherical k-means: "sqrt" of the number of rows, or a number. Duplicates
            in different clusters are missed; 1 compares all pairs.
        prefer: which of two duplicates stays: the "hard" one (far from its centroid), the "easy" one (near its
            centroid), a "random" one, or the one with the higher value in a "column".
        column: the column for `prefer: column`.
        rule: "greedy" drops a row if it duplicates a kept row. So every dropped row is within eps of a kept row, and no
            two kept rows of a cluster are duplicates. "reference" (SemDeDup, NeMo Curator) also drops a row that
            duplicates a dropped row, so chains collapse. "component" keeps one row of each chain of duplicates.
        version: 1 clusters from random starts, as winnow 0.2 did.

    Already selected rows stay and count as kept. Zero vectors have cosine 0 to every row and stay. Ties go to the
    lowest row. The deciding cosine is exact; the clusters are the same for any order of rows and blocks.

    Not for: vectors by which unrelated texts have cosines above 1 - eps: look at some of the dropped pairs first.

    Cost for C clusters of n rows: about 2*d*C*(256*C*15 + n) operations to cluster, and d times the sum of the squared
    cluster sizes to compare. Memory: vectors of 256*C rows, 8*d bytes for each row of the largest cluster, and at most
    340 MB to compare.

    Source: Abbas et al. 2023 (SemDeDup), `semdedup.py`: eps and order as in the code (its README has eps the wrong way
    round).
    """

    eps: float = 0.01
    n_clusters: int | str = "sqrt"
    prefer: str = "hard"
    column: str | None = None
    rule: str = "greedy"
    version: int = 2
    name: ClassVar[str] = "semdedup"

    def __post_init__(self) -> None:
        check_number(self.name, "eps", self.eps, above=0, most=2)
        check_clusters(self.name, self.n_clusters)
        check_choice(self.name, "prefer", self.prefer, ("hard", "easy", "random", "column"))
        if (self.column is None) == (self.prefer == "column"):
            raise self.invalid(
                f"column goes with prefer: column, got {self.prefer!r} with column {self.column!r}",
                "prefer" if self.column is None else "column",
            )
        check_name(self.name, "column", self.column, optional=True)
        check_choice(self.name, "rule", self.rule, ("greedy", "reference", "component"))
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 if there is one cluster only."""
        return 1 if self.n_clusters == 1 else self.version

    @property
    def needs(self) -> frozenset[Input]:
        """Vectors; with `column` also columns."""
        return frozenset({Input.VECTORS} | ({Input.COLUMNS} if self.column else set()))

    @property
    def columns(self) -> frozenset[str]:
        """The column that decides which duplicate stays."""
        return frozenset({self.column} if self.column else set())

    def duplicates(self, pool: Pool, *, rng: np.random.Generator) -> Duplicates:
        """The candidates to drop, the row that each of them duplicates, and their cosine."""
        from selection.kernels.clusters import cluster_count, hashed_order, spherical_clusters
        from selection.kernels.duplicates import duplicates_by_group

        vectors = pool.get_vectors()
        selected = np.zeros(len(pool), bool)
        selected[pool.get_already_selected()] = True
        noise = hash_bits(pool.get_keys(), child(rng, 0))
        order = hashed_order(vectors, noise, pool.candidates | selected)
        if not len(order):
            return Duplicates.joined([])
        count = cluster_count(self.n_clusters, len(order))
        clusters, _ = spherical_clusters(vectors, order, count, rng=child(rng, 1) if self.version > 1 else None)
        rows = np.sort(order)
        priority = self._priority(pool, clusters.value, noise)[rows]
        rows = rows[np.lexsort((rows, priority, ~selected[rows], clusters.place[rows]))]
        groups = np.split(rows, np.flatnonzero(np.diff(clusters.place[rows])) + 1)
        fixed = [int(selected[members].sum()) for members in groups]
        parts = duplicates_by_group(vectors, groups, fixed, threshold=1.0 - self.eps, rule=self.rule)
        return Duplicates.joined(list(parts))

    def _priority(self, pool: Pool, to_centroid: Array, noise: Array) -> Array:
        """(n,) of two duplicates, the row with the lower number stays."""
        if self.prefer == "column":
            return -numbers(str(self.column), pool.get_column(str(self.column)))
        if self.prefer == "random":
            return noise
        return to_centroid if self.prefer == "hard" else -to_centroid
