"""What a subset is worth: how well it covers the pool, and how its groups compare with the pool's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.allocation import as_written
from selection.blocks import chunks, directions
from selection.errors import InvalidInput, InvalidOption
from selection.groups import strata
from selection.pool import Pool
from selection.step import check_number
from selection.types import Array, Rows, Vectors

# Rows whose vectors are widened at once.
BLOCK_ROWS = 4096

SHARES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Coverage:
    """How close the rows of a pool are to a subset.

    Attributes:
        radius: the largest Euclidean distance of a row to its nearest selected row.
        mean_distance: the mean of these distances (the area under the radius that covers a share, AUC_pr of CCS).
        p_radius: for a share p, the smallest radius within which ceil(p * n) rows lie.
        facility_location: the sum over the rows of the highest (1 + cosine) / 2 to a selected row; 0 for a zero vector.
        mean_similarity: the same as a mean.
    """

    radius: float
    mean_distance: float
    p_radius: dict[float, float]
    facility_location: float
    mean_similarity: float


@dataclass(frozen=True)
class Balance:
    """How the groups of a subset compare with those of the pool, in nats.

    Attributes:
        entropy: of the groups' shares in the subset.
        normalized_entropy: the same over the logarithm of the number of groups in the pool, 0..1; 1 for one group.
        kl_to_pool: sum over groups of share in subset * log(share in subset / share in pool), 0 for equal shares.
        shares: the share of each group in the subset, in the order of the groups' values.
    """

    entropy: float
    normalized_entropy: float
    kl_to_pool: float
    shares: dict[str, float]


def coverage(vectors: Vectors | Array, rows: Array | Sequence[int], *, shares: Sequence[float] = SHARES) -> Coverage:
    """Coverage of the rows of `vectors` by some of them, in one pass over the vectors.

    Args:
        vectors: (n, d) float16 or float32.
        rows: (b,) the selected rows, b >= 1.
        shares: each in 0 < p <= 1.

    Raises:
        InvalidInput: no row is selected, one is out of range, or a vector is not finite.
        InvalidOption: a share is out of range.

    Exact in float64, whatever the order and size of blocks. Cost: 2*n*b*d operations in float32; 4*b*d + 40*n bytes,
    one tile.

    >>> c = coverage([[0], [1], [2], [10], [11], [20]], [0, 5, 3], shares=[0.8])
    >>> c.radius, round(c.mean_distance, 3), c.p_radius
    (2.0, 0.667, {0.8: 1.0})
    """
    from selection.kernels.assign import nearest_centres

    known = Pool(vectors=vectors).get_vectors()
    n = known.shape[0]
    rows = _checked_rows(rows, n)
    for share in shares:
        check_number("coverage", "shares", share)
        if not 0 < share <= 1:
            raise InvalidOption(f"a share must be in 0 < p <= 1, got {share!r}", step="coverage", option="shares")
    near, similar = nearest_centres(known, np.asarray(known.take(rows), np.float32))
    ordered = np.sort(near.value)
    similarity = np.where(similar.place >= 0, (1 + similar.value) / 2, 0.0)
    return Coverage(
        radius=float(ordered[-1]),
        mean_distance=float(near.value.mean()),
        # As a fraction of the share as written: 0.1 * 30 is 3.0000000000000004 in floats.
        p_radius={float(p): float(ordered[math.ceil(as_written(p) * n) - 1]) for p in shares},
        facility_location=float(similarity.sum()),
        mean_similarity=float(similarity.mean()),
    )


def mean_highest_cosine(examples: Array, chosen: Array) -> float:
    """The mean over some examples of the highest cosine to a chosen row.

    Args:
        examples: (m, d) float16 or float32, m >= 1.
        chosen: (b, d) float16 or float32, b >= 1. A zero vector has no cosine, and an example without any counts as 0.

    Exact in float64. Cost: 2*m*b*d operations in float32.

    >>> mean_highest_cosine(np.eye(2, dtype=np.float32), np.array([[1.0, 0.0], [1.0, 1.0]], np.float32)).__round__(4)
    0.8536
    """
    from selection.kernels.assign import nearest_centres

    _, similar = nearest_centres(Pool(vectors=examples).get_vectors(), np.asarray(chosen, np.float32))
    return float(similar.value.mean())


def vendi_score(vectors: Vectors | Array, rows: Array | Sequence[int]) -> float:
    """How many different rows some rows amount to: 1 if all point the same way, their number if all are orthogonal.

    The exponential of the entropy of the eigenvalues of their cosines, divided by their number (Friedman and Dieng
    2023). Zero vectors have no cosine and are left out.

    Args:
        vectors: (n, d) float16 or float32.
        rows: (b,) the selected rows, b >= 1.

    Raises:
        InvalidInput: no row is selected, one is out of range, all vectors are zero, or one is not finite.

    Cost: b*d*m + m**3 operations for m = min(b, d); 8*b*d + 8*m*m bytes.

    >>> round(vendi_score([[1, 0], [1, 0], [0, 1], [0, 2]], [0, 1, 2, 3]), 6)
    2.0
    """
    known = Pool(vectors=vectors).get_vectors()
    rows = _checked_rows(rows, known.shape[0])
    X = directions(known, rows)
    X = X[X.any(axis=1)]
    if not len(X):
        raise InvalidInput("rows: every vector is zero")
    # Both products have the same eigenvalues but for zeros.
    values = np.linalg.eigvalsh((X @ X.T if len(X) < X.shape[1] else X.T @ X) / len(X))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


def mean_discrepancy(vectors: Vectors | Array, rows: Array | Sequence[int]) -> float:
    """How far the mean direction of some rows is from the pool's: the squared distance of the means of their unit vectors.

    This is the squared maximum mean discrepancy (MMD) with the cosine as kernel: 0 for a subset that leans nowhere, 4
    at most.

    Args:
        vectors: (n, d) float16 or float32.
        rows: (b,) the selected rows, b >= 1.

    Raises:
        InvalidInput: no row is selected, one is out of range, or a vector is not finite.

    Cost: one pass of n*d operations, in the order of rows; 8*d bytes for each of BLOCK_ROWS rows.

    >>> mean_discrepancy([[1, 0], [0, 1]], [0])
    0.5
    """
    known = Pool(vectors=vectors).get_vectors()
    rows = _checked_rows(rows, known.shape[0])
    gap = _mean_direction(known, np.arange(known.shape[0])) - _mean_direction(known, rows)
    return float(gap @ gap)


def balance(groups: Array | Sequence[Any], rows: Array | Sequence[int]) -> Balance:
    """The groups of some rows beside those of all.

    Args:
        groups: (n,) any values; null is a group of its own.
        rows: (b,) the selected rows, b >= 1.

    Raises:
        InvalidInput: no row is selected or one is out of range.

    >>> b = balance(["a", "a", "b", "c"], [0, 1, 2, 3])
    >>> round(b.entropy, 4), round(b.normalized_entropy, 4), b.kl_to_pool
    (1.0397, 0.9464, 0.0)
    """
    values = np.asarray(groups)
    if values.ndim != 1:
        raise InvalidInput(f"groups: must have one value a row, got shape {values.shape}")
    of_row, names = strata(values)
    rows = _checked_rows(rows, len(of_row))
    pool = np.bincount(of_row, minlength=len(names)) / len(of_row)
    subset = np.bincount(of_row[rows], minlength=len(names)) / len(rows)
    present = subset > 0
    entropy = float(-(subset[present] * np.log(subset[present])).sum())
    return Balance(
        entropy=entropy,
        normalized_entropy=entropy / math.log(len(names)) if len(names) > 1 else 1.0,
        kl_to_pool=float((subset[present] * np.log(subset[present] / pool[present])).sum()),
        shares=dict(zip(names, subset.tolist(), strict=True)),
    )


def _mean_direction(vectors: Vectors, rows: Array) -> Array:
    """(d,) float64 mean of some unit vectors, summed in the order given."""
    sums = (directions(vectors, part).sum(axis=0) for part in chunks(rows, BLOCK_ROWS))
    return sum(sums, np.zeros(vectors.shape[1])) / len(rows)


def _checked_rows(rows: Array | Sequence[int], n: int) -> Rows:
    checked = np.asarray(rows)
    if checked.ndim != 1 or not len(checked) or checked.dtype.kind not in "iu":
        raise InvalidInput(
            f"rows: at least one row must be selected, as integers, got {checked.dtype} of shape {checked.shape}"
        )
    outside = checked[(checked < 0) | (checked >= n)]
    if len(outside):
        raise InvalidInput(f"rows: selected row {outside[0]} is outside 0..{n - 1}")
    return checked.astype(np.int64)
