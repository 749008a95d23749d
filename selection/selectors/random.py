"""Take rows at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.noise import hash_uniform
from selection.pool import Pool
from selection.step import Selector
from selection.types import Array, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Random(Selector):
    """Draw uniformly without replacement.

    Each candidate has a number in (0, 1), hashed from its key, the seed and the round; the rows of highest number are
    taken. So the draw depends neither on the order of the pool nor on its other rows: when a pool grows, most of the
    draw stays. The gain is that number. Cost: one hash a row and a partition.

    Not for: rare kinds of rows, of which a small sample has few. As a baseline it is always worth a recipe.
    """

    name: ClassVar[str] = "random"
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        return Selection.in_order("draw", *drawn_rows(pool, budget, rng))


def drawn_rows(pool: Pool, count: int, rng: np.random.Generator) -> tuple[Rows, Array]:
    """Up to `count` candidates by descending hash noise, and the noise; ties to the lowest row."""
    rows = pool.candidate_rows
    noise = hash_uniform(pool.get_keys()[rows], rng)
    order = highest(noise, count)
    return rows[order], noise[order]
