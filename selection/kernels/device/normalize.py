"""The implementation of `normalize` for vectors on a device (see `tensor`)."""

from __future__ import annotations

from typing import Any

from selection.kernels.device.tensor import DeviceCopy, Tensor
from selection.types import DeviceVectors, Points


def unit_rows(vectors: DeviceVectors, rows: Any) -> Tensor:
    """(r, d) float32, to the bit as `normalize.unit_rows`: a slice of the rows, or those that an int64 tensor names, at unit length.

    Memory: 16*d bytes a row, of which 4*d are the result.
    """
    length = vectors.norms()[rows, None]
    return (vectors.part(rows).double() / length.where(length > 0, 1.0)).float()


class UnitDeviceVectors(DeviceCopy):
    """`DeviceVectors` at unit length, made of those rows that are asked for.

    Args:
        source: (n, d) the vectors at unit length on the host.
        vectors: the vectors as they are.
    """

    def __init__(self, source: Points, vectors: DeviceVectors) -> None:
        super().__init__(source, vectors.device)
        self.vectors = vectors

    def part(self, rows: Any) -> Tensor:
        """(r, d) float32, as `unit_rows`."""
        return unit_rows(self.vectors, rows)
