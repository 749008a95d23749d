"""Long vectors made short by a random matrix that is never stored: any entry follows from the seed and its place.

Integer arithmetic modulo 2**64 makes the entries, so they are the same on every machine, for every number of threads
and every block size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from selection.types import Floats, Rows

if TYPE_CHECKING:
    import torch

Projection = Literal["count_sketch", "rademacher"]
Words = npt.NDArray[np.uint64]

# Entries of the matrix that are made at once: 4 MiB of float32 for "rademacher".
BLOCK_ENTRIES = 1 << 20
# Coordinates that "count_sketch" takes at once.
BLOCK_COORDINATES = 1 << 16

_STEP, _MIX_1, _MIX_2 = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def random_words(seed: int, start: int, stop: int) -> Words:
    """(stop - start,) the numbers `start` to `stop` of the sequence of a seed: SplitMix64 (Steele et al. 2014).

    >>> random_words(0, 0, 2).tolist()
    [16294208416658607535, 7960286522194355700]
    """
    words = np.arange(start + 1, stop + 1, dtype=np.uint64)
    words *= _STEP
    words += np.uint64(seed % 2**64)
    words ^= words >> np.uint64(30)
    words *= _MIX_1
    words ^= words >> np.uint64(27)
    words *= _MIX_2
    words ^= words >> np.uint64(31)
    return words


@dataclass(frozen=True, kw_only=True)
class Projector:
    """A random matrix of `size` rows and `dims` columns.

    Attributes:
        kind: "rademacher": every entry is +1 or -1 over sqrt(dims). "count_sketch": a row has a single entry, +1 or -1,
            in a column of its own choice.
        size: length of the vectors.
        dims: length of the projected ones.
        seed: other seeds give independent matrices.

    For both, an inner product of projected vectors has the mean of the true one, and the variance
    (|x|^2 |y|^2 + (x.y)^2 - 2 sum x_i^2 y_i^2) / dims: a cosine errs by about 1 / sqrt(dims).

    Cost: 2 * size * dims operations a vector for "rademacher", and once for each call to make the entries, about a
    nanosecond each; about 10 nanoseconds a coordinate for "count_sketch".

    Source: Achlioptas 2003 (signs); Charikar, Chen and Farach-Colton 2002 (CountSketch), as inner products in
    Weinberger et al. 2009.
    """

    kind: Projection
    size: int
    dims: int
    seed: int

    def project(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, dims) float32 the projections of (n, size) float32 vectors, on their device."""
        return self._rademacher(vectors) if self.kind == "rademacher" else self._count_sketch(vectors)

    def _rademacher(self, vectors: torch.Tensor) -> torch.Tensor:
        import torch

        total: torch.Tensor = torch.zeros((len(vectors), self.dims), dtype=torch.float32, device=vectors.device)
        bits = torch.arange(8, dtype=torch.int32)
        byte = torch.arange(256, dtype=torch.int32)
        table = (((byte[:, None] >> bits) & 1) * 2 - 1).float().to(vectors.device)
        step = max(1, BLOCK_ENTRIES // self.dims)
        for start in range(0, self.size, step):
            stop = min(start + step, self.size)
            signs = self._signs(start, stop).to(vectors.device).int()
            block = torch.nn.functional.embedding(signs, table).flatten(1)[:, : self.dims]
            total.addmm_(vectors[:, start:stop], block)
        return total.div(self.dims**0.5)

    def _signs(self, start: int, stop: int) -> torch.Tensor:
        """(stop - start, bytes) uint8: a bit for each column, the lowest one first."""
        import torch

        words = -(-self.dims // 64)
        made = random_words(self.seed, start * words, stop * words).astype("<u8", copy=False)
        signs: torch.Tensor = torch.from_numpy(made.reshape(-1, words).view(np.uint8))
        return signs

    def _count_sketch(self, vectors: torch.Tensor) -> torch.Tensor:
        import torch

        total: torch.Tensor = torch.zeros((len(vectors), self.dims), dtype=torch.float64, device=vectors.device)
        for start in range(0, self.size, BLOCK_COORDINATES):
            stop = min(start + BLOCK_COORDINATES, self.size)
            columns, signs = self.columns(start, stop)
            place = torch.from_numpy(columns).to(vectors.device).expand(len(vectors), -1)
            signed = vectors[:, start:stop] * torch.from_numpy(signs).to(vectors.device)
            total.scatter_add_(1, place, signed.double())
        return total.float()

    def columns(self, start: int, stop: int) -> tuple[Rows, Floats]:
        """Of "count_sketch": the column of each of some coordinates, and its sign."""
        words = random_words(self.seed, start, stop)
        signs = (words & np.uint64(1)).astype(np.float32) * 2 - 1
        columns = ((words >> np.uint64(32)) * np.uint64(self.dims)) >> np.uint64(32)
        return columns.astype(np.int64), signs
