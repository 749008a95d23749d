"""Rows whose vectors are nearly the same, looked for inside clusters.

The cosine that decides is that of float64 arithmetic in one fixed order. Float32 products only filter (see
`margin`). For the clusters see `clusters`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from selection.kernels.compiled import assign as assign_loops
from selection.kernels.compiled import duplicates as loops
from selection.kernels.compiled.duplicates import Pairs
from selection.kernels.compiled.margin import product_margin
from selection.kernels.device import duplicates as device
from selection.kernels.normalize import unit_rows
from selection.types import DeviceVectors, Doubles, Duplicates, Floats, GroupedVectors, Mask, Points, Rows

# Rows compared at once with all before them, and pairs that this may be.
BLOCK_ROWS = 1024
BLOCK_VALUES = 2**24


def duplicates_in(vectors: Points, rows: Rows, *, fixed: int, threshold: float, rule: str) -> Duplicates:
    """The rows of one cluster that are duplicates of others in it.

    Args:
        rows: of this cluster, in the order in which they are wanted, without zero vectors.
        fixed: how many of the first rows stay whatever they are.
        threshold: two rows are duplicates if their cosine is above it.
        rule: "greedy", "reference" or "component": see `selection.filters.semdedup`.

    Cost: m*m*d operations for m rows. Memory: 8*m*d bytes, and 20 for each pair of a block: at most BLOCK_VALUES, or
    one row's.
    """
    ascending = np.argsort(rows)
    xs = np.empty((len(rows), vectors.shape[1]), np.float32)
    xs[ascending] = vectors.take(rows[ascending])
    norm = assign_loops.norms(xs)
    margin = product_margin(xs.shape[1]) + 2.0**-22  # the unit vectors are rounded too
    # A row is dropped, or joined, for a pair above the threshold only, and the coarse cosine of such a pair is above
    # this.
    low = np.nextafter(np.float32(threshold - margin), np.float32(-np.inf))
    kept, of = np.ones(len(rows), bool), np.full(len(rows), -1, np.int64)
    similarity, parent = np.zeros(len(rows)), np.arange(len(rows))
    counts = kept if rule == "greedy" else np.ones(len(rows), bool)  # of "greedy", dropped rows drop no others
    if isinstance(vectors, DeviceVectors):
        pairs_by_block = device.pairs_above(vectors, rows, blocks(len(rows)), low, counts)
    else:
        pairs_by_block = _pairs_above(unit_rows(xs, norm), low, counts)
    for pairs in pairs_by_block:
        if rule == "component":
            loops.join(*pairs, xs, norm, threshold, margin, parent)
        else:
            loops.sweep(*pairs, xs, norm, fixed, threshold, margin, counts, kept, of, similarity)
    if rule == "component":
        loops.settle(xs, norm, fixed, parent, kept, of, similarity)
    dropped = np.flatnonzero(~kept)
    return Duplicates(rows[dropped], rows[of[dropped]], similarity[dropped])


def duplicates_by_group(
    vectors: Points, groups: Sequence[Rows], fixed: Sequence[int], *, threshold: float, rule: str
) -> Iterator[Duplicates]:
    """What `duplicates_in` finds in each of some clusters; where other processes can read the vectors, they look.

    Args:
        groups: the rows of each cluster, none empty.
        fixed: one number a cluster.
    """
    if isinstance(vectors, GroupedVectors):
        work = partial(_of_group, threshold=threshold, rule=rule)
        in_group = vectors.map_groups(work, groups, [(count,) for count in fixed])
        for rows, (row, of, similarity) in zip(groups, in_group, strict=True):
            yield Duplicates(rows[row], rows[of], similarity)
        return
    for rows, count in zip(groups, fixed, strict=True):
        yield duplicates_in(vectors, rows, fixed=count, threshold=threshold, rule=rule)


def _of_group(points: Points, fixed: int, *, threshold: float, rule: str) -> tuple[Rows, Rows, Doubles]:
    pairs = duplicates_in(points, np.arange(points.shape[0]), fixed=fixed, threshold=threshold, rule=rule)
    return pairs.row, pairs.of, pairs.similarity


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """First row and end of each block of `count` rows."""
    size = max(1, min(BLOCK_ROWS, BLOCK_VALUES // max(1, count)))
    for first in range(0, count, size):
        yield first, min(first + size, count)


def _pairs_above(unit: Floats, low: np.float32, counts: Mask) -> Iterator[Pairs]:
    """Yield, block by block, the pairs of a row and one before it that counts by then, of a float32 cosine above `low`."""
    for first, last in blocks(len(unit)):
        yield first, *loops.above(unit[first:last] @ unit[:last].T, first, low, counts)
