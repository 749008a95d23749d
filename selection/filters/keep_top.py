"""Keep the candidates of highest score, a multiple of the budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.top import best_rows
from selection.step import Filter, check_number
from selection.types import Input, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepTop(Filter):
    """Keep the candidates of highest score, `times` the budget of them; ties to the lowest row.

    Args:
        times: rows to keep for each row of the budget, >= 1; the number of rows is rounded up.

    Not for: scores whose extreme end is mostly noise: that end is what it keeps.

    Cost: a partition of the scores and a sort of the best.
    """

    times: float = 5.0
    name: ClassVar[str] = "keep_top"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.SCORES})

    def __post_init__(self) -> None:
        check_number(self.name, "times", self.times, least=1)  # fewer rows than the budget could never fill it

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:  # noqa: ARG002
        """See `Filter.keep`."""
        return best_rows(pool, int(np.ceil(self.times * budget)))
