"""The implementation of `duplicates` for vectors on a device (see `tensor`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from selection.kernels.compiled.duplicates import Pairs
from selection.kernels.device.normalize import unit_rows
from selection.kernels.device.tensor import full_float32, slices, to_device
from selection.types import DeviceVectors, Mask, Rows


def pairs_above(
    vectors: DeviceVectors, rows: Rows, blocks: Iterable[tuple[int, int]], low: np.float32, counts: Mask
) -> Iterator[Pairs]:
    """Yield, for each block of `rows`, the pairs of a row and one before it that counts by then, of a cosine above `low`.

    Memory on the device: 40 bytes for each pair of a block, a few tiles.
    """
    import torch

    device_rows = to_device(rows, vectors)
    for first, last in blocks:
        block = unit_rows(vectors, device_rows[first:last])
        with full_float32():
            parts = [block @ unit_rows(vectors, device_rows[at]).T for at in slices(last, vectors.shape[1])]
        coarse = torch.cat(parts, dim=1)
        near = ((coarse > float(low)) & to_device(counts[:last], vectors)).tril(first - 1)
        starts = np.concatenate([[0], near.sum(dim=1).cumsum(0).cpu().numpy()])
        earlier = near.nonzero()[:, 1].int()
        yield first, starts, earlier.cpu().numpy(), coarse[near].cpu().numpy()
