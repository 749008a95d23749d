"""What the kernels' bodies for a card share. They are written in torch and dispatched to by `TensorVectors`.

A body decides as the compiled one does: a float32 product filters, with the margin g |q| |x|, g = d u / (1 - d u), u = 2**-24,
that holds for any order of summation (Higham 2002, section 3.1) and so for any tiling of a matrix product on any device; what
it leaves open is worked out in float64, by the same sums in the same order, which IEEE arithmetic gives everywhere. TF32,
which rounds what it multiplies, is off meanwhile. So a card picks the rows that the host picks, ties included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from selection.errors import InvalidInput
from selection.kernels.compiled.sums import LANES
from selection.types import Array
from selection.vectors import TensorVectors

# torch is imported by functions only, so its types have no name here.
Tensor = Any

# Values of one tile: 64 MiB of float32 products or vectors, which keeps a card busy.
TILE_VALUES = 2**24


@contextmanager
def full_float32() -> Iterator[None]:
    """Products of float32 are those of float32: neither TF32 nor bfloat16 stands in for it."""
    import torch

    cuda: Any = torch.backends.cuda.matmul
    changes: list[tuple[Any, str, Any]] = []
    try:
        if cuda.allow_tf32:
            changes.append((cuda, "allow_tf32", False))
    except RuntimeError:  # this process uses the newer setting, and torch does not let the two be mixed
        changes.append((cuda, "fp32_precision", "ieee"))
    cpu: Any = getattr(torch.backends.mkldnn, "matmul", None)
    if cpu is not None and cpu.fp32_precision not in ("ieee", "none"):
        changes.append((cpu, "fp32_precision", "ieee"))
    before = [getattr(backend, name) for backend, name, _ in changes]
    try:
        for change in changes:
            setattr(*change)
        yield
    finally:
        for (backend, name, _), value in zip(changes, before, strict=True):
            setattr(backend, name, value)


def to_device(array: Array, vectors: TensorVectors) -> Tensor:
    """A copy of an array beside the vectors."""
    import torch

    return torch.tensor(array, device=vectors.device)


def slices(n: int, d: int, columns: int = 1) -> Iterator[slice]:
    """Of 0 .. n-1, so that neither vectors of d dimensions nor products with so many columns exceed a tile."""
    size = max(1, TILE_VALUES // max(1, d, columns))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def product_margin(d: int, q_norm: Any, x_norm: float) -> Any:
    """How far a float32 product may be off: for norms of queries (float64, array or tensor) and the largest of a row.

    Inputs and products below the smallest normal number may be flushed to zero. Near the end of float32's range a partial
    sum may overflow: then nothing is filtered.
    """
    gamma = d * 2.0**-24 / (1 - min(d * 2.0**-24, 0.5)) * 1.001
    size = q_norm * x_norm
    return np.where(size < 2.0**126, gamma * size + d * 2.0**-126 * (1 + q_norm + x_norm), np.inf)


def below(x: Tensor) -> Tensor:
    """float32 numbers that are no larger than float64 ones."""
    import torch

    return torch.nextafter(x.float(), torch.tensor(-torch.inf, device=x.device))


def ordered_sum(terms: Callable[[slice], Tensor], count: int, d: int, like: Tensor) -> Tensor:
    """(count,) float64, summed over d features as `sums` describes.

    `terms` gives (count, features) float64 of a slice of the features. Products and sums are operations of their own, so that
    none is contracted with another.
    """
    import torch

    whole = d - d % LANES
    sums = torch.zeros((count, LANES), dtype=torch.float64, device=like.device)
    for f in range(0, whole, LANES):
        sums += terms(slice(f, f + LANES))
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    total = sums[:, 0]
    for f in range(whole, d):
        total = total + terms(slice(f, f + 1))[:, 0]
    return total


def dots(X: Tensor, Y: Tensor) -> Tensor:
    """(r,) float64 inner products of (r, d) and (r, d) or (1, d), to the bit those of `sums.dot`."""
    return ordered_sum(lambda f: X[:, f].double() * Y[:, f].double(), len(X), X.shape[1], X)


def square_distances(X: Tensor, Y: Tensor) -> Tensor:
    """(r,) float64, to the bit those of `sums.square_distance`."""

    def terms(f: slice) -> Tensor:
        difference = X[:, f].double() - Y[:, f].double()
        return difference * difference

    return ordered_sum(terms, len(X), X.shape[1], X)


def squares(tensor: Tensor) -> Tensor:
    """(n,) float64 squared lengths."""
    import torch

    n, d = tensor.shape
    out = torch.empty(n, dtype=torch.float64, device=tensor.device)
    for at in slices(n, d):
        out[at] = dots(tensor[at], tensor[at])
    return out


def checked_squares(vectors: TensorVectors) -> Tensor:
    """(n,) float64 squared lengths.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    found = vectors.squares()
    finite = found.isfinite()
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        raise InvalidInput("vectors: row {row} holds a value that is not finite", row=row)
    return found


def unit_rows(vectors: TensorVectors, rows: Any) -> Tensor:
    """(r, d) float32, to the bit as `unit.unit_rows`: a slice of the rows, or those that an int64 tensor names, at unit length.

    Memory: 16*d bytes a row, of which 4*d are the result.
    """
    length = vectors.norms()[rows, None]
    return (vectors.part(rows).double() / length.where(length > 0, 1.0)).float()


class UnitTensor:
    """(n, d) float32 on the device: the vectors there at unit length, made of those rows that are asked for."""

    def __init__(self, vectors: TensorVectors) -> None:
        self.vectors, self.shape, self.device = vectors, vectors.shape, vectors.device

    def __getitem__(self, rows: Any) -> Tensor:
        """(r, d), as `unit_rows`."""
        return unit_rows(self.vectors, rows)


def pairs_at_once(d: int) -> int:
    """How many pairs of rows are worked out together."""
    return max(1, TILE_VALUES // max(1, d))
