"""How sound a representation is: measures of a sample of its vectors.

A sound representation uses many directions, keeps different texts apart, and finds a text again whose lines were
wrapped or whose letters changed case. Vectors are taken at unit length: divided by the length that they have as stored,
in float32. Cosines are products in float32, right to about 1e-6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selection.errors import InvalidInput
from selection.types import Array, Floats, Rows

# The least cosine of a near-copy.
NEAR_COPY = 0.999
# Cells that the sample is divided into, to see whether a group lies in one.
CELLS = 64
# Rows compared with all others at once.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Collapse:
    """How much of a group lies in one cell.

    Attributes:
        rows: of the group.
        cell: the cell that holds most of them, the lowest of equals.
        share: the share of the group's rows in it.
        share_of_all: the share of all rows in it.
    """

    rows: int
    cell: int
    share: float
    share_of_all: float


def at_unit_length(stored: Array) -> Floats:
    """(n, d) float32: the rows divided by their lengths, which float16 leaves at 1 to 1e-3; a row of zeros stays.

    >>> at_unit_length(np.array([[3.0, 4.0], [0.0, 0.0]], np.float16)).round(4).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    wide = np.asarray(stored, np.float32)
    lengths = np.linalg.norm(wide.astype(np.float64), axis=1)[:, None]
    return np.asarray(wide / np.where(lengths > 0, lengths, 1.0), np.float32)


def effective_rank(sample: Array, *, centred: bool = False) -> float:
    """How many directions the vectors use: exp of the entropy of the singular values over their sum.

    Args:
        sample: (n, d) finite.
        centred: of the vectors minus their mean.

    Returns:
        1 .. min(n, d); 0 where all are zero.

    The singular values are square roots of eigenvalues in float64: what is below 1e-7 of the largest counts as zero,
    far below the rounding of float16 vectors.

    Cost: n*d*min(n, d) operations and the eigenvalues of a matrix of that size; 8 bytes * (n*d + min(n, d)**2).
    Source: Garrido et al. 2023 (RankMe); Roy and Vetterli 2007.

    >>> round(effective_rank(np.eye(3)), 6), round(effective_rank(np.ones((3, 2))), 6)
    (3.0, 1.0)
    """
    wide = np.asarray(sample, np.float64)
    if centred and len(wide):
        wide = wide - wide.mean(axis=0)
    products = wide @ wide.T if len(wide) < wide.shape[1] else wide.T @ wide
    values = np.linalg.eigvalsh(products) if products.size else np.zeros(0)
    values = np.sqrt(values[values > values.max(initial=0.0) * 1e-14])
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(unit: Array) -> float | None:
    """The mean cosine of two different rows, over all pairs; None of fewer than two rows.

    Args:
        unit: (n, d) of length 1.

    Cost: one pass: the sum of all products is the square of the sum.

    >>> mean_cosine(np.eye(2)), mean_cosine(np.ones((4, 1)))
    (0.0, 1.0)
    """
    n = len(unit)
    if n < 2:
        return None
    wide = np.asarray(unit, np.float64)
    total = wide.sum(axis=0)
    return float((total @ total - (wide * wide).sum()) / (n * (n - 1)))


def nearest_other(unit: Floats) -> tuple[Rows, Floats]:
    """The nearest other row of each row, the lowest of equals, and the cosine.

    Args:
        unit: (n, d) float32 of length 1, n >= 2.

    Returns:
        (n,) int64 and (n,) float32.

    Cost: 2*n*n*d operations; 4 bytes * n * BLOCK_ROWS.

    >>> nearest_other(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32))[0].tolist()
    [2, 2, 1]
    """
    nearest, cosine = np.empty(len(unit), np.int64), np.empty(len(unit), np.float32)
    for start in range(0, len(unit), BLOCK_ROWS):
        block = np.arange(start, min(start + BLOCK_ROWS, len(unit)))
        products = unit[block] @ unit.T
        products[block - start, block] = -np.inf
        nearest[block] = products.argmax(axis=1)
        cosine[block] = products[block - start, nearest[block]]
    return nearest, cosine


def plants_recalled(planted: Floats, unit: Floats, originals: Rows) -> Array:
    """(p,) bool: whether the nearest row of each planted copy is the row that it was made of.

    Args:
        planted: (p, d) float32; a row of zeros, without a vector, is nearest to none.
        unit: (n, d) float32 of length 1.
        originals: (p,) the rows of `unit` that were copied.

    Cost: 2*p*n*d operations; 4 bytes * p * n.

    >>> sample = np.eye(2, dtype=np.float32)
    >>> plants_recalled(np.array([[0.9, 0.1], [0.9, 0.1], [0, 0]], np.float32), sample, np.array([0, 1, 0])).tolist()
    [True, False, False]
    """
    if planted.shape[1:] != unit.shape[1:]:
        raise InvalidInput(f"planted copies of {planted.shape[1:]} dimensions among rows of {unit.shape[1:]}")
    nearest = (planted @ unit.T).argmax(axis=1)
    return np.asarray((nearest == originals) & planted.any(axis=1))


def collapse(cells: Rows, groups: Rows, n_groups: int) -> list[Collapse]:
    """For each group, how much of it lies in the cell that holds most of it.

    Args:
        cells: (n,) the cell of each row, >= 0.
        groups: (n,) the group of each row; rows of -1 are of no group.
        n_groups: groups are 0 .. n_groups - 1; one without rows has a share of 0.

    >>> [(each.share, each.share_of_all) for each in collapse(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), 2)]
    [(1.0, 0.5), (0.5, 0.25)]
    """
    n_cells = int(cells.max(initial=0)) + 1
    all_counts = np.bincount(cells, minlength=n_cells)
    counts = np.zeros((n_groups, n_cells), np.int64)
    np.add.at(counts, (groups[groups >= 0], cells[groups >= 0]), 1)
    largest = counts.argmax(axis=1)
    return [
        Collapse(
            int(of_group.sum()), cell, _share(of_group[cell], of_group.sum()), _share(all_counts[cell], len(cells))
        )
        for of_group, cell in zip(counts, largest.tolist(), strict=True)
    ]


def fit_cells(unit: Floats, count: int, *, seed: int) -> Floats:
    """(count, d) float32 of length 1: centroids of spherical k-means over the sample.

    Args:
        unit: (n, d) float32 of length 1, in an order that depends on nothing but the sample; n >= count.
        seed: of the starts.

    Cost: as `kernels.clusters.spherical_clusters`, of n rows.
    """
    from selection.kernels.clusters import spherical_clusters
    from selection.vectors import ArrayVectors

    rng = np.random.default_rng([seed, 0, 0, count])
    return spherical_clusters(ArrayVectors(unit), np.arange(len(unit)), count, rng=rng)[1]


def cells_of(unit: Floats, centroids: Floats) -> Rows:
    """(n,) the centroid of the highest cosine to each row, the first of equals.

    >>> cells_of(np.array([[1, 0], [0.6, 0.8]], np.float32), np.eye(2, dtype=np.float32)).tolist()
    [0, 1]
    """
    return np.asarray((unit @ centroids.T).argmax(axis=1), np.int64)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
