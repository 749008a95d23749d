"""Vectors scaled to unit length, so that inner products are cosines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selection.kernels.assign_loops import norms
from selection.types import Array, Floats, Rows, Vectors
from selection.vectors import nearest_rows


class UnitVectors:
    """The same vectors at unit length, each component rounded to float32; a zero vector stays.

    Args:
        vectors: (n, d) float16 or float32; nothing is copied until it is asked for.
    """

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.shape = vectors.shape
        self.device = vectors.device

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in storage order."""
        for rows, block in self.vectors.blocks():
            yield rows, _unit(block)

    def take(self, rows: Rows) -> Array:
        """(rows, d) float32."""
        return _unit(self.vectors.take(rows))

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """Exact; ties to the lowest row. See `Vectors.nearest`."""
        return nearest_rows(self, queries, k, within)


def _unit(block: Array) -> Floats:
    xs = np.ascontiguousarray(block, np.float32)
    length = norms(xs)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which `tiles` refuses by its row
        return np.asarray(xs / np.where(length > 0, length, 1.0)[:, None], np.float32)
