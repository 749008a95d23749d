"""Keep the best row of each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.groups import NO_GROUP, by_value
from selection.pool import Pool
from selection.scorers.column import numbers
from selection.step import Filter, check_name
from selection.types import DroppedRows, Floats, Input, Reason, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class BestOf(Filter):
    """Keep the row of highest score of each group of rows that have the same value in a column; ties to the lowest row.

    Args:
        by: the column, of texts or numbers. Each row without a value (null, NaN) is a group of its own and stays.
        score: a column of finite numbers, higher = better; without it the scores of the step before.

    A group with an already selected row has its row: nothing else of it stays. The selection's record lists the dropped
    rows, each with its score and the row of its group that stays.

    Not for: groups of which several rows should stay: `group_by` with `max_per_group` does that.

    Cost: a sort of the rows. Memory: 80 bytes a row, and one number for each distinct value.

    Source: best response per prompt among several teachers, Odumakinde et al. 2024 (Multilingual Arbitrage).
    """

    by: str
    score: str | None = None
    name: ClassVar[str] = "best_of"

    def __post_init__(self) -> None:
        check_name(self.name, "by", self.by)
        check_name(self.name, "score", self.score, optional=True)

    @property
    def needs(self) -> frozenset[Input]:
        """Columns; without `score` also scores."""
        return frozenset({Input.COLUMNS} | ({Input.SCORES} if self.score is None else set()))

    @property
    def columns(self) -> frozenset[str]:
        """The columns of groups and of scores."""
        return frozenset({self.by} | ({self.score} if self.score else set()))

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        scores = self._scores(pool)
        taken = np.zeros(len(pool), bool)
        taken[pool.get_already_selected()] = True
        rows = np.flatnonzero(pool.candidates | taken)
        group = by_value(pool.get_column(self.by))[rows]
        rows, group = rows[group != NO_GROUP], group[group != NO_GROUP]
        order = np.lexsort((rows, -scores[rows], ~taken[rows], group))
        rows, group = rows[order], group[order]
        first = np.flatnonzero(np.diff(group, prepend=NO_GROUP))
        best = np.repeat(rows[first], np.diff(first, append=len(rows)))
        lost = (rows != best) & ~taken[rows]
        dropped, better = rows[lost], best[lost]
        keep = pool.candidates
        keep[dropped] = False
        reason = Reason.of("better", len(dropped), ref=better, value=scores[dropped])
        return np.flatnonzero(keep).astype(np.int64), DroppedRows(self.name, dropped, reason)

    def _scores(self, pool: Pool) -> Floats:
        """(n,) the column or the scores."""
        return pool.get_scores() if self.score is None else numbers(self.score, pool.get_column(self.score))
