"""Match the mean of the pool: each pick brings the mean of the selected rows closest to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from selection.errors import rows_of_parent
from selection.pool import Pool
from selection.selectors.facility_location import weights_of
from selection.selectors.weighted import Weighted
from selection.types import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Herding(Weighted):
    """Pick one row at a time, the one that brings the mean of the selected rows closest to the mean of the pool.

    Args:
        weights: a column of finite numbers >= 0 for a weighted mean of the pool; a row of weight 0 may still be picked.

    Let mu be the mean of all rows that are candidates or already selected, and S the t rows already selected or picked.
    The pick is the candidate x of smallest |(t+1) mu - sum of S - x|, ties to the lowest row (herding with a linear
    kernel). On bounded vectors |mu - mean of S| falls like 1/t; for random rows it falls like 1/sqrt(t). The reason's
    value is that distance after the pick. The gain says by how much the pick lowered it; if no row was selected, the
    distance before the first pick is the length of mu. A gain may be negative: once the mean is matched, any further
    row moves it away.

    Exact. Cost and memory: each pick is one pass over a copy with one byte for each number, see
    `selection.kernels.herding`.

    Not for: rare kinds of rows, and the edges of the pool: it matches the mean alone.

    Source: Welling 2009; Chen et al. 2010. DeepCore's `herding.py` takes the largest distance in place of the smallest.
    """

    weights: str | None = None
    name: ClassVar[str] = "herding"
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check_weights()

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.herding import herd

        candidates, taken = pool.candidates, pool.get_already_selected()
        # A filter may also have kept labelled rows, which do not count in the mean.
        if candidates.sum() + len(taken) < len(pool):
            rows = np.union1d(np.flatnonzero(candidates), taken).astype(np.int64)
            with rows_of_parent(rows):
                selection = self.select(pool.take(rows), budget, rng=rng)
            return replace(selection, rows=rows[selection.rows])
        weights = None if self.weights is None else weights_of(pool, self.weights)
        rows, error = herd(pool.get_vectors(), budget, taken=taken, candidates=candidates, weights=weights)
        return Selection.in_order("score", rows, -np.diff(error), error[1:])
