"""Rows whose label would change the classifier most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.pool import Pool
from selection.scorers.probability_scorer import ProbabilityScorer
from selection.step import check_flag
from selection.types import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedGradientLength(ProbabilityScorer):
    """The expected length of the gradient that a row's label would cause: |[x, 1]| * sum_c p_c |p - e_c|.

    The gradient is that of the cross-entropy of a linear softmax classifier with a bias, with respect to its weights:
    the outer product of p - e_c and [x, 1]. Of vectors that are not of unit length, the longer ones score higher.

    Args:
        squared: expect the squared length instead, |[x, 1]|^2 * (1 - sum_c p_c^2).

    Not for: vectors of very different lengths, which then decide more than the model does.

    Source: Settles, Craven & Ray 2007.
    Cost: one pass over the vectors and one over the probabilities, n*(d + C) operations; 8*n bytes and one block of
    each.
    """

    squared: bool = False
    name: ClassVar[str] = "expected_gradient_length"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES})
    loop: ClassVar[str] = "expected_gradient"

    def __post_init__(self) -> None:
        check_flag(self.name, "squared", self.squared)

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """(n,) float64 the length of each vector, and whether to square."""
        from selection.kernels.compiled.assign import norms
        from selection.kernels.top_k import TILE_ROWS, tiles

        length = np.empty(len(pool))
        for rows, tile, _ in tiles(pool.get_vectors(), TILE_ROWS):
            length[rows] = norms(tile)
        return length, self.squared
