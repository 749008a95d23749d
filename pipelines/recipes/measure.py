"""What is measured on a selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.targets import half_vectors
from selection import Constraints, Pool
from selection.metrics import coverage
from selection.types import Input, Rows, Vectors

Counts = dict[str, int | float]
# Multiply-adds of a coverage measurement that is worth its time: a few seconds.
COVERAGE_COST = 2e11


def counted(constraints: Constraints, pool: Pool, cost: npt.NDArray[np.float64], rows: Rows) -> Counts:
    """What a selection of `rows` holds of what its budget counts and its quota names."""
    counts: Counts = {}
    if constraints.in_tokens:
        counts["tokens"] = int(cost[rows].sum())
    quota = constraints.quota
    if quota is not None and (quota.named or quota.predicts):
        # Predicted classes cost a pass of the model: only those of the rows chosen; a column tells which groups there
        # are.
        group, names = quota.groups(pool.take(np.sort(rows)) if quota.predicts else pool)
        group = group if quota.predicts else group[rows]
        sizes = np.bincount(group[group >= 0], minlength=len(names))
        counts |= {f"quota_{name}": size for name, size in zip(names, sizes.tolist(), strict=True)}
    return counts


def measured(inputs: DrawInputs, vectors: Vectors | None, rows: Rows) -> dict[str, float]:
    """How well some rows cover the pool and match the targets, where there are vectors."""
    if vectors is None or not len(rows):
        return {}
    return _pool_coverage(vectors, rows) | _target_similarity(inputs, vectors, rows)


def _target_similarity(inputs: DrawInputs, vectors: Vectors, rows: Rows) -> dict[str, float]:
    """How near some rows are to the examples that only measure, and to those that steps saw, for each target set with both.

    The mean over examples of the highest cosine to one of the rows. Nothing where no part of a set only measures:
    examples that a selection was made by say little of others.
    """
    from selection.metrics import mean_highest_cosine

    if Input.TARGETS not in inputs.spec.inputs:
        return {}
    chosen = vectors.take(rows)
    similarity = {}
    for half in ("measuring", "selecting"):
        for name, examples in half_vectors(inputs, half).items():
            similarity[f"{half}_similarity_{name}"] = round(mean_highest_cosine(examples, chosen), 6)
    return similarity


def _pool_coverage(vectors: Vectors, rows: Rows) -> dict[str, float]:
    """How well the pool is covered by some rows, where measuring is quick."""
    if len(rows) * vectors.shape[0] * vectors.shape[1] > COVERAGE_COST:
        return {}
    measured = coverage(vectors, rows)
    return {
        "coverage_radius": round(measured.radius, 6),
        "coverage_mean_distance": round(measured.mean_distance, 6),
        "coverage_mean_similarity": round(measured.mean_similarity, 6),
    }
