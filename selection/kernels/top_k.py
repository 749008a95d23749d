"""The rows most similar to each of many queries, exactly, in one pass over vectors that come in any order.

Similarity is the inner product. Its exact value is the float64 sum over d of the products, in one fixed order (eight
interleaved partial sums, then these). Products of float16 or float32 are exact in float64, so the value depends on
nothing but the two vectors. BLAS in float32 only filters: a row is dropped only if its product lies below what counts
by more than products may be off (see `margin`); every other is decided by its exact value, ties to the lowest row. So
results are the same for any block size, block order and number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from selection.errors import InvalidInput
from selection.kernels.compiled import top_k as loops
from selection.kernels.compiled.margin import absolute_margin
from selection.kernels.device import top_k as device
from selection.kernels.float16 import as_float32
from selection.kernels.query_lists import QueryLists
from selection.kernels.threads import Threads
from selection.types import Array, DeviceVectors, Doubles, Floats, Mask, PartedVectors, Points, R, Rows

# Similarities computed at once, as float32: 8 MiB, which stays near the caches.
TILE_VALUES = 2**21
TILE_ROWS = 4096
# Queries whose products one thread works out and offers to their lists before it takes more: at least and at most.
LEAST_QUERIES = 64
THREAD_QUERIES = 256
# Rows that stay in the cache while one query after the other goes over them; and how many products of several queries
# are held: 64 MiB.
QUERY_TILE_ROWS = 256
SIMILARITIES = 2**23


@dataclass(frozen=True, eq=False)
class TopRows:
    """The best rows of each list, in order.

    Attributes:
        score: (lists, depth) float64, descending, -inf where there is no row.
        row: (lists, depth) int64, ascending within equal scores, -1 where there is none.
    """

    score: Doubles
    row: Rows


def top_k(
    vectors: Points,
    queries: Array,
    *,
    depth: int,
    starts: Array | None = None,
    skip: Mask | None = None,
    below: tuple[Doubles, Rows] | None = None,
) -> TopRows:
    """The `depth` rows of highest similarity to each query, or to each group of queries.

    Args:
        vectors: (n, d) candidates.
        queries: (m, d) float16 or float32.
        depth: >= 0, rows to find for each list.
        starts: (lists + 1,) ascending: list l is the maximum over queries starts[l] .. starts[l+1]-1. One list a query
            by default.
        skip: (n,) rows to leave out.
        below: for each list a (score, row): only rows that come after it in the list's order are found.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: 2*n*m*d operations in float32, about lists*depth*(1+ln(n/depth)) float64 inner products for rows in random
    order, and 48 bytes * lists * depth beside one tile. Many rows tied at a list's end cost one float64 product each.
    On a GPU twice the float32 operations and about lists*depth products.
    """
    n = vectors.shape[0]
    lists = QueryLists(queries, starts)
    top = TopRows(np.full((lists.count, depth), -np.inf), np.full((lists.count, depth), -1, np.int64))
    depth = min(depth, n)
    if depth == 0 or lists.count == 0:
        return top
    if isinstance(vectors, DeviceVectors):
        device.top_k(vectors, lists, depth, skip, below, top.score, top.row)
        return top
    if isinstance(vectors, PartedVectors):
        return _top_k_of_parts(vectors, lists, top, skip, below)
    # Room for twice the depth: filled up, it is cut back to the best half, so each row costs O(1).
    score = np.empty((lists.count, 2 * depth))
    row = np.empty((lists.count, 2 * depth), np.int64)
    size = np.zeros(lists.count, np.int64)
    last_score = np.full(lists.count, -np.inf)
    last_row = np.full(lists.count, n, np.int64)
    bound_score, bound_row = below or (np.full(lists.count, np.inf), np.full(lists.count, -1, np.int64))
    skip = np.zeros(n, bool) if skip is None else skip
    kept = (bound_score, bound_row, score, row, size, last_score, last_row, depth)
    threads = Threads()
    runs = lists.runs(min(max(-(-len(lists.queries) // threads.count), LEAST_QUERIES), THREAD_QUERIES))
    # Threads of BLAS would wait for work by spinning.
    with threadpool_limits(1 if len(runs) > 1 else None):
        for rows, tile, norm in tiles(vectors, _tile_rows(lists, runs)):
            margin = absolute_margin(tile.shape[1], lists.norms, norm)
            threads.run(partial(_offer, lists, runs, rows, tile, margin, skip, kept), len(runs), 1)
    for i in range(lists.count):
        entries, rows_of = score[i, : size[i]], row[i, : size[i]]
        order = np.lexsort((rows_of, -entries))[:depth]
        top.score[i, : len(order)] = entries[order]
        top.row[i, : len(order)] = rows_of[order]
    return top


def max_similarity(vectors: Points, queries: Array) -> Floats:
    """(n,) float32 of the exact highest similarity of each row to any of the queries.

    Cost: 2*n*m*d operations in float32, a few float64 products a row; one tile and n floats of memory.
    """
    n = vectors.shape[0]
    lists = QueryLists(queries, np.array([0, len(queries)]))
    if isinstance(vectors, DeviceVectors):
        return device.max_similarity(vectors, lists)
    best = np.empty(n, np.float32)
    if isinstance(vectors, PartedVectors):
        for rows, of_part in vectors.map_parts(partial(_with_queries, max_similarity, lists.queries)):
            best[rows] = of_part
        return best
    for rows, tile, norm in tiles(vectors, _tile_rows(lists, lists.parts)):
        margin = absolute_margin(tile.shape[1], lists.norms, norm)
        loops.exact_maxima(_coarse(lists.queries, tile), tile, rows, lists.queries, margin[0], best)
    return best


def similarity_to(vectors: Points, query: Array) -> Doubles:
    """(n,) float64 inner product of each row with one float64 query, summed in the fixed order. Cost: n*d operations."""
    query = np.ascontiguousarray(query, np.float64)
    if isinstance(vectors, DeviceVectors):
        return device.similarity_to(vectors, query)
    result = np.empty(vectors.shape[0])
    if isinstance(vectors, PartedVectors):
        for rows, of_part in vectors.map_parts(partial(_with_queries, similarity_to, query)):
            result[rows] = of_part
        return result
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        loops.dot_all(tile, query, rows, result)
    return result


def similarities(vectors: Points, queries: Array) -> Iterator[Doubles]:
    """Yield the (n,) inner products with each query, see `similarity_to`, in the order of the queries.

    Cost: n*m*d operations in float64; a pass over the vectors for each SIMILARITIES // n queries, whose products are
    held at a time (at least one).
    """
    if isinstance(vectors, DeviceVectors):
        yield from (similarity_to(vectors, query) for query in queries)
        return
    n = vectors.shape[0]
    together = max(1, SIMILARITIES // max(n, 1))
    for start in range(0, len(queries), together):
        part = np.ascontiguousarray(queries[start : start + together], np.float64)
        products = np.empty((len(part), n))
        if isinstance(vectors, PartedVectors):
            for rows, of_part in vectors.map_parts(partial(_with_queries, _similarities_to_all, part)):
                products[:, rows] = of_part
            yield from products
            continue
        for rows, tile, _ in tiles(vectors, QUERY_TILE_ROWS):
            for query, product in zip(part, products, strict=True):
                loops.dot_all(tile, query, rows, product)
        yield from products


def _with_queries(work: Callable[[Points, Array], R], queries: Array, points: Points) -> R:
    """Work on a part, which gets the queries with the work."""
    return work(points, queries)


def _similarities_to_all(points: Points, queries: Array) -> Doubles:
    return np.stack(list(similarities(points, queries)))


def _top_k_of_parts(
    vectors: PartedVectors, lists: QueryLists, top: TopRows, skip: Mask | None, below: tuple[Doubles, Rows] | None
) -> TopRows:
    """The best of the best of each part; `top` is that of no part."""
    depth = top.row.shape[1]

    def known_of(rows: Rows) -> tuple[Mask | None, tuple[Doubles, Rows] | None] | None:
        if skip is not None and skip[rows].all():
            return None
        # A row of the part is above a bound if it is above the last of the part that is not.
        bounds = None if below is None else (below[0], np.searchsorted(rows, below[1], side="right") - 1)
        return None if skip is None else skip[rows], bounds

    for rows, part in vectors.map_parts(partial(_top_k_of_part, lists.queries, lists.starts, depth), known_of):
        score = np.concatenate([top.score, part.score], axis=1)
        row = np.concatenate([top.row, np.where(part.row < 0, -1, rows[part.row])], axis=1)
        order = np.lexsort((row, -score), axis=-1)[:, :depth]
        top = TopRows(np.take_along_axis(score, order, 1), np.take_along_axis(row, order, 1))
    return top


def _top_k_of_part(
    queries: Floats, starts: Rows, depth: int, points: Points, skip: Mask | None, below: tuple[Doubles, Rows] | None
) -> TopRows:
    return top_k(points, queries, depth=depth, starts=starts, skip=skip, below=below)


def tiles(vectors: Points, rows_at_once: int) -> Iterator[tuple[Rows, Floats, float]]:
    """Yield `(rows, float32 tile, largest norm)`: every row once, in storage order, checked to be finite.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    for rows, block in vectors.blocks():
        for start in range(0, len(rows), rows_at_once):
            part = np.ascontiguousarray(rows[start : start + rows_at_once], np.int64)
            tile = as_float32(block[start : start + rows_at_once]).view()
            tile.flags.writeable = False  # always, since loops are compiled once for each kind
            bad, norm = loops.scan(tile)
            if bad >= 0:
                raise InvalidInput("vectors: row {row} holds a value that is not finite", row=int(part[bad]))
            yield part, tile, norm


def _offer(
    lists: QueryLists, runs: list[tuple[int, int]], rows: Rows, tile: Floats, margin: Doubles, skip: Mask,
    kept: tuple[Any, ...], start: int, stop: int,
) -> None:  # fmt: skip
    """Offer the rows of a tile to the lists of some runs; `margin` is that of each list."""
    for first, last in runs[start:stop]:
        coarse = _coarse(lists.queries[lists.starts[first] : lists.starts[last]], tile)
        loops.offer(coarse, tile, rows, skip, lists.queries, lists.starts, first, last, margin, *kept)


def _coarse(queries: Floats, tile: Floats) -> Floats:
    """(queries, rows) float32 products."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(queries @ tile.T)


def _tile_rows(lists: QueryLists, runs: list[tuple[int, int]]) -> int:
    widest = max((int(lists.starts[last] - lists.starts[first]) for first, last in runs), default=1)
    return max(64, min(TILE_ROWS, TILE_VALUES // max(widest, 1)))
