"""Rows in a given order, each kept if its cosine to every row kept before it is small enough, exactly.

The cosine that decides is that of float64 arithmetic in one fixed order. Float32 products of unit vectors only filter
(see `margin`). A block of rows meets all rows kept before it in a matrix product; what is left meets the rows kept in
the same block, one after the other. So the result is that of going row by row, whatever the size of a block.
"""

from __future__ import annotations

import numpy as np

from selection.blocks import chunks
from selection.kernels.compiled import diversity as loops
from selection.kernels.compiled.assign import norms
from selection.kernels.compiled.margin import product_margin
from selection.kernels.float16 import as_float32
from selection.kernels.normalize import unit_rows
from selection.kernels.top_k import TILE_ROWS, tiles
from selection.types import Doubles, Floats, Rows, Vectors

# Rows that meet the kept ones at once.
BLOCK_ROWS = 1024


class KeptRows:
    """The rows kept so far, with room for more.

    Attributes:
        count: how many there are.
        rows: (capacity,) int64.
        xs, unit: (capacity, d) float32, as stored and at unit length.
        norm: (capacity,) float64.

    Memory: 8 d bytes a row, for those that are there.
    """

    def __init__(self, capacity: int, d: int) -> None:
        self.count = 0
        self.rows = np.empty(capacity, np.int64)
        self.xs, self.unit = np.empty((capacity, d), np.float32), np.empty((capacity, d), np.float32)
        self.norm = np.empty(capacity)

    def add(self, rows: Rows, xs: Floats, unit: Floats, norm: Doubles) -> None:
        """More rows, with their vectors."""
        new = slice(self.count, self.count + len(rows))
        self.rows[new], self.xs[new], self.unit[new], self.norm[new] = rows, xs, unit, norm
        self.count += len(rows)


def diverse_rows(vectors: Vectors, order: Rows, budget: int, *, kept: Rows, tau: float) -> tuple[Rows, Doubles, Rows]:
    """The first `budget` rows, in the given order, whose cosine to every row kept before is at most `tau`.

    Args:
        vectors: (n, d).
        order: the rows to look at, best first; none of `kept` among them.
        budget: at most this many are kept.
        kept: rows that are kept whatever they are.
        tau: the largest cosine; a zero vector has cosine 0 to every row.

    Returns:
        the rows in that order; the highest cosine of each to what was kept before it, NaN for a first row; the row that
        has it, of equals the lowest, -1 for a first row.

    Raises:
        InvalidInput: a vector is not finite; names the row, also if it would not be looked at.

    Cost: a pass over the vectors, then 2*d operations in float32 for each pair of a row looked at and a row kept before
    it, and one float64 product for those within the margin of its nearest. Memory: 8*d bytes for each kept row, and 40
    MB.
    """
    for _ in tiles(vectors, TILE_ROWS):
        pass  # only to refuse what is not finite
    d = vectors.shape[1]
    state = KeptRows(len(kept) + min(budget, len(order)), d)
    for rows in chunks(kept, BLOCK_ROWS):
        state.add(rows, *_taken(vectors, rows))
    values, nearest = [np.empty(0)], [np.empty(0, np.int64)]
    for rows in chunks(order, BLOCK_ROWS):
        room = len(kept) + budget - state.count
        if room == 0:
            break
        places, best, near = _kept_of_block(state, rows, *_taken(vectors, rows), tau, room)
        values.append(np.where(near[places] < 0, np.nan, best[places]))
        nearest.append(near[places])
    return state.rows[len(kept) : state.count], np.concatenate(values), np.concatenate(nearest)


def _taken(vectors: Vectors, rows: Rows) -> tuple[Floats, Floats, Doubles]:
    """The vectors of some rows, these at unit length, and their lengths."""
    ascending = np.argsort(rows)
    xs = np.empty((len(rows), vectors.shape[1]), np.float32)
    xs[ascending] = as_float32(vectors.take(rows[ascending]))
    norm = norms(xs)
    return xs, unit_rows(xs, norm), norm


def _kept_of_block(
    state: KeptRows, rows: Rows, xs: Floats, unit: Floats, norm: Doubles, tau: float, room: int
) -> tuple[Rows, Doubles, Rows]:
    """The places in a block of the rows that are kept, now part of `state`; each row's highest cosine and the row that has it."""
    margin = product_margin(xs.shape[1]) + 2.0**-22  # the unit vectors are rounded too
    best, near = np.full(len(rows), -np.inf), np.full(len(rows), -1, np.int64)
    for start in range(0, state.count, TILE_ROWS):
        part = slice(start, min(start + TILE_ROWS, state.count))
        places = np.flatnonzero(best <= tau)
        loops.meet_kept(
            unit[places] @ state.unit[part].T, xs, norm, places, state.xs[part], state.norm[part], state.rows[part],
            np.ones(part.stop - start, bool), tau, margin, best, near,
        )  # fmt: skip
    places = np.flatnonzero(best <= tau)
    xs, unit, norm, rows = xs[places], unit[places], norm[places], rows[places]
    kept = loops.keep_in_block(unit @ unit.T, xs, norm, rows, places, tau, margin, best, near, room)
    state.add(rows[kept], xs[kept], unit[kept], norm[kept])
    return places[kept], best, near
