"""What filters that drop duplicates have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from selection.step import Filter
from selection.types import DroppedRows, Pool, Rows

if TYPE_CHECKING:
    from selection.kernels.duplicates import Duplicates


class DuplicateFilter(Filter):
    """Drops candidates that another row stands for, and tells which."""

    __slots__ = ()

    @abstractmethod
    def duplicates(self, pool: Pool, *, rng: np.random.Generator) -> Duplicates:
        """The candidates to drop, the row that each is a duplicate of, and how similar the two are."""

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        found = self.duplicates(pool, rng=rng)
        stays = pool.candidates
        stays[found.row] = False
        return np.flatnonzero(stays).astype(np.int64), found.as_dropped(self.name)
