"""How much two selections share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selection.types import Array, Rows
from storage.ids import Ids


def jaccard(selections: Sequence[Ids]) -> Array:
    """(k, k) float64: of each two selections the rows in both, of the rows in either; 1 for two that are empty.

    Cost: sorts all ids; then for each row the square of how many selections have it.
    """
    from scipy.sparse import csr_array

    sizes = np.array([len(ids) for ids in selections])
    distinct, row = np.unique(np.concatenate(selections), return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    held = csr_array((np.ones(len(row), np.int64), row, starts), shape=(len(sizes), len(distinct)))
    common = (held @ held.T).toarray()
    either = sizes[:, None] + sizes[None, :] - common
    return np.where(either > 0, common / np.maximum(either, 1), 1.0)


def rank_biased(selections: Sequence[Ids]) -> Array:
    """(k, k) float64: rank-biased overlap of each two selections, 0 to 1, in pick order; 1 for two that are empty.

    Extrapolated RBO to the length of the shorter one (Webber, Moffat and Zobel 2010, equation 30), with the persistence
    that looks at a tenth of it on average: 1 - 10 / length, at least 0.5.

    Cost: sorts each pair.
    """
    _, codes = np.unique(np.concatenate(selections), return_inverse=True)
    lists = np.split(codes, np.cumsum([len(ids) for ids in selections])[:-1])
    values = np.ones((len(lists), len(lists)))
    for i, a in enumerate(lists):
        for j in range(i):
            values[i, j] = values[j, i] = _rank_biased(a, lists[j])
    return values


def _rank_biased(a: Rows, b: Rows) -> float:
    length = min(len(a), len(b))
    if not length:
        return float(len(a) == len(b))
    persistence = max(1 - 10 / length, 0.5)
    _, rank_a, rank_b = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    both = np.maximum(rank_a, rank_b)  # the rank from which on both lists have the row
    common = np.cumsum(np.bincount(both[both < length], minlength=length))
    depth = np.arange(1, length + 1)
    weights = persistence**depth
    agreement = common / depth
    return float(agreement[-1] * weights[-1] + (1 - persistence) / persistence * (agreement * weights).sum())


def mean_over_draws(pairs: Array, owners: Sequence[int], count: int) -> list[list[float | None]]:
    """(count, count) the mean over the draws of each two owners; of an owner with itself, over different draws.

    Args:
        pairs: (k, k).
        owners: (k,) whose a draw is.

    Returns:
        None where an owner has one draw alone: 0..count - 1, in rows and columns.
    """
    owner = np.asarray(owners)
    means: list[list[float | None]] = []
    for a in range(count):
        line: list[float | None] = []
        for b in range(count):
            block = pairs[np.ix_(owner == a, owner == b)]
            if a == b:
                block = block[~np.eye(len(block), dtype=bool)]
            line.append(round(float(block.mean()), 4) if block.size else None)
        means.append(line)
    return means
