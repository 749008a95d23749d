"""What is measured on a selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from selection import Constraints, Pool
from selection.metrics import coverage
from selection.types import Rows, Vectors

Counts = dict[str, int | float]
# Multiply-adds of a coverage measurement that is worth its time: a few seconds.
COVERAGE_COST = 2e11


def counted(constraints: Constraints, pool: Pool, cost: npt.NDArray[np.float64], rows: Rows) -> Counts:
    """What a selection of `rows` holds of what its budget counts and its quota names."""
    counts: Counts = {}
    if constraints.in_tokens:
        counts["tokens"] = int(cost[rows].sum())
    quota = constraints.quota
    if quota is not None and quota.named:
        # Predicted classes cost a pass of the model: only those of the rows chosen; a column tells which groups there are.
        group, names = quota.groups(pool.take(np.sort(rows)) if quota.predicts else pool)
        group = group if quota.predicts else group[rows]
        sizes = np.bincount(group[group >= 0], minlength=len(names))
        counts |= {f"quota_{name}": size for name, size in zip(names, sizes.tolist(), strict=True)}
    return counts


def pool_coverage(vectors: Vectors | None, rows: Rows) -> dict[str, float]:
    """How well the pool is covered by some rows, where there are vectors and measuring is quick."""
    if vectors is None or not len(rows) or len(rows) * vectors.shape[0] * vectors.shape[1] > COVERAGE_COST:
        return {}
    measured = coverage(vectors, rows)
    return {
        "coverage_radius": round(measured.radius, 6),
        "coverage_mean_distance": round(measured.mean_distance, 6),
        "coverage_mean_similarity": round(measured.mean_similarity, 6),
    }
