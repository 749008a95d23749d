"""Class probabilities read in blocks, checked in the same pass: one row, one distribution (or one for each member).

They may come from a model as they are read, so they are checked where they are used, not when the pool is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from selection.errors import InvalidInput
from selection.types import Array, Doubles, Floats, RowBlocks, Rows

SUM_TOLERANCE = 1e-3  # what float16 may lose
TILE_VALUES = 2**16  # probabilities at once, as float64: half a MiB, which stays in the caches


def tiles(blocks: RowBlocks, name: str) -> Iterator[tuple[Rows, Doubles]]:
    """Yield `(rows, float64 tile)`: every row once, in storage order, checked.

    Args:
        blocks: (n, C), or (n, members, C).
        name: how messages name them.

    Raises:
        InvalidInput: a value is negative or not finite, or a sum is not 1 to within 1e-3, names the row; or they are no
            numbers.
    """
    at_once = max(1, TILE_VALUES // max(1, int(np.prod(blocks.shape[1:]))))
    for rows, block in blocks.blocks():
        for start in range(0, len(rows), at_once):
            part = np.ascontiguousarray(rows[start : start + at_once], np.int64)
            yield part, checked(block[start : start + at_once], part, name)


def taken(blocks: RowBlocks, rows: Rows, name: str) -> Doubles:
    """(len(rows), ...) float64 of some rows, checked as by `tiles`."""
    return checked(blocks.take(rows), rows, name)


def checked(values: Array, rows: Rows | None, name: str) -> Doubles:
    """The same in contiguous float64, where each distribution along the last axis is one.

    Args:
        values: (r, C), or (r, members, C).
        rows: (r,) what to call them; their places by default.

    Raises:
        InvalidInput: see `tiles`.
    """
    from selection.kernels.compiled.probabilities import first_bad

    if np.asarray(values).dtype.kind not in "fiub":
        raise InvalidInput(f"{name}: must be numbers, got {np.asarray(values).dtype}")
    tile = np.ascontiguousarray(values, np.float64)
    if tile.size == 0 and len(tile):
        raise InvalidInput(f"{name}: needs at least one class and one member, got shape {tile.shape} (rows first)")
    flat = tile.reshape(-1, tile.shape[-1])
    bad = int(first_bad(flat, SUM_TOLERANCE))
    if bad < 0:
        return tile
    place, member = divmod(bad, len(flat) // len(tile))
    p = flat[bad]
    wrong = p[~np.isfinite(p) | (p < 0)]
    fault = f"holds {wrong[0]:g}, must be finite and >= 0" if len(wrong) else f"sums to {p.sum():.6g}, must sum to 1"
    where = f", member {member}" if tile.ndim == 3 else ""
    raise InvalidInput(f"{name}: row {{row}}{where} {fault}", row=place if rows is None else int(rows[place]))


def by_row(blocks: RowBlocks, name: str, loop: Callable[..., None], *arguments: Any) -> Floats:
    """(n,) float32 of what a loop of `compiled.probabilities` makes of each row, in one pass.

    Cost: that of the loop; one tile of float64 and n floats beside what the blocks hold.
    """
    out = np.empty(blocks.shape[0], np.float32)
    for rows, tile in tiles(blocks, name):
        loop(tile, *arguments, rows, out)
    return out
