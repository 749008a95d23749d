"""Similarity to the targets as the score: the best one, or the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool, Targets
from selection.step import Scorer, check_flag
from selection.types import Floats, Input

NEEDS = frozenset({Input.VECTORS, Input.TARGETS})


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsMax(Scorer):
    """The highest similarity to any target: float32 of the exact float64 maximum of the inner products.

    Source: Ivison et al. 2025 (RDS+), `get_top_optimized.py max`.
    Cost: 2*n*m*d operations, one block and n floats of memory.
    """

    name: ClassVar[str] = "rds_max"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.top_k import max_similarity

        return max_similarity(pool.get_vectors(), target_vectors(pool.get_targets()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsMean(Scorer):
    """The mean similarity to the targets, as one inner product with their mean.

    Args:
        normalized: first scale each target's similarities to 0..1 over the pool, so that a target that is close to
            every row weighs no more than another. A target that is equally close to all rows then adds nothing.

    Source: Ivison et al. 2025 (RDS+), `mean_max` and `normalized_mean`.
    Cost: n*d operations in float64, n floats; `normalized` adds a pass of 4*n*m*d operations.
    """

    normalized: bool = False
    name: ClassVar[str] = "rds_mean"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def __post_init__(self) -> None:
        check_flag(self.name, "normalized", self.normalized)

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.top_k import similarity_to, top_k

        vectors, targets = pool.get_vectors(), target_vectors(pool.get_targets())
        if not len(pool):
            return np.empty(0, np.float32)
        m = len(targets)
        if not self.normalized:
            return similarity_to(vectors, targets.mean(axis=0, dtype=np.float64)).astype(np.float32)
        # The highest similarity to -q is minus the lowest to q.
        extremes = top_k(vectors, np.concatenate([targets, -targets]), depth=1).score[:, 0]
        highest, lowest = extremes[:m], -extremes[m:]
        spread = highest - lowest
        weight = np.divide(1.0, m * spread, out=np.zeros(m), where=spread > 0)
        direction = (weight[:, None] * targets.astype(np.float64)).sum(axis=0)
        return np.asarray(similarity_to(vectors, direction) - (weight * lowest).sum(), np.float32)


def target_vectors(targets: Targets) -> Floats:
    """(m, d) float32.

    Raises:
        InvalidInput: there are no targets.
    """
    if not len(targets.vectors):
        raise InvalidInput("targets: there are none")
    return np.asarray(targets.vectors, np.float32)
