"""The base of filters that drop duplicates."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from selection.pool import Pool
from selection.step import Filter
from selection.types import DroppedRows, Duplicates, Rows


class DuplicateFilter(Filter):
    """Drops candidates that duplicate another row, and reports which row that is."""

    __slots__ = ()

    @abstractmethod
    def duplicates(self, pool: Pool, *, rng: np.random.Generator) -> Duplicates:
        """The candidates to drop, the row that each of them duplicates, and how similar the two are."""

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        duplicates = self.duplicates(pool, rng=rng)
        keep = pool.candidates
        keep[duplicates.row] = False
        return np.flatnonzero(keep).astype(np.int64), duplicates.as_dropped(self.name)
