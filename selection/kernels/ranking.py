"""The highest of some values."""

from __future__ import annotations

import numpy as np

from selection.types import Array, Rows


def highest(values: Array, count: int) -> Rows:
    """The positions of up to `count` highest values, descending, ties to the lowest position.

    Cost: a partition of the values and a sort of the highest.

    >>> highest(np.array([1.0, 3.0, 1.0, 2.0]), 3)
    array([1, 3, 0])
    """
    last = len(values) - count
    if 0 < last < len(values):
        places = np.flatnonzero(values >= np.partition(values, last)[last])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")[:count]].astype(np.int64)
