"""Take the highest scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.step import Selector
from selection.types import Array, Input, Pool, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Top(Selector):
    """Take the candidates of highest score, ties to the lowest row.

    Cost: a partition of the scores and a sort of the best.
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
    rows = np.flatnonzero(pool.candidates).astype(np.int64, copy=False)
    return rows[highest(pool.get_scores()[rows], count)]


def highest(values: Array, count: int) -> Rows:
    """The places of up to `count` highest values, descending, ties to the lowest place.

    Cost: a partition of the values and a sort of those that are taken.

    >>> highest(np.array([1.0, 3.0, 1.0, 2.0]), 3)
    array([1, 3, 0])
    """
    last = len(values) - count
    if 0 < last < len(values):
        places = np.flatnonzero(values >= np.partition(values, last)[last])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")[:count]].astype(np.int64)
