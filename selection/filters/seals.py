"""Keep what lies near any labelled row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.neighbor_search import nearest_of, row_scores
from selection.selectors.random import drawn_rows
from selection.selectors.top import highest
from selection.step import Filter, check_integer
from selection.types import Input, Pool, RetrievedRows, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Seals(Filter):
    """Keep the unlabelled candidates that are among the nearest of any labelled row (SEALS).

    Args:
        n_neighbors: unlabelled candidates searched for each labelled row.
        rows: keep at most so many, those most similar to a labelled row; ties to the lowest row. None keeps all that are
            found. A pool that has no more candidates stays as it is.

    Without any label all candidates stay, or `rows` of them at random. The search begins anew each round, among what
    is unlabelled then, so that nothing is remembered between rounds; the subpool holds that of the source, which searches
    from new labels only.

    Searches the vector index where there is one; exact otherwise.

    Cost: a search for each labelled row, so it grows with the labels. Memory: 40 bytes * labelled rows * n_neighbors.

    Source: Coleman et al. 2022 (SEALS).
    """

    n_neighbors: int = 50
    rows: int | None = None
    name: ClassVar[str] = "seals"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.LABELS})
    searches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        if self.rows is not None:
            check_integer(self.name, "rows", self.rows, least=1)

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, RetrievedRows | None]:  # noqa: ARG002
        """See `Filter.apply`; tells of each row its most similar labelled row, where there was a search."""
        candidates, labels = pool.candidates, pool.get_labels()
        most = int(candidates.sum()) if self.rows is None else self.rows
        labelled = np.flatnonzero(labels >= 0).astype(np.int64)
        if not len(labelled):
            return drawn_rows(pool, most, rng)[0], None
        if self.rows is not None and candidates.sum() <= self.rows:
            return np.flatnonzero(candidates).astype(np.int64), None
        hits = nearest_of(pool, labelled, self.n_neighbors, candidates & (labels < 0))
        rows, score, best = row_scores(hits, "max", pool)
        return rows[highest(score, most)], hits.as_found(self.name, best)
