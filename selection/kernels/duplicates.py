"""Rows whose vectors are nearly the same, looked for inside clusters.

The cosine that decides is that of float64 arithmetic in one fixed order. Float32 products only filter, with the margin of
`assign`. For the clusters see `clusters`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from selection.kernels import assign_loops
from selection.kernels import duplicates_loops as loops
from selection.kernels.assign import product_margin
from selection.kernels.unit import unit_rows
from selection.types import Dropped, Reason, Rows, Vectors

Doubles = npt.NDArray[np.float64]

BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Duplicates:
    """Rows to drop, and why.

    Attributes:
        row: (dropped,) int64, ascending.
        of: (dropped,) the row that each is a duplicate of.
        similarity: (dropped,) float64, how similar the two are.
    """

    row: Rows
    of: Rows
    similarity: Doubles

    def as_dropped(self, step: str) -> Dropped:
        """The form in which a selection tells them."""
        return Dropped(step, self.row, Reason.of("neighbour", len(self.row), ref=self.of, value=self.similarity))

    @classmethod
    def joined(cls, parts: list[Duplicates]) -> Duplicates:
        """Those of several clusters, in the order of rows."""
        row = np.concatenate([np.empty(0, np.int64), *(part.row for part in parts)])
        of = np.concatenate([np.empty(0, np.int64), *(part.of for part in parts)])
        similarity = np.concatenate([np.empty(0), *(part.similarity for part in parts)])
        order = np.argsort(row, kind="stable")
        return cls(row[order], of[order], similarity[order])


def duplicates_in(vectors: Vectors, rows: Rows, *, fixed: int, threshold: float, rule: str) -> Duplicates:
    """The rows of one cluster that are duplicates of others in it.

    Args:
        rows: of this cluster, in the order in which they are wanted, without zero vectors.
        fixed: how many of the first rows stay whatever they are.
        threshold: two rows are duplicates if their cosine is above it.
        rule: "greedy", "reference" or "component": see `selection.filters.semdedup`.

    Cost: m*m*d operations for m rows. Memory: 8*m*d bytes, BLOCK_ROWS * m * 4.
    """
    ascending = np.argsort(rows)
    xs = np.empty((len(rows), vectors.shape[1]), np.float32)
    xs[ascending] = vectors.take(rows[ascending])
    norm = assign_loops.norms(xs)
    unit = unit_rows(xs, norm)
    margin = product_margin(xs.shape[1]) + 2.0**-22  # the unit vectors are rounded too
    kept, of = np.zeros(len(rows), bool), np.full(len(rows), -1, np.int64)
    similarity, parent = np.zeros(len(rows)), np.arange(len(rows))
    for first in range(0, len(rows), BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, len(rows))
        coarse = unit[first:last] @ unit[:last].T
        if rule == "component":
            loops.join(coarse, first, xs, norm, threshold, margin, parent)
        else:
            chain = rule == "reference"
            loops.sweep(coarse, first, xs, norm, fixed, threshold, margin, chain, kept, of, similarity)
    if rule == "component":
        loops.settle(xs, norm, fixed, parent, kept, of, similarity)
    dropped = np.flatnonzero(~kept)
    return Duplicates(rows[dropped], rows[of[dropped]], similarity[dropped])
