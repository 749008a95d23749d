"""Take the highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.step import Selector
from selection.types import Input, Pool, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Top(Selector):
    """Take the candidates of highest score, ties to the lowest row.

    Cost: one sort of the scores.
    """

    name: ClassVar[str] = "top"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.SCORES})
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        rows = best_rows(pool, budget)
        scores = pool.get_scores()[rows]
        return Selection(rows, scores, Reason.of("score", len(rows), rank=np.arange(len(rows)), value=scores))


def best_rows(pool: Pool, count: int) -> Rows:
    """Up to `count` candidates by descending score, ties to the lowest row."""
    rows = np.flatnonzero(pool.candidates).astype(np.int64)
    return rows[np.argsort(-pool.get_scores()[rows], kind="stable")[:count]]
