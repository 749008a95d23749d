"""What the implementations of kernels for devices share: torch on CUDA. Kernels dispatch to them on `DeviceVectors`.

An implementation decides as the compiled loops do: a float32 product filters, with the margin of `compiled.margin`;
what it leaves open is worked out in float64, by the same sums in the same order, which IEEE arithmetic gives
everywhere. TF32, which rounds what it multiplies, is off meanwhile. So a GPU picks the rows that the host picks, ties
included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from selection.blocks import SourceVectors
from selection.errors import InvalidInput
from selection.kernels.compiled.sums import LANES
from selection.types import Array, DeviceVectors, Points

# torch is imported by functions only, so its types have no name here.
Tensor = Any

# Values of one tile: 64 MiB of float32 products or vectors, which keeps a GPU busy.
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


def to_device(array: Array, vectors: DeviceVectors) -> Tensor:
    """A copy of an array beside the vectors."""
    import torch

    return torch.tensor(array, device=vectors.device)


def slices(n: int, d: int, columns: int = 1) -> Iterator[slice]:
    """Of 0 .. n-1, so that neither vectors of d dimensions nor products with so many columns exceed a tile."""
    size = max(1, TILE_VALUES // max(1, d, columns))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def below(x: Tensor) -> Tensor:
    """float32 numbers that are no larger than float64 ones."""
    import torch

    return torch.nextafter(x.float(), torch.tensor(-torch.inf, device=x.device))


def ordered_sum(terms: Callable[[slice], Tensor], count: int, d: int, like: Tensor) -> Tensor:
    """(count,) float64, summed over d features as `sums` describes.

    `terms` gives (count, features) float64 of a slice of the features. Products and sums are operations of their own,
    so that none is contracted with another.
    """
    import torch

    whole = d - d % LANES
    sums = torch.zeros((count, LANES), dtype=torch.float64, device=like.device)
    for f in range(0, whole, LANES):
        sums += terms(slice(f, f + LANES))
    while sums.shape[1] > 1:
        middle = sums.shape[1] // 2
        sums = sums[:, :middle] + sums[:, middle:]
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


def checked_squares(vectors: DeviceVectors) -> Tensor:
    """(n,) float64 squared lengths.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    squares = vectors.squares()
    finite = squares.isfinite()
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0, 0])
        raise InvalidInput("vectors: row {row} holds a value that is not finite", row=row)
    return squares


class DeviceCopy(SourceVectors):
    """`DeviceVectors`: what a device holds of some vectors, copied when it is first asked for.

    Args:
        source: (n, d) the vectors on the host.
        device: as torch names it.
    """

    def __init__(self, source: Points, device: str) -> None:
        super().__init__(source)
        self.device = device

    def part(self, rows: Any) -> Tensor:
        """See `DeviceVectors.part`."""
        return self.tensor[rows]

    def squares(self) -> Tensor:
        """See `DeviceVectors.squares`."""
        return self._squares

    def norms(self) -> Tensor:
        """See `DeviceVectors.norms`."""
        return self._norms

    @cached_property
    def tensor(self) -> Tensor:
        """(n, d) float16 or float32."""
        import torch

        is_float16 = self.source.take(np.empty(0, np.int64)).dtype == np.float16
        dtype = np.float16 if is_float16 else np.float32
        kind = torch.float16 if is_float16 else torch.float32
        tensor = torch.empty(self.source.shape, dtype=kind, device=self.device)
        for rows, block in self.source.blocks():
            tensor[torch.tensor(rows, device=self.device)] = torch.tensor(np.asarray(block, dtype), device=self.device)
        return tensor

    @cached_property
    def _squares(self) -> Tensor:
        import torch

        n, d = self.shape
        out = torch.empty(n, dtype=torch.float64, device=self.device)
        for at in slices(n, d):
            part = self.part(at)
            out[at] = dots(part, part)
        return out

    @cached_property
    def _norms(self) -> Tensor:
        import torch

        # Roots are numpy's: torch's need not be the nearest float64.
        return torch.tensor(np.sqrt(self._squares.cpu().numpy()), device=self.device)


def pairs_at_once(d: int) -> int:
    """How many pairs of rows are worked out together."""
    return max(1, TILE_VALUES // max(1, d))
