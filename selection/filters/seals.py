"""Keep the rows that are near any labelled row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.anchor_search import nearest_of, row_scores, search_vectors
from selection.kernels.ranking import highest
from selection.pool import Pool
from selection.selectors.random import drawn_rows
from selection.step import Filter, check_integer, check_version
from selection.types import Input, RetrievedRows, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Seals(Filter):
    """Keep the unlabelled candidates that are among the nearest of any labelled row (SEALS).

    Args:
        n_neighbors: how many unlabelled candidates each labelled row retrieves.
        rows: the most candidates to keep, those most similar to a labelled row; ties to the lowest row. None keeps
            every retrieved row. A pool with no more candidates than that stays as it is.
        version: 1 searches stored vectors as they are, rounded, without dividing by their lengths, as winnow 0.2 did.

    If no row is labelled, all candidates stay, or `rows` of them at random. Each round searches from all labelled rows
    among the rows that are unlabelled then, so no state is kept between rounds. The published method searches from new
    labels only; its subpool is part of this one.

    Searches the vector index if there is one; exact otherwise.

    Not for: rows of a kind that nobody has labelled yet; or many labels, which retrieve most of the pool.

    Cost: one search for each labelled row. Memory: 40 bytes * labelled rows * n_neighbors.

    Source: Coleman et al. 2022 (SEALS).
    """

    n_neighbors: int = 50
    rows: int | None = None
    version: int = 2
    name: ClassVar[str] = "seals"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.LABELS})
    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_integer(self.name, "rows", self.rows, least=1, optional=True)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Every similarity is another."""
        return self.version

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, RetrievedRows | None]:  # noqa: ARG002
        """See `Filter.apply`; reports the most similar labelled row of each row, if there was a search."""
        candidates, labels = pool.candidates, pool.get_labels()
        limit = int(candidates.sum()) if self.rows is None else self.rows
        labelled = np.flatnonzero(labels >= 0).astype(np.int64)
        if not len(labelled):
            return drawn_rows(pool, limit, rng)[0], None
        if self.rows is not None and candidates.sum() <= self.rows:
            return np.flatnonzero(candidates).astype(np.int64), None
        vectors = search_vectors(pool, self.version)
        neighbors = nearest_of(vectors, labelled, self.n_neighbors, candidates & (labels < 0))
        rows, score, best = row_scores(neighbors, "max", vectors)
        return rows[highest(score, limit)], neighbors.as_retrieved(self.name, best)
