"""The body of `duplicates` for vectors on a card (see `tensor`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from selection.kernels.device.tensor import full_float32, slices, to_device, unit_rows
from selection.kernels.duplicates import Pairs, blocks
from selection.types import Rows
from selection.vectors import TensorVectors


def pairs_above(vectors: TensorVectors, rows: Rows, low: np.float32, counts: npt.NDArray[np.bool_]) -> Iterator[Pairs]:
    """As `duplicates._pairs_above` of some rows.

    Memory on the device: 40 bytes for each pair of a block, a few tiles.
    """
    import torch

    there = to_device(rows, vectors)
    for first, last in blocks(len(rows)):
        block = unit_rows(vectors, there[first:last])
        with full_float32():
            parts = [block @ unit_rows(vectors, there[at]).T for at in slices(last, vectors.shape[1])]
        coarse = torch.cat(parts, dim=1)
        near = ((coarse > float(low)) & to_device(counts[:last], vectors)).tril(first - 1)
        starts = np.concatenate([[0], near.sum(dim=1).cumsum(0).cpu().numpy()])
        earlier = near.nonzero()[:, 1].int()
        yield first, starts, earlier.cpu().numpy(), coarse[near].cpu().numpy()
