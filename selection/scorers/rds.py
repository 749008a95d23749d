"""Similarity to the targets as the score: the best one, or the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool, Targets
from selection.step import Scorer, check_choice, check_flag, check_version
from selection.types import Floats, Input, Points, Rows

NEEDS = frozenset({Input.VECTORS, Input.TARGETS})


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsMax(Scorer):
    """The highest similarity to any target: float32 of the exact float64 maximum of the inner products.

    Args:
        per: "query": of each target. "subtask": the mean similarity to the targets of each target set, and of the sets
            the highest: over vectors of `gradients` this is LESS, with a target set for each subtask.
        version: 1 takes stored vectors as they are, rounded, without dividing by their lengths, as winnow 0.2 did.

    Similarity: see `similarity_inputs`.

    Not for: targets of several kinds: the kind that is nearest to the pool may take the whole budget, see `rds_plus`.

    Source: Ivison et al. 2025 (RDS+), `get_top_optimized.py max`; Xia et al. 2024 (LESS) for subtasks.
    Cost: 2*n*m*d operations, one block and n floats of memory. With subtasks, as many in float64 as there are sets, and
    n doubles each for as many as fit into 256 MiB.
    """

    per: str = "query"
    version: int = 2
    name: ClassVar[str] = "rds_max"
    needs: ClassVar[frozenset[Input]] = NEEDS
    added_options: ClassVar[tuple[str, ...]] = ("per",)

    def __post_init__(self) -> None:
        check_choice(self.name, "per", self.per, ("query", "subtask"))
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Every similarity is another."""
        return self.version

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.top_k import max_similarity

        vectors, targets = similarity_inputs(pool, self.version)
        if self.per == "subtask":
            scores = _best_mean(vectors, targets, pool.get_targets().sets)
        else:
            scores = max_similarity(vectors, targets)
        return np.minimum(scores, np.float32(1)) if vectors is not pool.vectors else scores


@dataclass(frozen=True, slots=True, kw_only=True)
class RdsMean(Scorer):
    """The mean similarity to the targets, as one inner product with their mean.

    Args:
        normalized: first scale each target's similarities to 0..1 over the pool, so that a target that is close to
            every row weighs no more than another. A target that is equally close to all rows then adds nothing.
        version: see `RdsMax`.

    Not for: targets of several kinds: what lies between them scores highest.

    Source: Ivison et al. 2025 (RDS+), `mean_max` and `normalized_mean`.
    Cost: n*d operations in float64, n floats; `normalized` adds a pass of 4*n*m*d operations.
    """

    normalized: bool = False
    version: int = 2
    name: ClassVar[str] = "rds_mean"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def __post_init__(self) -> None:
        check_flag(self.name, "normalized", self.normalized)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Every similarity is another."""
        return self.version

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.top_k import similarity_to, top_k

        vectors, targets = similarity_inputs(pool, self.version)
        if not len(pool):
            return np.empty(0, np.float32)
        m = len(targets)
        if not self.normalized:
            mean = similarity_to(vectors, targets.mean(axis=0, dtype=np.float64)).astype(np.float32)
            return np.minimum(mean, np.float32(1)) if vectors is not pool.vectors else mean
        # The highest similarity to -q is minus the lowest to q.
        extremes = top_k(vectors, np.concatenate([targets, -targets]), depth=1).score[:, 0]
        highest, lowest = extremes[:m], -extremes[m:]
        spread = highest - lowest
        weight = np.divide(1.0, m * spread, out=np.zeros(m), where=spread > 0)
        direction = (weight[:, None] * targets.astype(np.float64)).sum(axis=0)
        return np.asarray(similarity_to(vectors, direction) - (weight * lowest).sum(), np.float32)


def _best_mean(vectors: Points, targets: Floats, sets: Rows) -> Floats:
    """(n,) float32: of the mean similarities to the targets of each set, the highest."""
    from selection.kernels.top_k import similarities

    means = [targets[sets == number].mean(axis=0, dtype=np.float64) for number in np.unique(sets)]
    best = np.full(vectors.shape[0], -np.inf)
    for similarity in similarities(vectors, np.array(means)):
        np.maximum(best, similarity, out=best)
    return best.astype(np.float32)


def similarity_inputs(pool: Pool, version: int = 2) -> tuple[Points, Floats]:
    """The vectors (n, d) and targets (m, d) whose inner products are the similarities.

    They are those of the pool; where these stand for vectors of length 1 (`Pool.unit_length`), scaled to that length,
    so that the inner product is the cosine and float16 moves directions only. Version 1 never scales.

    Raises:
        InvalidInput: there are no targets.
    """
    from selection.kernels.normalize import unit_rows, unit_vectors

    vectors, targets = pool.get_vectors(), target_vectors(pool.get_targets())
    if version == 1 or not pool.unit_length:
        return vectors, targets
    return unit_vectors(vectors), unit_rows(targets)


def target_vectors(targets: Targets) -> Floats:
    """(m, d) float32.

    Raises:
        InvalidInput: there are no targets.
    """
    if not len(targets.vectors):
        raise InvalidInput("targets: there are none")
    return np.asarray(targets.vectors, np.float32)
