"""The implementation of `facility_location` for vectors on a device (see `tensor`): similarities, and the bounds that follow from them.

A similarity errs by no more than on the host: the unit vectors are divided in float64 and rounded once, the margin of a
product holds for any order of its sum, and a contracted 0.5 + 0.5 c only rounds less. A bound is the compiled loops':
float32 terms of three roundings each, here summed in float64, which for r references is off by r * 2**-53 of the sum.
The factor that the loops allow for sums of float32 covers both, so that no exact gain is above its bound.

The host picks, so rows come to it with their similarities. A GPU bounds many rows for each that comes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from selection.kernels.compiled.facility_location import SLACK
from selection.kernels.device.normalize import unit_rows
from selection.kernels.device.tensor import Tensor, checked_squares, full_float32, slices, to_device
from selection.types import DeviceVectors, Doubles, Floats, Rows

# Rows whose similarities come to the host at once, and 8 MiB of these.
CHUNK_ROWS = 1024
CHUNK_VALUES = 2**21
# Similarities behind the bounds that are brought up to date before.
BOUND_VALUES = 2**28


def norms_and_hashes(vectors: DeviceVectors) -> tuple[Doubles, Rows]:
    """(n,) lengths, to the bit the host's, and hashes that are equal for equal vectors.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    import torch

    n, d = vectors.shape
    checked_squares(vectors)
    factors = to_device(np.random.default_rng(0).integers(2**62, size=d) * 2 + 1, vectors)
    hashes = np.empty(n, np.int64)
    for at in slices(n, d):
        hashes[at] = (vectors.part(at).float().view(torch.int32) * factors).sum(dim=1).cpu().numpy()
    return vectors.norms().cpu().numpy(), hashes


class Similarities:
    """Of any rows to the references of a `facility_location.Coverage`.

    Args:
        weights: (references,) float32.
        unit: of the integers that bounds are.

    Memory on the device: 4*d bytes a reference, a few tiles.
    """

    def __init__(self, vectors: DeviceVectors, references: Rows, weights: Floats, unit: float) -> None:
        import torch

        self.vectors, self.unit = vectors, unit
        self.unit_refs = torch.empty((len(references), vectors.shape[1]), device=vectors.device)
        device_rows = to_device(references, vectors)
        for at in slices(*self.unit_refs.shape):
            self.unit_refs[at] = unit_rows(vectors, device_rows[at])
        self.weights = to_device(weights, vectors)
        r = max(1, len(references))
        self.chunk = max(1, min(CHUNK_ROWS, CHUNK_VALUES // r))
        self.bounded = max(self.chunk, BOUND_VALUES // r)

    def write(self, rows: Rows, out: Floats) -> None:
        """Write the similarities of some rows to (rows, references) of the host."""
        import torch

        for at, similar in self._tiles(rows):
            torch.from_numpy(out[at]).copy_(similar)

    def bounds(self, rows: Rows, low: Floats) -> Rows:
        """(rows,) no less than the exact gain of each; `low` as the compiled `upper_gain` has it."""
        import torch

        bounds = np.empty(len(rows), np.int64)
        floor = to_device(low, self.vectors)
        for at, similar in self._tiles(rows):
            gain = similar.sub_(floor).clamp_(min=0).mul_(self.weights).sum(dim=1, dtype=torch.float64)
            bounds[at] = (gain * SLACK * self.unit).ceil().long().cpu().numpy()
        return bounds

    def _tiles(self, rows: Rows) -> Iterator[tuple[slice, Tensor]]:
        device_rows = to_device(rows, self.vectors)
        for at in slices(len(rows), *reversed(self.unit_refs.shape)):
            with full_float32():
                cosine = unit_rows(self.vectors, device_rows[at]) @ self.unit_refs.T
            yield at, cosine.add_(1).mul_(0.5)
