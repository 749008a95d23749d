"""Graphs of the pool's rows: the nearest of each, or all within a distance. Exact, for vectors that come in any order.

The nearest go by cosine: the float64 inner product, in the fixed order of `top_k`, of the vectors scaled to unit length
in float32. A distance is the float64 Euclidean one of `compiled.nearest`. BLAS in float32 only filters (see `margin`);
ties go to the lowest row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from selection.blocks import chunks
from selection.errors import InvalidInput
from selection.kernels.compiled import neighbor_graph as loops
from selection.kernels.compiled.assign import norms
from selection.kernels.compiled.margin import LARGEST_SIZE, SMALLEST_NORMAL, product_margin
from selection.kernels.float16 import as_float32
from selection.kernels.normalize import UnitVectors, unit_vectors
from selection.kernels.top_k import TILE_ROWS, TILE_VALUES, tiles, top_k
from selection.types import Array, DeviceVectors, Doubles, Floats, Ints, Mask, Points, Rows, Vectors

# Rows whose neighbours are looked up in one pass over the vectors: of the nearest, and of those within a distance.
QUERY_ROWS = 2048
RANGE_ROWS = 1024
PAIRS_AT_ONCE = 2**13


@dataclass(frozen=True, eq=False)
class Lists:
    """A list of rows for each row: those of row i are `row[starts[i]:starts[i + 1]]`, ascending.

    Attributes:
        starts: (n + 1,) int64.
        row: (edges,) int32.
    """

    starts: Rows
    row: Ints

    def of(self, row: int) -> Ints:
        """The list of a row."""
        return self.row[self.starts[row] : self.starts[row + 1]]


def nearest_neighbours(vectors: Vectors, count: int) -> Ints:
    """The `count` rows of highest cosine to each row, itself left out.

    Args:
        vectors: (n, d).
        count: k >= 1, of which n - 1 are found at most. A zero vector is similar to nothing: it has no neighbours and
            is none.

    Returns:
        (n, k) int32, in no order; -1 where there is none.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: 2*n*n*d operations in float32; float64 products only for rows within rounding of the last neighbour, or k*(1 +
    ln(n/k)) for each row that has more of these than neighbours. Memory: 4 bytes * n * k; 4 bytes * d and 24 bytes * k
    for each of QUERY_ROWS rows; vectors of PAIRS_AT_ONCE rows. On a GPU as `top_k`.
    """
    n = vectors.shape[0]
    unit = unit_vectors(vectors)
    zero = np.zeros(n, bool)
    for rows, tile, _ in tiles(unit, TILE_ROWS):
        zero[rows] = ~tile.any(axis=1)
    asked = np.flatnonzero(~zero).astype(np.int64)
    nearest = np.full((n, max(0, min(count, n - 1))), -1, np.int32)
    if nearest.shape[1]:
        for rows in chunks(asked, QUERY_ROWS):
            nearest[rows] = _nearest_of(unit, rows, nearest.shape[1], zero)
    return nearest


def cosines(vectors: Vectors, neighbours: Ints) -> Doubles:
    """(n, k) float64 cosine of each row and its neighbours, 0 where there is none.

    Cost: n*k products. Memory: 8 bytes * n * k, vectors of PAIRS_AT_ONCE rows.
    """
    unit = UnitVectors(vectors)
    cosine = np.zeros(neighbours.shape)
    at_once = max(1, PAIRS_AT_ONCE // max(1, neighbours.shape[1]))
    for start in range(0, len(neighbours), at_once):
        rows = np.arange(start, min(start + at_once, len(neighbours)), dtype=np.int64)
        i, e = np.nonzero(neighbours[rows] >= 0)
        cosine[rows[i], e] = loops.pair_products(unit.take(rows), i, unit.take(neighbours[rows[i], e].astype(np.int64)))
    return cosine


def _nearest_of(unit: Points, asked: Rows, depth: int, zero: Mask) -> Ints:
    """(q, depth) the nearest rows of `asked`, -1 where there are fewer.

    Products in float32 are off by up to a margin m. Rows whose product is above the depth-th highest by more than 2 m
    are among the nearest, rows below it by more are not; the rows between are decided by their exact products.
    """
    queries = unit.take(asked)
    if isinstance(unit, DeviceVectors):
        return _searched(unit, queries, asked, depth, zero)
    slack = 2.01 * product_margin(queries.shape[1])
    room = 2 * depth + 64
    product, row = np.empty((len(asked), room), np.float32), np.empty((len(asked), room), np.int32)
    size, sure = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
    floor, crowded = np.full(len(asked), -np.inf), np.zeros(len(asked), bool)
    for rows, tile, _ in tiles(unit, max(64, TILE_VALUES // len(asked))):
        loops.offer(queries @ tile.T, asked, rows, zero, slack, depth, product, row, size, floor, crowded)
    nearest = np.full((len(asked), depth), -1, np.int32)
    loops.settle(depth, slack, product, row, size, sure, crowded, nearest)
    # Few enough at once that the vectors of all their rows between fit.
    between = np.where(crowded, 0, size - sure)
    for some in np.array_split(np.flatnonzero(between), 1 + int(between.sum()) // PAIRS_AT_ONCE):
        count = between[some]
        i = np.repeat(some, count)
        place = np.arange(len(i)) - np.repeat(np.cumsum(count) - count - sure[some], count)
        near = row[i, place]
        exact = loops.pair_products(queries, i, unit.take(near.astype(np.int64)))
        near = near[np.lexsort((near, -exact, i))]
        wanted = place < depth
        nearest[i[wanted], place[wanted]] = near[wanted]
    for some in np.array_split(np.flatnonzero(crowded), 1 + int(crowded.sum()) // 256):
        if len(some):
            nearest[some] = _searched(unit, queries[some], asked[some], depth, zero)
    return nearest


def _searched(unit: Points, queries: Array, asked: Rows, depth: int, zero: Mask) -> Ints:
    """As `_nearest_of`, by `top_k`; `queries` are the vectors of `asked`."""
    best = top_k(unit, queries, depth=depth + 1, skip=zero).row
    other = best != asked[:, None]
    other[other.all(axis=1), -1] = False  # itself lies behind so many copies that it was not found
    return np.asarray(best[other].reshape(-1, depth), np.int32)


def voters(neighbours: Ints) -> Lists:
    """For each row those that have it among their neighbours. Cost: a few passes; 4 bytes an edge and 16 a row."""
    starts, row = loops.turned(neighbours)
    return Lists(starts, row)


def within_distance(vectors: Vectors, distance: float, *, max_edges: int) -> Lists:
    """For each row all that lie within a distance of it, itself included.

    Args:
        vectors: (n, d).
        distance: >= 0, Euclidean; a row at exactly this distance counts.
        max_edges: how many entries the lists may have together.

    Raises:
        InvalidInput: a vector is not finite, names the row; or there are more than `max_edges` pairs.

    Cost: 2*n*n*d operations in float32, a float64 distance for each pair within rounding of the limit. Memory: 4 bytes
    an edge (8 while they are joined), 16 bytes for each edge of RANGE_ROWS rows, their vectors and 40 MB.
    """
    n = vectors.shape[0]
    parts: list[Ints] = []
    counts = np.zeros(n + 1, np.int64)
    total = 0
    for start in range(0, n, RANGE_ROWS):
        queries = np.arange(start, min(start + RANGE_ROWS, n), dtype=np.int64)
        keys = []
        xs = as_float32(vectors.take(queries))
        q_norm = norms(xs)
        for rows, tile, x_norm, margin, coarse in _products(vectors, xs, q_norm):
            near = np.empty(coarse.shape, np.bool_)
            loops.within(coarse, xs, q_norm, tile, x_norm, *margin, distance, near)
            i, j = np.nonzero(near)
            total += len(i)
            if total > max_edges:
                raise InvalidInput(
                    f"more than {max_edges} pairs of rows lie within distance {distance:g} of each other, and no more fit into the "
                    "memory that is allowed: take a smaller distance, more memory or a part of the pool"
                )
            keys.append(i * n + rows[j])
        key = np.sort(np.concatenate(keys))
        parts.append((key % n).astype(np.int32))
        counts[queries + 1] = np.bincount(key // n, minlength=len(queries))
    return Lists(np.cumsum(counts), np.concatenate([np.empty(0, np.int32), *parts]))


def distance_to_others(vectors: Vectors, rows: Rows, place: Rows) -> Doubles:
    """The Euclidean distance from some rows to the nearest row of another cluster than theirs.

    Args:
        vectors: (n, d).
        rows: (m,) which.
        place: (n,) the cluster of each row; rows of cluster -1 are left out.

    Returns:
        (m,) float64, inf where no other cluster has a row.

    Cost: 2*m*n*d operations in float32, a few float64 distances a row.
    """
    square = np.full(len(rows), np.inf)
    for start in range(0, len(rows), RANGE_ROWS):
        part = rows[start : start + RANGE_ROWS]
        queries = as_float32(vectors.take(part))
        q_norm = norms(queries)
        best = square[start : start + RANGE_ROWS]
        for at, tile, x_norm, margin, coarse in _products(vectors, queries, q_norm):
            loops.nearest_other(coarse, queries, q_norm, place[part], tile, x_norm, place[at], *margin, best)
    return np.asarray(np.sqrt(square))


def _products(
    vectors: Vectors, queries: Floats, q_norm: Doubles
) -> Iterator[tuple[Rows, Floats, Doubles, tuple[float, float], Floats]]:
    """Yield rows, tile, norms, the relative and absolute margin of products, and the products (queries, rows) float32."""
    d = queries.shape[1]
    for rows, tile, norm in tiles(vectors, TILE_VALUES // RANGE_ROWS):
        # Near the end of float32's range a partial sum may overflow: then nothing is filtered.
        margin = product_margin(d) if norm * q_norm.max() < LARGEST_SIZE else np.inf
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            coarse = queries @ tile.T
        yield rows, tile, norms(tile), (margin, d * SMALLEST_NORMAL), coarse
