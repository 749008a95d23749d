"""Match the mean of the pool: each pick brings the mean of what is taken nearest to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from selection.errors import rows_of_parent
from selection.selectors.facility_location import weights_of
from selection.selectors.weighted import Weighted
from selection.types import Pool, Reason, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Herding(Weighted):
    """Pick, one after the other, the row that brings the mean of what is taken nearest to the mean of the pool.

    Args:
        weights: a column of finite numbers >= 0 for a weighted mean of the pool; a row of weight 0 may still be picked.

    With mu the mean of all rows that are candidates or already selected, and S the t rows already selected or picked,
    the pick is the candidate x of smallest |(t+1) mu - sum of S - x|, ties to the lowest row (herding with a linear kernel).
    On bounded vectors |mu - mean of S| falls like 1/t, for random rows like 1/sqrt(t). The reason's value is that
    distance after the pick, the gain by how much the pick lowered it; from the length of mu if nothing was selected. A gain
    may be negative: where the mean is met, any further row moves it away.

    Exact; cost and memory: one pass over a copy of a byte a number for each pick, see `selection.kernels.herding`.
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
        if candidates.sum() + len(taken) < len(pool):  # labelled rows that a filter kept: they are not to be matched
            rows = np.union1d(np.flatnonzero(candidates), taken).astype(np.int64)
            with rows_of_parent(rows):
                picked = self.select(pool.take(rows), budget, rng=rng)
            return replace(picked, rows=rows[picked.rows])
        weights = None if self.weights is None else weights_of(pool, self.weights)
        found = herd(pool.get_vectors(), budget, taken=taken, candidates=candidates, weights=weights)
        gain = -np.diff(found.error).astype(np.float32)
        reason = Reason.of("score", budget, rank=np.arange(budget), value=found.error[1:])
        return Selection(found.rows, gain, reason)
