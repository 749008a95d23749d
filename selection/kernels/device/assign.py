"""The implementation of `assign` for vectors on a device (see `tensor`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from selection.kernels.compiled.margin import LARGEST_SIZE, product_margin
from selection.kernels.device.tensor import (
    Tensor,
    checked_squares,
    dots,
    full_float32,
    pairs_at_once,
    slices,
    square_distances,
    to_device,
)
from selection.types import DeviceVectors, Doubles, Floats, Rows


def assign(
    vectors: DeviceVectors,
    centres: Floats,
    c_norms: Doubles,
    near: tuple[Doubles, Rows] | None,
    similar: tuple[Doubles, Rows],
) -> None:
    """Find the nearest and the most similar centre of every row, as the compiled `nearest` and `most_similar`.

    Args:
        near: (n,) distances and (n,) places of the nearest centres, written to.
        similar: (n,) cosines and (n,) places of the most similar centres, written to.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Memory on the device: 40 bytes for each product of a tile.
    """
    import torch

    n, d = vectors.shape
    # Roots are numpy's: torch's need not be the nearest float64.
    x_norms = to_device(np.sqrt(checked_squares(vectors).cpu().numpy()), vectors)
    if not n:
        return
    C, c_norm = to_device(centres, vectors), to_device(c_norms, vectors)
    largest = float(c_norm.max())
    in_range = float(x_norms.max()) * largest < LARGEST_SIZE and _smallest(x_norms) * _smallest(c_norm) > 2.0**-60
    margin = product_margin(d) if in_range else np.inf
    for at in slices(n, d, len(C)):
        X, x_norm = vectors.part(at), x_norms[at, None]
        with full_float32():
            coarse = (X.float() @ C.T).double()
        if near is not None:
            half_square = 0.5 * c_norm * c_norm - coarse
            slack = 2 * margin * x_norm * largest + 1e-14 * (largest * largest + x_norm * largest)
            row, centre = (~(half_square > half_square.amin(dim=1, keepdim=True) + slack)).nonzero(as_tuple=True)
            square = _of_pairs(square_distances, X, row, C, centre)
            value, place = _lowest(square, row, centre, len(X))
            near[0][at], near[1][at] = np.sqrt(value.cpu().numpy()), place.cpu().numpy()
        directed = (c_norm > 0) & (x_norm > 0)
        cosine = torch.where(directed, coarse / c_norm, -torch.inf)
        floor = cosine.amax(dim=1, keepdim=True) - (2 * margin + 1e-14) * x_norm
        row, centre = (directed & ~(cosine < floor)).nonzero(as_tuple=True)
        exact = _of_pairs(dots, X, row, C, centre) / (x_norms[at][row] * c_norm[centre])
        value, place = _lowest(-exact, row, centre, len(X))
        similar[0][at] = torch.where(place >= 0, (-value).clamp(-1.0, 1.0), 0.0).cpu().numpy()
        similar[1][at] = place.cpu().numpy()


def _smallest(norms: Tensor) -> float:
    """The smallest that is not 0; 1 where all are."""
    positive = norms[norms > 0]
    return float(positive.min()) if len(positive) else 1.0


def _of_pairs(measure: Callable[[Tensor, Tensor], Tensor], X: Tensor, row: Tensor, C: Tensor, centre: Tensor) -> Tensor:
    """(pairs,) float64 of rows of X and of C, some at a time."""
    import torch

    size = pairs_at_once(X.shape[1])
    parts = zip(row.split(size), centre.split(size), strict=True)
    return torch.cat([measure(X[r], C[c]) for r, c in parts])


def _lowest(value: Tensor, row: Tensor, centre: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(count,) the lowest value of each row and the first centre that has it; inf and -1 where there is none."""
    import torch

    lowest = torch.full((count,), torch.inf, dtype=torch.float64, device=value.device)
    lowest.scatter_reduce_(0, row, value, "amin")
    has = value == lowest[row]
    none = torch.iinfo(torch.int64).max
    place = torch.full((count,), none, device=value.device)
    place.scatter_reduce_(0, row[has], centre[has], "amin")
    return lowest, torch.where(place == none, -1, place)
