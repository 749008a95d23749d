"""The vectors of a pool: in arrays, compared without an index, or copied to a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selection.blocks import STREAM_SHARE, ArrayBlocks, SourceVectors, SubVectors, restricted
from selection.errors import rows_of_parent
from selection.types import Array, Floats, PartMap, Points, R, Rows, Vectors

if TYPE_CHECKING:
    from selection.kernels.device.tensor import DeviceCopy


class ArrayVectors(ArrayBlocks):
    """Vectors in an array: (n, d) float16 or float32, in memory or memory-mapped.

    >>> v = ArrayVectors(np.array([[1, 0], [0.6, 0.8]], np.float32))
    >>> v.nearest(np.array([[0, 1]], np.float32), 1)
    (array([[0.8]], dtype=float32), array([[1]]))
    """

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """Exact; ties to the lowest row. See `Vectors.nearest`."""
        return nearest_rows(self, queries, k, within)


class ExactVectors(SourceVectors):
    """Vectors without the index that they may have: `nearest` compares every row."""

    source: Vectors

    @property
    def device(self) -> str:
        """The source's."""
        return self.source.device

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """Exact; ties to the lowest row. See `Vectors.nearest`."""
        return nearest_rows(self.source, queries, k, within)

    def restricted(self, rows: Rows) -> ExactVectors:
        """Some rows in a frame of their own, without the index too."""
        return ExactVectors(restricted(self.source, rows))


class TensorVectors(SourceVectors):
    """Vectors of which a device holds a copy (`DeviceVectors`): kernels implemented for devices use it, others read the source.

    Args:
        source: (n, d) the vectors.
        device: as torch names it: "cuda:0"; "cpu" runs the same implementations on the host.
        copy, rows: of a restriction: the copy that it shares, and which rows of it these are.

    Memory on the device: the vectors as stored, from when a kernel first asks for them, and 16 bytes a row.

    >>> v = TensorVectors(ArrayVectors(np.array([[1, 0], [0.6, 0.8]], np.float32)), "cpu")
    >>> v.nearest(np.array([[0, 1]], np.float32), 1)
    (array([[0.8]], dtype=float32), array([[1]]))
    """

    source: Vectors

    def __init__(
        self, source: Vectors, device: str, *, copy: DeviceCopy | None = None, rows: Rows | None = None
    ) -> None:
        from selection.kernels.device.tensor import DeviceCopy

        super().__init__(source)
        self.device, self.rows = device, rows
        self.copy = copy or DeviceCopy(source, device)

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The source's where that is an index; else exact, on the device. See `Vectors.nearest`."""
        if isinstance(self.source, ArrayVectors | ExactVectors):
            return nearest_rows(self, queries, k, within)
        return self.source.nearest(queries, k, within)

    def part(self, rows: Any) -> Any:
        """See `DeviceVectors.part`."""
        return self.copy.part(rows if self._on_device is None else self._on_device[rows])

    def squares(self) -> Any:
        """See `DeviceVectors.squares`."""
        return self.copy.squares() if self._on_device is None else self.copy.squares()[self._on_device]

    def norms(self) -> Any:
        """See `DeviceVectors.norms`."""
        return self.copy.norms() if self._on_device is None else self._norms

    @cached_property
    def _norms(self) -> Any:
        return self.copy.norms()[self._on_device]

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


class VectorsInParts(SourceVectors):
    """Vectors that other processes can read (`PartedVectors`, `GroupedVectors`): some kernels let these do the work, others
    read the source.

    Args:
        source: (n, d) the vectors.
        part_map: where they are read.
        rows: of a restriction: which rows of the part map these are.
    """

    source: Vectors
    device = "cpu"

    def __init__(self, source: Vectors, part_map: PartMap, rows: Rows | None = None) -> None:
        super().__init__(source)
        self.part_map, self.rows = part_map, rows

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The source's where that is an index; else exact, of all parts. See `Vectors.nearest`."""
        if isinstance(self.source, ArrayVectors | ExactVectors):
            return nearest_rows(self, queries, k, within)
        return self.source.nearest(queries, k, within)

    def map_parts(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None] = lambda _: ()
    ) -> Iterator[tuple[Rows, R]]:
        """See `PartedVectors.map_parts`."""
        if self.rows is None:
            yield from self.part_map(work, arguments)
            return
        own = self.rows

        def of_part(rows: Rows) -> tuple[Any, ...] | None:
            kept, places = _common(rows, own)
            known = arguments(places) if len(kept) else None
            return None if known is None else (kept, *known)

        for rows, result in self.part_map(partial(_on_kept, work), of_part):
            yield _common(rows, own)[1], result

    def map_groups(
        self, work: Callable[..., R], groups: Sequence[Rows], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[R]:
        """See `GroupedVectors.map_groups`."""
        own = self.rows
        return self.part_map.groups(work, groups if own is None else [own[rows] for rows in groups], arguments)

    def restricted(self, rows: Rows) -> VectorsInParts:
        """Some rows in a frame of their own."""
        inner = rows if self.rows is None else self.rows[rows]
        return VectorsInParts(restricted(self.source, rows), self.part_map, inner)

    def exact(self) -> VectorsInParts:
        """The same, whose `nearest` is exact."""
        return VectorsInParts(exact(self.source), self.part_map, self.rows)


def _common(rows: Rows, among: Rows) -> tuple[Rows, Rows]:
    """The places in both of what stands in both; each is ascending."""
    places = np.searchsorted(among, rows)
    kept = np.flatnonzero(places < len(among))
    kept = kept[among[places[kept]] == rows[kept]]
    return kept, places[kept]


def _on_kept(work: Callable[..., R], points: Points, kept: Rows, *arguments: Any) -> R:
    """Work on some rows of a part."""
    return work(points if len(kept) == points.shape[0] else SubVectors(points, kept), *arguments)


def on_gpu(vectors: Vectors, *, least: int = 2**26, share: float = 0.5) -> Vectors:
    """The vectors with a copy on the GPU for the kernels that are implemented there; as they are without a GPU.

    Args:
        least: fewer numbers than this stay: a step over them takes no longer than torch does to load.
        share: of the GPU's free memory that the copy may take; the rest is for the kernels.

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
    if isinstance(vectors, TensorVectors | VectorsInParts):
        return vectors.exact()
    return vectors if isinstance(vectors, ArrayVectors | ExactVectors) else ExactVectors(vectors)


def is_exact(vectors: Vectors) -> bool:
    """Whether `nearest` compares every row."""
    source = vectors.source if isinstance(vectors, TensorVectors | VectorsInParts) else vectors
    return isinstance(source, ArrayVectors | ExactVectors)


def nearest_rows(vectors: Points, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
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
                top = top_k(restricted(vectors, rows), queries, depth=k)
            row = np.where(top.row < 0, -1, rows[top.row]) if len(rows) else top.row
            return top.score.astype(np.float32), row
        skip = np.ones(vectors.shape[0], bool)
        skip[within] = False
    top = top_k(vectors, queries, depth=k, skip=skip)
    return top.score.astype(np.float32), top.row
