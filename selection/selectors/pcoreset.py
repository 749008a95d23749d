"""Cover the model's predictions: each pick is the row whose class probabilities are farthest from all earlier picks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.k_center import KCenter
from selection.types import Input, Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class PCoreSet(KCenter):
    """Greedy k-center in Euclidean distance between rows of class probabilities, exact (PCoreSet, Kang et al. 2025).

    Options, gains and reasons are those of `k_center`. Already selected rows are centres by their predicted
    probabilities, not by their labels. Probabilities are rounded to float32.

    Not for: projects without a model: it needs probabilities.

    Cost and memory: see `selection.kernels.k_center`, with d = C classes; 4*n*C bytes for the probabilities.
    Source: erjui/PCoreSet, `strategies.py`, which computes all distances again for each pick: the picks are the same.
    """

    name: ClassVar[str] = "pcoreset"
    covers: ClassVar[Input] = Input.PROBABILITIES

    def points(self, pool: Pool) -> Vectors:
        """(n, C) the probabilities."""
        from selection.kernels.probabilities import tiles
        from selection.vectors import ArrayVectors

        blocks = pool.get_probabilities()
        values = np.empty(blocks.shape, np.float32)
        for rows, tile in tiles(blocks, "probabilities"):
            values[rows] = tile
        return ArrayVectors(values)
