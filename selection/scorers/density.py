"""Rows that are close to many others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.step import Scorer, check_number
from selection.types import Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Density(Scorer):
    """The mean of 1 / (1 + Euclidean distance) over all rows of the pool, including itself and already selected rows.

    Args:
        beta: None gives the density alone. A number gives the preceding score times density ** beta (information
            density); those scores must be >= 0, or density would count against a row.

    Not for: large pools without `random_subpool` in front: it compares all pairs.

    Source: Settles & Craven 2008; as in modAL `information_density`.
    Cost: n*n*d/2 operations in float64 and 8*n*d bytes, so put a filter in front of a large pool.
    """

    beta: float | None = None
    name: ClassVar[str] = "density"

    def __post_init__(self) -> None:
        if self.beta is not None:
            check_number(self.name, "beta", self.beta, least=0)

    @property
    def needs(self) -> frozenset[Input]:
        """The vectors; with `beta` also the scores to multiply."""
        return frozenset({Input.VECTORS}) | (frozenset() if self.beta is None else frozenset({Input.SCORES}))

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: a score is negative; names the row.
        """
        from selection.kernels.density import mean_closeness

        if self.beta is None:
            return mean_closeness(pool.get_vectors()).astype(np.float32)
        scores = pool.get_scores().astype(np.float64)
        negative = np.flatnonzero(scores < 0)
        if len(negative):
            row = int(negative[0])
            raise InvalidInput(f"density: the score of row {{row}} is {scores[row]:g}, must be >= 0", row=row)
        return (scores * mean_closeness(pool.get_vectors()) ** self.beta).astype(np.float32)
