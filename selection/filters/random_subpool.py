"""Keep a random sample of the candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.random import drawn_rows
from selection.step import Filter, check_integer
from selection.types import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSubpool(Filter):
    """Keep `rows` candidates drawn at random without replacement, or all if there are no more.

    Args:
        rows: how many.

    The noise is hashed from the candidate's key, so the draw does not depend on the order of the pool.

    Not for: finding rare kinds of rows: a sample has few of them.

    Cost: one hash a row and a partition.
    """

    rows: int = 100_000
    name: ClassVar[str] = "random_subpool"

    def __post_init__(self) -> None:
        check_integer(self.name, "rows", self.rows, least=1)

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:  # noqa: ARG002
        """See `Filter.keep`."""
        return drawn_rows(pool, self.rows, rng)[0]
