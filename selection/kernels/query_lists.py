"""The queries of a search, grouped into lists."""

from __future__ import annotations

import numpy as np

from selection.types import Array, Floats, Rows

# Lists are taken this many at a time, so that a tile keeps a useful number of rows however many queries there are.
TILE_QUERIES = 2048


class QueryLists:
    """Queries in float32, grouped into lists, with the largest norm of each list."""

    def __init__(self, queries: Array, starts: Array | None) -> None:
        self.queries: Floats = np.ascontiguousarray(queries, np.float32)
        self.starts: Rows = np.asarray(np.arange(len(queries) + 1) if starts is None else starts, np.int64)
        self.count = len(self.starts) - 1
        norms = np.sqrt((self.queries.astype(np.float64) ** 2).sum(axis=1))
        self.norms = np.array([norms[a:b].max() for a, b in zip(self.starts, self.starts[1:], strict=False)])
        self.parts = self.runs(TILE_QUERIES)

    def runs(self, width: int) -> list[tuple[int, int]]:
        """All lists in order: runs (first, last + 1) of lists with up to `width` queries, or of one list with more."""
        runs: list[tuple[int, int]] = []
        first = 0
        for last in range(1, self.count + 1):
            if last == self.count or self.starts[last + 1] - self.starts[first] > width:
                runs.append((first, last))
                first = last
        return runs
