"""Rows whose label would change the classifier most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.probabilities import by_row
from selection.step import Scorer, check_flag
from selection.types import Floats, Input, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedGradientLength(Scorer):
    """The length of the gradient that a row's label would cause, expected over the labels: |[x, 1]| * sum_c p_c |p - e_c|.

    That is the gradient of the cross-entropy of a linear softmax classifier with a bias, in its weights: the outer product of
    p - e_c and [x, 1]. Vectors that are not of unit length count for more the longer they are.

    Args:
        squared: expect the squared length, |[x, 1]|^2 * (1 - sum_c p_c^2).

    Source: Settles, Craven & Ray 2007.
    Cost: one pass over the vectors and one over the probabilities, n*(d + C) operations; 8*n bytes and one block of each.
    """

    squared: bool = False
    name: ClassVar[str] = "expected_gradient_length"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES})

    def __post_init__(self) -> None:
        check_flag(self.name, "squared", self.squared)

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.assign import norms
        from selection.kernels.compiled.probabilities import expected_gradient
        from selection.kernels.top_k import TILE_ROWS, tiles

        # Both first, so that a missing input is named before a pass is made.
        vectors, probabilities = pool.get_vectors(), pool.get_probabilities()
        length = np.empty(len(pool))
        for rows, tile, _ in tiles(vectors, TILE_ROWS):
            length[rows] = norms(tile)
        return by_row(probabilities, Input.PROBABILITIES, expected_gradient, length, self.squared)
