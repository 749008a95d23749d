"""Search from some rows of a pool: what each of them finds, and one score for each row found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selection.errors import InvalidInput
from selection.types import Floats, Pool, Reason, RetrievedRows, Rows

# Queries searched at once: 16 MiB of float32 at 1024 dimensions.
QUERY_ROWS = 4096

AGGREGATIONS = ("mean_hits", "max", "mean_all")


@dataclass(frozen=True, eq=False)
class Hits:
    """Rows that were found, each as often as it was.

    Attributes:
        anchors: (a,) the rows searched from.
        row: (hits,) int64, found.
        anchor: (hits,) int64, the place in `anchors` of the row that found it.
        similarity: (hits,) float32 of the two.
    """

    anchors: Rows
    row: Rows
    anchor: Rows
    similarity: Floats

    def as_found(self, step: str, which: Rows) -> RetrievedRows:
        """The form in which a selection tells some of them."""
        ref = self.anchors[self.anchor[which]]
        return RetrievedRows(
            step, self.row[which], Reason.of("anchor", len(which), ref=ref, value=self.similarity[which])
        )


def nearest_of(pool: Pool, anchors: Rows, k: int, within: npt.NDArray[np.bool_]) -> Hits:
    """The `k` rows most similar to each anchor among `within` (n,).

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: a search for each anchor (exact: 2*a*n*d operations); 20 bytes a hit, and `QUERY_ROWS` vectors.
    """
    vectors, rows = pool.get_vectors(), np.flatnonzero(within).astype(np.int64)
    parts: list[tuple[Rows, Rows, Floats]] = []
    for start in range(0, len(anchors) if len(rows) else 0, QUERY_ROWS):
        part = anchors[start : start + QUERY_ROWS]
        queries = np.ascontiguousarray(vectors.take(part), np.float32)
        bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(bad):
            raise InvalidInput("vectors: row {row} holds a value that is not finite", row=int(part[bad[0]]))
        similarity, found = vectors.nearest(queries, min(k, len(rows)), within=rows)
        query, place = np.nonzero(found >= 0)
        parts.append((found[query, place], query + start, similarity[query, place]))
    if not parts:
        return Hits(anchors, np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))
    return Hits(anchors, *(np.concatenate(column) for column in zip(*parts, strict=True)))


def row_scores(hits: Hits, aggregation: str, pool: Pool) -> tuple[Rows, npt.NDArray[np.float64], Rows]:
    """The rows found, a score for each, and the hit by its most similar anchor.

    Args:
        aggregation: of the similarities: "mean_hits", the mean over the anchors that found the row; "max"; "mean_all", the
            mean over all anchors.

    Returns:
        rows (r,) ascending; score (r,) float64; place of a hit (r,), that of the first anchor of equals.
    """
    rows, which = np.unique(hits.row, return_inverse=True)
    order = np.lexsort((hits.anchor, -hits.similarity, which))
    best = order[np.searchsorted(which[order], np.arange(len(rows)))]
    if aggregation == "max" or not len(rows):
        score = hits.similarity[best].astype(np.float64)
    elif aggregation == "mean_hits":
        # Added up in the order of the anchors, whatever the order in which rows were found.
        by_anchor = np.lexsort((hits.anchor, which))
        score = np.bincount(which[by_anchor], hits.similarity[by_anchor]) / np.bincount(which)
    else:
        from selection.kernels.nearest import mean_vector
        from selection.kernels.top_k import similarity_to
        from selection.vectors import restricted

        # The mean of products is the product with the mean.
        score = similarity_to(restricted(pool.get_vectors(), rows), mean_vector(pool.get_vectors(), hits.anchors))
    return rows, score, best
