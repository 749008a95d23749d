"""Values by row: arrays in memory or memory-mapped, and the lazy restriction to a subpool. Kernels and `vectors` stand on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from selection.errors import InvalidInput
from selection.types import Array, Doubles, Floats, Points, RowBlocks, Rows, Vectors

BLOCK_ROWS = 8192

# A subpool of at least this share of the rows streams the parent's blocks in storage order; a smaller one takes its
# rows one by one, which reads less.
STREAM_SHARE = 0.25


def chunks(rows: Rows, size: int) -> Iterator[Rows]:
    """The rows in runs of at most `size`."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def writable(array: Array) -> Array:
    """The array, or a copy if it cannot be written to, as what another process sent: each kind is compiled for."""
    return np.require(array, requirements="W")


class ArrayBlocks:
    """An array with one entry a row, read in blocks; nothing is copied, and what it gives cannot be written to.

    Args:
        array: (n, ...), in memory or memory-mapped.
        block_rows: rows in a block.
    """

    device = "cpu"

    def __init__(self, array: Array, *, block_rows: int = BLOCK_ROWS) -> None:
        self.array = array.view()
        self.array.flags.writeable = False
        self.block_rows = block_rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return self.array.shape

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in row order."""
        for start in range(0, len(self.array), self.block_rows):
            block = self.array[start : start + self.block_rows]
            yield np.arange(start, start + len(block), dtype=np.int64), block

    def take(self, rows: Rows) -> Array:
        """The entries of `rows`, copied."""
        # Of an array that is not contiguous, `take` would copy all first.
        return np.asarray(self.array.take(rows, axis=0) if self.array.flags.c_contiguous else self.array[rows])


class SourceVectors:
    """Shape, blocks and rows of other vectors; the base of classes that add to them.

    Args:
        source: (n, d) the other vectors.
    """

    def __init__(self, source: Points) -> None:
        self.source = source

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.source.shape

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """The source's."""
        return self.source.blocks()

    def take(self, rows: Rows) -> Array:
        """The source's."""
        return self.source.take(rows)


class SubBlocks:
    """Some rows of a `RowBlocks`, in a frame of their own; only these rows are ever asked for.

    Args:
        parent: what is restricted.
        rows: ascending, unique; row i here is row `rows[i]` of the parent.
    """

    def __init__(self, parent: RowBlocks, rows: Rows) -> None:
        self.parent = parent
        self.rows = rows

    @property
    def shape(self) -> tuple[int, ...]:
        """(len(rows), ...)."""
        return (len(self.rows), *self.parent.shape[1:])

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in row order, taken from the parent block by block."""
        for start in range(0, len(self.rows), BLOCK_ROWS):
            part = self.rows[start : start + BLOCK_ROWS]
            yield np.arange(start, start + len(part), dtype=np.int64), self.parent.take(part)

    def take(self, rows: Rows) -> Array:
        """The entries of `rows` of this frame."""
        return self.parent.take(self.rows[rows])

    def restricted(self, rows: Rows) -> Any:
        """Some of these rows: a restriction of a restriction is one restriction."""
        return restricted(self.parent, self.rows[rows])


class SubVectors(SubBlocks):
    """Some rows of `Vectors`, in a frame of their own."""

    parent: Vectors

    @property
    def device(self) -> str:
        """The parent's."""
        return self.parent.device

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)`: in storage order for a large share of the parent, else as taken."""
        if len(self.rows) < STREAM_SHARE * self.parent.shape[0]:
            yield from super().blocks()
            return
        row_of = np.full(self.parent.shape[0], -1, np.int64)
        row_of[self.rows] = np.arange(len(self.rows))
        for parent_rows, block in self.parent.blocks():
            rows = row_of[parent_rows]
            kept = rows >= 0
            if kept.all():
                yield rows, block
            elif kept.any():
                yield rows[kept], block[kept]

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The parent's search among these rows. See `Vectors.nearest`."""
        within = self.rows if within is None else self.rows[within]
        try:
            similarity, neighbors = self.parent.nearest(queries, k, within=within)
        except InvalidInput as error:
            if error.row is None:
                raise
            # The row of this frame, as in all else that a subpool says of its rows.
            raise InvalidInput(error.template, row=int(np.searchsorted(self.rows, error.row))) from error
        if not len(self.rows):
            return similarity, neighbors
        return similarity, np.where(neighbors < 0, -1, np.searchsorted(self.rows, neighbors)).astype(np.int64)


def restricted(values: RowBlocks, rows: Rows) -> Any:
    """`values` of some rows, lazily; by a method `restricted` of theirs, where they have one."""
    if hasattr(values, "restricted"):
        return values.restricted(rows)
    return SubVectors(values, rows) if isinstance(values, Vectors) else SubBlocks(values, rows)


def directions(vectors: Points, rows: Rows) -> Doubles:
    """(b, d) float64 vectors of some rows at unit length; a zero vector stays.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    X = np.asarray(vectors.take(rows), np.float64)
    length = np.sqrt((X**2).sum(axis=1))
    check_finite(length[:, None], rows)
    return np.asarray(X / np.where(length > 0, length, 1.0)[:, None])


def check_finite(values: Array, rows: Rows) -> None:
    """Raise `InvalidInput` for the first of some rows that has a value (b, any) that is not finite."""
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InvalidInput("vectors: row {row} holds a value that is not finite", row=int(rows[bad[0]]))
