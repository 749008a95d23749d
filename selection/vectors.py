"""Values by row: arrays in memory or memory-mapped, and the lazy restriction to a subpool."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from selection.errors import InvalidInput, rows_of_parent
from selection.types import Array, Floats, RowBlocks, Rows, Vectors

BLOCK_ROWS = 8192

# A subpool of at least this share of the rows streams the parent's blocks in storage order; a smaller one takes its
# rows one by one, which reads less.
STREAM_SHARE = 0.25


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


class ArrayVectors(ArrayBlocks):
    """Vectors in an array: (n, d) float16 or float32, in memory or memory-mapped.

    >>> v = ArrayVectors(np.array([[1, 0], [0.6, 0.8]], np.float32))
    >>> v.nearest(np.array([[0, 1]], np.float32), 1)
    (array([[0.8]], dtype=float32), array([[1]]))
    """

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """Exact; ties to the lowest row. See `Vectors.nearest`."""
        return nearest_rows(self, queries, k, within)


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
        here = np.full(self.parent.shape[0], -1, np.int64)
        here[self.rows] = np.arange(len(self.rows))
        for parent_rows, block in self.parent.blocks():
            rows = here[parent_rows]
            kept = rows >= 0
            if kept.all():
                yield rows, block
            elif kept.any():
                yield rows[kept], block[kept]

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The parent's search among these rows. See `Vectors.nearest`."""
        within = self.rows if within is None else self.rows[within]
        try:
            similarity, found = self.parent.nearest(queries, k, within=within)
        except InvalidInput as error:
            if error.row is None:
                raise
            # Named in this frame, as all else that a subpool says of its rows.
            raise InvalidInput(error.template, row=int(np.searchsorted(self.rows, error.row))) from error
        if not len(self.rows):
            return similarity, found
        there = np.searchsorted(self.rows, found)
        return similarity, np.where(found < 0, -1, there).astype(np.int64)


class ExactVectors:
    """Vectors without the index that they may have: `nearest` compares every row."""

    def __init__(self, parent: Vectors) -> None:
        self.parent = parent

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, d)."""
        return self.parent.shape

    @property
    def device(self) -> str:
        """The parent's."""
        return self.parent.device

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """The parent's."""
        return self.parent.blocks()

    def take(self, rows: Rows) -> Array:
        """The parent's."""
        return self.parent.take(rows)

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """Exact; ties to the lowest row. See `Vectors.nearest`."""
        return nearest_rows(self.parent, queries, k, within)


class TensorVectors:
    """Vectors of which a device holds a copy: kernels with a body there use it, all others read the source on the host.

    Args:
        source: (n, d) the vectors.
        device: as torch names it: "cuda:0"; "cpu" runs the same bodies on the host.
        copy, rows: of a restriction: the copy that it shares, and which rows of it these are.

    Memory on the device: the vectors as stored, from when a kernel first asks for them, and 16 bytes a row.

    >>> v = TensorVectors(ArrayVectors(np.array([[1, 0], [0.6, 0.8]], np.float32)), "cpu")
    >>> v.nearest(np.array([[0, 1]], np.float32), 1)
    (array([[0.8]], dtype=float32), array([[1]]))
    """

    def __init__(
        self, source: Vectors, device: str, *, copy: _DeviceCopy | None = None, rows: Rows | None = None
    ) -> None:
        self.source, self.device, self.rows = source, device, rows
        self.copy = copy or _DeviceCopy(source, device)

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

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The source's where that is an index; else exact, on the device. See `Vectors.nearest`."""
        if isinstance(self.source, ArrayVectors | ExactVectors):
            return nearest_rows(self, queries, k, within)
        return self.source.nearest(queries, k, within)

    def part(self, rows: Any) -> Any:
        """(r, d) tensor on the device, as stored, of a slice of the rows or of those that an int64 tensor names."""
        return self.copy.tensor[rows if self._on_device is None else self._on_device[rows]]

    def squares(self) -> Any:
        """(n,) float64 tensor of squared lengths, summed in the order of `kernels.sums.dot`; not finite where a vector is not."""
        return self.copy.squares if self._on_device is None else self.copy.squares[self._on_device]

    def norms(self) -> Any:
        """(n,) float64 tensor of lengths, to the bit those of the compiled loops."""
        return self.copy.norms if self._on_device is None else self._norms

    @cached_property
    def _norms(self) -> Any:
        return self.copy.norms[self._on_device]

    def restricted(self, rows: Rows) -> TensorVectors:
        """Some rows in a frame of their own, over the same copy."""
        inner = rows if self.rows is None else self.rows[rows]
        source = restricted(self.source, rows)
        if isinstance(self.source, ArrayVectors):
            source = ExactVectors(source)  # as it was, so that it is still searched on the device
        return TensorVectors(source, self.device, copy=self.copy, rows=inner)

    def exact(self) -> TensorVectors:
        """The same, whose `nearest` is exact."""
        return TensorVectors(exact(self.source), self.device, copy=self.copy, rows=self.rows)

    @cached_property
    def _on_device(self) -> Any:
        import torch

        return None if self.rows is None else torch.tensor(self.rows, device=self.device)


class _DeviceCopy:
    """What a device holds of some vectors; made when it is first asked for."""

    def __init__(self, source: Vectors, device: str) -> None:
        self.source, self.device = source, device

    @cached_property
    def tensor(self) -> Any:
        """(n, d) float16 or float32."""
        import torch

        half = self.source.take(np.empty(0, np.int64)).dtype == np.float16
        kind = np.float16 if half else np.float32
        tensor = torch.empty(self.source.shape, dtype=torch.float16 if half else torch.float32, device=self.device)
        for rows, block in self.source.blocks():
            tensor[torch.tensor(rows, device=self.device)] = torch.tensor(np.asarray(block, kind), device=self.device)
        return tensor

    @cached_property
    def squares(self) -> Any:
        """(n,) float64."""
        from selection.kernels.device.tensor import squares

        return squares(self.tensor)

    @cached_property
    def norms(self) -> Any:
        """(n,) float64; roots are numpy's, since torch's need not be the nearest float64."""
        import torch

        return torch.tensor(np.sqrt(self.squares.cpu().numpy()), device=self.device)


def on_gpu(vectors: Vectors, *, least: int = 2**26, share: float = 0.5) -> Vectors:
    """The vectors with a copy on the CUDA card for the kernels that have a body there; as they are without a card.

    Args:
        least: fewer numbers than this stay: a step over them takes no longer than torch does to load.
        share: of the card's free memory that the copy may take; the rest is for the kernels.

    Whatever the answer, steps choose the same rows. torch is imported only where a driver is.
    """
    n, d = vectors.shape
    if n * d < least or not any(Path(node).exists() for node in ("/dev/nvidiactl", "/dev/dxg")):
        return vectors
    import torch

    size_bytes = n * d * vectors.take(np.empty(0, np.int64)).dtype.itemsize
    if not torch.cuda.is_available() or size_bytes > share * torch.cuda.mem_get_info()[0]:
        return vectors
    return TensorVectors(vectors, f"cuda:{torch.cuda.current_device()}")


def exact(vectors: Vectors) -> Vectors:
    """The same vectors, whose `nearest` is exact."""
    if isinstance(vectors, TensorVectors):
        return vectors.exact()
    return vectors if isinstance(vectors, ArrayVectors | ExactVectors) else ExactVectors(vectors)


def nearest_rows(vectors: Vectors, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
    """What `Vectors.nearest` gives, exactly: by one pass over the blocks, or over the rows of a small `within`.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    from selection.kernels.top_k import top_k

    skip = None
    if within is not None:
        if len(within) < STREAM_SHARE * vectors.shape[0]:
            rows = np.unique(np.asarray(within, np.int64))
            with rows_of_parent(rows):
                found = top_k(restricted(vectors, rows), queries, depth=k)
            row = np.where(found.row < 0, -1, rows[found.row]) if len(rows) else found.row
            return found.score.astype(np.float32), row
        skip = np.ones(vectors.shape[0], bool)
        skip[within] = False
    found = top_k(vectors, queries, depth=k, skip=skip)
    return found.score.astype(np.float32), found.row


def restricted(values: RowBlocks, rows: Rows) -> Any:
    """`values` of some rows, lazily; a restriction of a restriction is one restriction."""
    if isinstance(values, TensorVectors):
        return values.restricted(rows)
    if isinstance(values, ExactVectors):
        return ExactVectors(restricted(values.parent, rows))
    if isinstance(values, SubBlocks):
        return restricted(values.parent, values.rows[rows])
    return SubVectors(values, rows) if isinstance(values, Vectors) else SubBlocks(values, rows)
