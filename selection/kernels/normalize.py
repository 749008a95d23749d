"""Vectors scaled to unit length, so that inner products are cosines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from selection.kernels.compiled.assign import divide, norms
from selection.kernels.device.normalize import UnitDeviceVectors
from selection.kernels.float16 import as_float32
from selection.kernels.threads import Threads
from selection.types import Array, DeviceVectors, Doubles, Floats, PartedVectors, Points, R, Rows

# Rows that one thread works on before it takes more: they stay in its cache meanwhile.
ROWS_AT_ONCE = 256


class UnitVectors:
    """The same vectors at unit length, each component rounded to float32; a zero vector stays.

    Args:
        vectors: (n, d) float16 or float32; nothing is copied until it is asked for.
    """

    def __init__(self, vectors: Points) -> None:
        self.vectors = vectors
        self.shape = vectors.shape
        self.device = vectors.device

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in storage order."""
        for rows, block in self.vectors.blocks():
            yield rows, unit_rows(block)

    def take(self, rows: Rows) -> Array:
        """(rows, d) float32."""
        return unit_rows(self.vectors.take(rows))


class UnitParts(UnitVectors):
    """The same vectors at unit length, in the processes that read them (`PartedVectors`)."""

    vectors: PartedVectors

    def map_parts(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None] = lambda _: ()
    ) -> Iterator[tuple[Rows, R]]:
        """See `PartedVectors.map_parts`."""
        return self.vectors.map_parts(partial(_on_unit, work), arguments)


def _on_unit(work: Callable[..., R], points: Points, *arguments: Any) -> R:
    return work(UnitVectors(points), *arguments)


def unit_vectors(vectors: Points) -> Points:
    """The same vectors at unit length; where a device or other processes have them, if they do."""
    if isinstance(vectors, PartedVectors):
        return UnitParts(vectors)
    unit = UnitVectors(vectors)
    return UnitDeviceVectors(unit, vectors) if isinstance(vectors, DeviceVectors) else unit


def unit_rows(values: Array, length: Doubles | None = None) -> Floats:
    """(r, d) float32: the rows divided by their lengths; a zero row stays.

    Args:
        values: (r, d) float16 or float32.
        length: (r,) float64, where it is known.

    Memory: the result, and ROWS_AT_ONCE rows in float32 for each thread.
    """
    out = np.empty(values.shape, np.float32)

    def task(start: int, stop: int) -> None:
        xs = as_float32(values[start:stop]).view()
        xs.flags.writeable = False  # always, since loops are compiled once for each kind
        divide(xs, norms(xs) if length is None else length[start:stop], out[start:stop])

    Threads().run(task, len(out), ROWS_AT_ONCE)
    return out
