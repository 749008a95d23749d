"""Search from some rows of a pool: the neighbors of each, and one score for each row among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selection.blocks import check_finite, restricted
from selection.kernels.compiled.neighbor_graph import pair_products
from selection.kernels.normalize import UnitVectors, unit_rows, unit_vectors
from selection.pool import Pool
from selection.types import Array, Doubles, Floats, Mask, Reason, RetrievedRows, Rows, Vectors
from selection.vectors import is_exact, nearest_rows

# Queries searched at once: 16 MiB of float32 at 1024 dimensions.
QUERY_ROWS = 4096
# Queries whose neighbors of an index are compared again at once.
COMPARED_AT_ONCE = 64

AGGREGATIONS = ("mean_hits", "max", "mean_all")


class CosineSearch(UnitVectors):
    """Vectors at unit length, whose `nearest` goes by cosine.

    An index finds rows by the inner product with the vectors as they are stored; these are then compared by cosine.
    """

    vectors: Vectors

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest cosine to each query, never above 1; see `Vectors.nearest`."""
        queries = unit_rows(queries)
        if is_exact(self.vectors):
            similarity, row = nearest_rows(unit_vectors(self.vectors), queries, k, within)
        else:
            _, row = self.vectors.nearest(queries, k, within)
            similarity = np.full(row.shape, -np.inf, np.float32)
            for start in range(0, len(queries), COMPARED_AT_ONCE):
                query, place = np.nonzero(row[start : start + COMPARED_AT_ONCE] >= 0)
                query += start
                similarity[query, place] = pair_products(queries, query, self.take(row[query, place]))
            order = np.lexsort((row, -similarity), axis=-1)
            similarity, row = np.take_along_axis(similarity, order, 1), np.take_along_axis(row, order, 1)
        return np.minimum(similarity, np.float32(1)), row

    def restricted(self, rows: Rows) -> CosineSearch:
        """Some rows in a frame of their own."""
        return CosineSearch(restricted(self.vectors, rows))


def search_vectors(pool: Pool, version: int) -> Vectors:
    """The vectors to search: by cosine where they stand for vectors of length 1, but not in version 1."""
    vectors = pool.get_vectors()
    return CosineSearch(vectors) if pool.unit_length and version > 1 else vectors


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Pairs of an anchor and a row that its search retrieved.

    Attributes:
        anchors: (a,) the rows searched from.
        row: (pairs,) int64, retrieved.
        anchor: (pairs,) int64, the place in `anchors` of the row that retrieved it.
        similarity: (pairs,) float32 of the two.
    """

    anchors: Rows
    row: Rows
    anchor: Rows
    similarity: Floats

    def as_retrieved(self, step: str, pairs: Rows) -> RetrievedRows:
        """Some pairs in the form that a selection reports."""
        ref = self.anchors[self.anchor[pairs]]
        return RetrievedRows(
            step, self.row[pairs], Reason.of("anchor", len(pairs), ref=ref, value=self.similarity[pairs])
        )


def nearest_of(vectors: Vectors, anchors: Rows, k: int, within: Mask) -> Neighbors:
    """The `k` rows most similar to each anchor among `within` (n,).

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: a search for each anchor (exact: 2*a*n*d operations); 20 bytes a pair, and `QUERY_ROWS` vectors.
    """
    rows = np.flatnonzero(within).astype(np.int64)
    parts: list[tuple[Rows, Rows, Floats]] = []
    for start in range(0, len(anchors) if len(rows) else 0, QUERY_ROWS):
        part = anchors[start : start + QUERY_ROWS]
        queries = np.ascontiguousarray(vectors.take(part), np.float32)
        check_finite(queries, part)
        similarity, row = vectors.nearest(queries, min(k, len(rows)), within=rows)
        query, place = np.nonzero(row >= 0)
        parts.append((row[query, place], query + start, similarity[query, place]))
    if not parts:
        return Neighbors(anchors, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return Neighbors(anchors, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def row_scores(neighbors: Neighbors, aggregation: str, vectors: Vectors) -> tuple[Rows, Doubles, Rows]:
    """The rows retrieved, a score for each, and the pair with its most similar anchor.

    Args:
        aggregation: of the similarities: "mean_hits", the mean over the anchors that retrieved the row; "max";
            "mean_all", the mean over all anchors.

    Returns:
        rows (r,) ascending; score (r,) float64; place of a pair (r,), that of the first anchor of equals.
    """
    rows, which = np.unique(neighbors.row, return_inverse=True)
    order = np.lexsort((neighbors.anchor, -neighbors.similarity, which))
    best = order[np.searchsorted(which[order], np.arange(len(rows)))]
    if aggregation == "max" or not len(rows):
        score = neighbors.similarity[best].astype(np.float64)
    elif aggregation == "mean_hits":
        # Added up in the order of the anchors, whatever the order in which rows were retrieved.
        by_anchor = np.lexsort((neighbors.anchor, which))
        score = np.bincount(which[by_anchor], neighbors.similarity[by_anchor]) / np.bincount(which)
    else:
        from selection.kernels.nearest import mean_vector
        from selection.kernels.top_k import similarity_to

        # The mean of products is the product with the mean.
        score = similarity_to(restricted(vectors, rows), mean_vector(vectors, neighbors.anchors))
    return rows, score, best
