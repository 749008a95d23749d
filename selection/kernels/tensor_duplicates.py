"""The body of `duplicates` for vectors on a card (see `tensor`)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from selection.kernels.duplicates import Pairs, blocks
from selection.kernels.tensor import full_float32, to_device, unit_rows
from selection.types import Rows
from selection.vectors import TensorVectors


def pairs_above(vectors: TensorVectors, rows: Rows, low: np.float32, counts: npt.NDArray[np.bool_]) -> Iterator[Pairs]:
    """As `duplicates._pairs_above` of some rows.

    Memory on the device: 16*m*d bytes for m rows, and 40 for each pair of a block.
    """
    unit = unit_rows(vectors, to_device(rows, vectors))
    for first, last in blocks(len(rows)):
        with full_float32():
            coarse = unit[first:last] @ unit[:last].T
        near = ((coarse > float(low)) & to_device(counts[:last], vectors)).tril(first - 1)
        starts = np.concatenate([[0], near.sum(dim=1).cumsum(0).cpu().numpy()])
        earlier = near.nonzero()[:, 1].int()
        yield first, starts, earlier.cpu().numpy(), coarse[near].cpu().numpy()
