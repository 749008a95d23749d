"""How good a classifier is on labels that it did not learn from."""

from __future__ import annotations

from typing import Any

import numpy as np

from selection.errors import InvalidInput


def roc_auc(scores: Any, positive: Any) -> float:
    """The area under the ROC curve: how often a positive row scores higher than another, equal scores counting half.

    Args:
        scores: (n,) numbers, higher = rather positive.
        positive: (n,) bool, both kinds present.

    Raises:
        InvalidInput: all rows are of one kind, or the lengths differ.

    Cost: a sort. Source: Hanley and McNeil 1982; the statistic of Mann and Whitney.

    >>> roc_auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True])
    0.875
    """
    values, is_positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    count = int(is_positive.sum())
    others = len(is_positive) - count
    if values.shape != is_positive.shape or not (count and others):
        raise InvalidInput(f"roc_auc: needs a score a row, and rows of both kinds, got {count} positive, {others} not")
    _, value, sizes = np.unique(values, return_inverse=True, return_counts=True)
    rank = np.cumsum(sizes) - (sizes - 1) / 2  # of equal scores the mean
    return float((rank[value][is_positive].sum() - count * (count + 1) / 2) / (count * others))
