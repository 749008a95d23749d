"""Take the rows of highest score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.pool import Pool
from selection.step import Selector
from selection.types import Input, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Top(Selector):
    """Take the candidates of highest score, ties to the lowest row.

    Not for: scores by which the best rows are all alike: `diversity_filter`, or `keep_top` and a selector behind it.

    Cost: a partition of the scores and a sort of the best.
    """

    name: ClassVar[str] = "top"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.SCORES})
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        rows = best_rows(pool, budget)
        return Selection.in_order("score", rows, pool.get_scores()[rows])


def best_rows(pool: Pool, count: int) -> Rows:
    """Up to `count` candidates by descending score, ties to the lowest row."""
    rows = pool.candidate_rows
    return rows[highest(pool.get_scores()[rows], count)]
