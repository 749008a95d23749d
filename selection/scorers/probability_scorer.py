"""The base of scorers that score each row by its own class probabilities."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from selection.kernels.probabilities import by_row
from selection.pool import Pool
from selection.step import Scorer
from selection.types import Floats, Input


class ProbabilityScorer(Scorer):
    """Scores each row by its own probabilities, in one pass that also checks that they are distributions.

    Attributes:
        source: where the probabilities come from: the pool's classifier (n, C) or its committee (n, members, C).
        loop: the function of `selection.kernels.compiled.probabilities` that computes the scores of a tile of rows.
    """

    __slots__ = ()

    source: ClassVar[Input] = Input.PROBABILITIES
    loop: ClassVar[str]

    @property
    def needs(self) -> frozenset[Input]:
        """The probabilities."""
        return frozenset({self.source})

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """What the loop takes besides the probabilities."""
        return ()

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`.

        Raises:
            InvalidInput: a row's probabilities are no distribution; names the row.
        """
        from selection.kernels.compiled import probabilities as loops

        blocks = pool.get_committee() if self.source is Input.COMMITTEE else pool.get_probabilities()
        return by_row(blocks, self.source, getattr(loops, self.loop), *self.arguments(pool, rng=rng))
