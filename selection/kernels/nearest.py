"""The distance of each row to the nearest of a growing set of centres, brought up to date only where it may matter.

Distance is Euclidean. Its exact value is the float64 sum over d of the squared differences, in one fixed order. Float32
arithmetic only bounds it (see `compiled.nearest`): what the bounds cannot decide, the caller resolves exactly. So what
is decided depends on nothing but the vectors: not on block size, block order, number of threads or kind of processor.
The exact squared distance of `OuterProducts` is |g|^2 + |h|^2 - 2 g.h, of float64 inner products of their factors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from selection.blocks import ArrayBlocks, chunks, writable
from selection.kernels import sketch as sketches
from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled.products import LANES
from selection.kernels.device import nearest as device
from selection.kernels.float16 import write_float32
from selection.kernels.quantized import Quantized
from selection.kernels.threads import Threads
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Array, DeviceVectors, Doubles, Floats, Mask, PartedVectors, Points, Rows, Vectors

# Outside these, squares could leave the range of float32: vectors are then multiplied by a power of two, which is
# exact.
LARGEST_NORM = 2.0**50
SMALLEST_NORM = 2.0**-40
# The product of two factors may vanish although neither is small, so the larger factor is held near 1.
LARGEST_FACTOR = 2.0

# Rows that one thread works on before it takes more.
ROWS_AT_ONCE = 128

# Rows that are taken and brought up to date before the next: their vectors stay in a cache meanwhile.
CACHED_ROWS = 512


@dataclass(frozen=True)
class Picks:
    """Rows in pick order.

    Attributes:
        rows: (b,) int64.
        distance: (b,) float64 to the nearest earlier centre, NaN for a first centre.
        near: (b,) int64, the row of that centre, the earliest of equals; -1 for a first centre.
    """

    rows: Rows
    distance: Doubles
    near: Rows


class OuterProducts:
    """Each row's outer product of two vectors, p*q dimensions that are never written down: a row holds p + q numbers.

    Args:
        vectors: (n, p), the first factor.
        factors: (n, q) float32 of norm at most 2, the second.

    Attributes:
        split: p.
    """

    def __init__(self, vectors: Vectors, factors: Floats) -> None:
        self.vectors, self.factors = vectors, factors
        self.split = vectors.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """(n, p + q)."""
        return self.vectors.shape[0], self.split + self.factors.shape[1]

    @property
    def device(self) -> str:
        """That of the first factor."""
        return self.vectors.device

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in the storage order of the first factor."""
        for rows, block in self.vectors.blocks():
            yield rows, self._joined(block, rows)

    def take(self, rows: Rows) -> Array:
        """The factors of `rows`, side by side, float32."""
        return self._joined(self.vectors.take(rows), rows)

    def _joined(self, block: Array, rows: Rows) -> Array:
        return np.concatenate([np.asarray(block, np.float32), self.factors[rows]], axis=1)


class Nearest:
    """What is known of each row's nearest centre.

    Args:
        vectors: (n, d), or outer products.
        centres: at least one row; they become centres 0, 1, ...
        wanted: (n,) bool: the rows whose distance is asked for.
        capacity: how many centres there may be in the end.
        scale: (n,) float64 >= 0 that multiplies squared distances; 1 by default.

    Attributes:
        state: (n,) of `compiled.nearest.ROW`.
        centre_rows: (capacity,) int64.
        count: how many centres there are.
        split: features of the first factor of outer products; d for vectors.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass of n*d float64 operations. Memory: 48 n + (9 d + 12) capacity bytes.
    """

    def __init__(
        self, vectors: Points, centres: Rows, wanted: Mask, capacity: int, scale: Doubles | None = None
    ) -> None:
        n, d = vectors.shape
        self.vectors = vectors
        self.split = split_of(vectors)
        self.state = np.zeros(n, loops.ROW)
        self.state["bound"] = np.where(wanted, 0.0, -np.inf)
        self.state["scale"] = 1.0 if scale is None else scale
        self.centres: Floats = np.empty((capacity, d), np.float32)
        groups = -(-capacity // LANES)
        self.packed: Floats = np.zeros((groups, d, LANES), np.float32)
        # A centre that is not there is infinitely far.
        self.high = np.full(groups * LANES, np.inf, np.float32)
        self.low = np.full(groups * LANES, np.inf, np.float32)
        self.centre_rows = np.empty(capacity, np.int64)
        self.count = 0
        self.sketch = sketches.none(d)
        self.quantized = Quantized(d, capacity if self.split == d else 0)
        self.unit = 1.0
        self.threads = Threads()

        first = np.asarray(vectors.take(centres[:1])[0], np.float64)
        largest = _begin(vectors, first, self.state, self.threads)
        limit = LARGEST_NORM if self.split == d else LARGEST_FACTOR
        if largest > 0 and not SMALLEST_NORM < largest < limit:
            self.unit = 2.0 ** -math.frexp(largest)[1]
            self.state["bound"] *= self.unit**2
            self.state["square"] *= self.unit**2
        for part in chunks(centres, TILE_ROWS):
            for row, x in zip(part.tolist(), self.take(part), strict=True):
                self.add(x, row)

    def add(self, x: Floats, row: int) -> None:
        """One more centre, a row x of `take`."""
        self.centre_rows[self.count] = row
        loops.add_centre(x, self.centres, self.packed, self.high, self.low, self.count, self.split)
        self.count += 1

    def take(self, rows: Rows, out: Floats | None = None) -> Floats:
        """(b, d) float32, in the unit of the centres; written to the first rows of `out` if given."""
        return _taken(self.vectors, rows, self.unit, out)

    def take_refreshed(self, rows: Rows, state: Array, floor: float, out: Floats) -> Floats:
        """As `take` and then `refresh` for rows ascending in version, a few at a time: they are still in a cache."""
        X = out[: len(rows)]
        self.quantized.add(self.centres[: self.count])

        def task(start: int, stop: int) -> None:
            self.take(rows[start:stop], out=X[start:stop])
            order = np.arange(stop - start)
            self._refresh(X[start:stop], state[start:stop], order, np.full(stop - start, floor), 0, stop - start)

        self.threads.run(task, len(rows), CACHED_ROWS)
        return X

    def refresh(self, X: Floats, state: Array, floor: float | Doubles) -> None:
        """Bring rows X up to date against all centres, except those whose bound falls below `floor`.

        Args:
            X: (b, d) from `take`; `state`: (b,) theirs, written to.
            floor: one, or one for each row.
        """
        self.quantized.add(self.centres[: self.count])
        order = np.argsort(state["version"], kind="stable")
        floors = np.broadcast_to(floor, order.shape)[order]
        self.threads.run(partial(self._refresh, X, state, order, floors), len(order), ROWS_AT_ONCE)

    def _refresh(self, X: Floats, state: Array, order: Rows, floors: Doubles, start: int, stop: int) -> None:
        loops.refresh(
            X, state, order, self.centres, self.packed, self.high, self.low, self.count, floors, self.split,
            self.sketch.arrays, self.quantized.arrays, start, stop,
        )  # fmt: skip

    def refresh_in_parts(self, vectors: PartedVectors, rows: Rows, floor: float) -> None:
        """As `refresh`, where the vectors are: bring these rows up to date, except those that fall below `floor`.

        The centres go to each part that has some of the rows; of each row its state, there and back.
        """
        stale = np.zeros(len(self.state), bool)
        stale[rows] = self.state["version"][rows] < self.count
        if not stale.any():
            return
        groups = -(-self.count // LANES)
        centres = self.packed[:groups], self.high[: groups * LANES], self.low[: groups * LANES]

        def known_of(part: Rows) -> tuple[Rows, Array] | None:
            places = np.flatnonzero(stale[part])
            return (places, self.state[part[places]]) if len(places) else None

        work = partial(_refreshed_of_part, centres, self.count, self.unit, floor)
        for part, refreshed in vectors.map_parts(work, known_of):
            put_records(self.state, part[stale[part]], refreshed)

    def measure(self, rows: Rows) -> None:
        """Make the bounds of these rows exact over all centres, a block at a time."""
        for part in chunks(rows, TILE_ROWS):
            X, state = self.take(part), self.state.take(part)
            self.refresh(X, state, -np.inf)
            loops.resolve_all(X, state, self.centres, self.low, self.split)
            put_records(self.state, part, state)

    def distance(self, bound: Array) -> Doubles:
        """The distance, in the unit of the vectors, that a bound stands for."""
        return np.sqrt(np.asarray(bound, np.float64)) / self.unit


def _taken(vectors: Points, rows: Rows, unit: float, out: Floats | None = None) -> Floats:
    """See `Nearest.take`."""
    X = np.empty((len(rows), vectors.shape[1]), np.float32) if out is None else out[: len(rows)]
    array = vectors.array if isinstance(vectors, ArrayBlocks) else None
    if array is not None and array.dtype == np.float32 and array.flags.c_contiguous:
        array.take(rows, axis=0, out=X, mode="clip")  # copied once; other modes buffer
    else:
        for start in range(0, len(rows), TILE_ROWS):
            part = slice(start, start + TILE_ROWS)
            write_float32(vectors.take(rows[part]), X[part])
    if unit != 1.0:
        X[:, : split_of(vectors)] *= np.float32(unit)
    return X


def _refreshed_of_part(
    centres: tuple[Floats, Floats, Floats], count: int, unit: float, floor: float,
    points: Points, rows: Rows, known: Array,
) -> Array:  # fmt: skip
    """The state of some rows of a part, brought up to date against `count` centres as `Nearest` holds them packed."""
    packed, high, low = map(writable, centres)
    state = known.copy()
    order = np.argsort(state["version"], kind="stable")
    d, split = points.shape[1], split_of(points)
    unpacked = np.ascontiguousarray(packed.transpose(0, 2, 1)).reshape(-1, d)
    sketch, quantized = sketches.none(d).arrays, Quantized(d, count if split == d else 0)
    quantized.add(unpacked[:count])

    def task(start: int, stop: int) -> None:
        places = order[start:stop]
        X, some = _taken(points, rows[places], unit), state[places]
        loops.refresh(
            X, some, np.arange(len(some)), unpacked, packed, high, low, count, np.full(len(some), floor),
            split, sketch, quantized.arrays, 0, len(some),
        )  # fmt: skip
        put_records(state, places, some)

    Threads().run(task, len(order), CACHED_ROWS)
    return state


def put_records(state: Array, rows: Rows, part: Array) -> None:
    """state[rows] = part; whole records are copied ten times faster than their fields."""
    record = f"V{state.itemsize}"
    state.view(record)[rows] = part.view(record)


def largest(bound: Array, count: int) -> tuple[Rows, float, int]:
    """The places of the `count` largest bounds above -inf, equal ones by ascending place; and what is left out.

    Returns:
        places, ascending; a bound that none left out exceeds; the first place left out that has it, -1 if there is
        none.
    """
    bound = np.ascontiguousarray(bound)
    n = len(bound)
    floor = float(np.partition(bound, n - count)[n - count]) if count < n else -np.inf
    if floor == -np.inf:
        return np.flatnonzero(bound > -np.inf), floor, -1
    places = np.flatnonzero(bound >= floor)
    if len(places) == count:
        return places, floor, -1
    level = places[bound[places] == floor]
    out = level[len(level) - (len(places) - count) :]
    return np.setdiff1d(places, out, assume_unique=True), floor, int(out[0])


def split_of(vectors: Points) -> int:
    """How many features of a row belong to the first factor: all, unless they are outer products."""
    return vectors.split if isinstance(vectors, OuterProducts) else vectors.shape[1]


def mean_vector(vectors: Vectors, rows: Rows) -> Doubles:
    """(d,) float64 mean of some rows, summed in the order given. Cost: one pass over the rows."""
    total = np.zeros(vectors.shape[1])
    for part in chunks(rows, TILE_ROWS):
        loops.add_rows(np.asarray(vectors.take(part), np.float32), total)
    return total / len(rows)


def farthest_from(point: Doubles, vectors: Points, candidates: Mask, scale: Doubles | None = None) -> int:
    """The candidate of largest scaled squared distance to a float64 point; ties to the lowest row.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass of n*d float64 operations; 48 n bytes.
    """
    state = np.zeros(vectors.shape[0], loops.ROW)
    state["bound"] = np.where(candidates, 0.0, -np.inf)
    state["scale"] = 1.0 if scale is None else scale
    _begin(vectors, point, state, Threads())
    return int(np.argmax(state["bound"]))


def _begin(vectors: Points, first: Doubles, state: Array, threads: Threads) -> float:
    """Give every row its exact distance to a first centre; the largest norm."""
    if isinstance(vectors, DeviceVectors):
        return device.begin(vectors, first, state)
    largest = 0.0
    if isinstance(vectors, PartedVectors):
        known = state["bound"], state["scale"]
        for rows, (begun, norm) in vectors.map_parts(
            partial(_begun_of_part, first), lambda rows: tuple(column[rows] for column in known)
        ):
            put_records(state, rows, begun)
            largest = max(largest, norm)
        return largest
    for rows, tile, norm in tiles(vectors, TILE_ROWS):
        threads.run(partial(loops.begin, tile, rows, first, state, split_of(vectors)), len(rows), ROWS_AT_ONCE)
        largest = max(largest, norm)
    return largest


def _begun_of_part(first: Doubles, points: Points, bound: Doubles, scale: Doubles) -> tuple[Array, float]:
    """The state of the rows of a part after the first centre, and the largest norm."""
    state = np.zeros(len(bound), loops.ROW)
    state["bound"], state["scale"] = bound, scale
    return state, _begin(points, writable(first), state, Threads())
