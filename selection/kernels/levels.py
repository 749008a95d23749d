"""Rows by descending bound, where bounds fall again and again: the largest are found without a look at all of them."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import levels as loops
from selection.types import Array, Rows


class Levels:
    """Rows in levels of about equal bounds, from high to low.

    A row that is taken out has to be put back when its bound is known again. Bounds never rise.

    Args:
        state: (n,) of `compiled.nearest.ROW`, whose bounds are read; rows of -inf are left out.

    Cost: a few operations for each row that is taken out or put back. Memory: 5 n bytes and half a MiB, 8 n more to
    begin with.
    """

    def __init__(self, state: Array) -> None:
        self.bound = state["bound"]
        self.keys = self.bound.view(np.int64)
        levels = loops.LAST + 1
        pieces = len(state) // loops.PIECE + min(levels, len(state))
        self.arrays = (
            np.full(levels, -1, np.int32),
            np.zeros(levels, np.int32),
            np.empty((pieces, loops.PIECE), np.int32),
            np.empty(pieces, np.int32),
            np.arange(pieces, dtype=np.int32),
        )
        self.n_free = pieces
        self.level: int = loops.LAST
        self._begin(np.arange(len(state)), 1)

    def put(self, rows: Rows) -> None:
        """Put rows back."""
        level, self.n_free = loops.put(self.keys, rows, self.top, *self.arrays, self.n_free)
        self.level = min(self.level, level)

    def take(self, least: int) -> Rows:
        """Take out at least so many rows, if there are: ascending, all in the highest levels."""
        rows, left = self._take(least)
        if not left and len(rows) > 2 * least:  # most were in the last level
            self._begin(rows, least)
            rows, _ = self._take(least)
        rows.sort()
        return rows

    def _begin(self, rows: Rows, count: int) -> None:
        """Spread all rows there are: about `count` to the first level, others below it."""
        keys = self.keys[rows]
        self.top = int(np.partition(keys, len(keys) - count)[len(keys) - count]) if len(keys) else 0
        self.level = loops.LAST
        self.put(rows)

    def _take(self, least: int) -> tuple[Rows, bool]:
        """Rows, and whether others are left."""
        rows, self.level, left, self.n_free = loops.take(self.level, least, *self.arrays, self.n_free)
        return np.asarray(rows), left
