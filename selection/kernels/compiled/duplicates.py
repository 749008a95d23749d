"""The compiled loops behind `duplicates`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot
from selection.types import Floats, Ints, Rows

# The first row of a block; where the pairs of each of its rows start; the earlier row of each pair, ascending; its
# coarse cosine.
Pairs = tuple[int, Rows, Ints, Floats]


@compiled
def add_rows(xs, place, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """total[place[j]] += xs[j], one row after the other."""
    for j in range(xs.shape[0]):
        if place[j] >= 0:
            for i in range(xs.shape[1]):
                total[place[j], i] += np.float64(xs[j, i])


@compiled
def cosine(xs, norm, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact cosine: float64, in one fixed order."""
    return min(1.0, dot(xs[a], xs[b]) / (norm[a] * norm[b]))


@compiled
def above(coarse, first, low, counts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Starts, earlier rows and coarse cosines of the pairs above `low` of rows first .. and the rows that count before each."""
    starts = np.zeros(coarse.shape[0] + 1, np.int64)
    for j in range(coarse.shape[0]):
        count = 0
        for i in range(first + j):
            count += (coarse[j, i] > low) & counts[i]
        starts[j + 1] = starts[j] + count
    earlier, value = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
    for j in range(coarse.shape[0]):
        at = starts[j]
        if at == starts[j + 1]:
            continue
        for i in range(first + j):
            if coarse[j, i] > low and counts[i]:
                earlier[at], value[at] = i, coarse[j, i]
                at += 1
    return starts, earlier, value


@compiled
def sweep(  # type: ignore[no-untyped-def]  # noqa: ANN201
    first, starts, earlier, coarse, xs, norm, fixed, threshold, margin, counts, kept, of, similarity,  # noqa: ANN001
):  # fmt: skip
    """Decide rows first .. in order, given the pairs of each with earlier rows that may be above the threshold.

    A row is dropped if its highest cosine to an earlier row that counts is above the threshold. Rows below `fixed` are
    kept whatever they are. `counts` may be `kept` itself: then a row that is dropped here counts no more.
    """
    for j in range(len(starts) - 1):
        at = first + j
        if at < fixed:
            continue
        highest = -np.inf
        for e in range(starts[j], starts[j + 1]):
            if counts[earlier[e]]:
                highest = max(highest, np.float64(coarse[e]))
        best = threshold
        for e in range(starts[j], starts[j + 1]):
            i = earlier[e]
            if counts[i] and coarse[e] >= highest - 2 * margin:
                exact = cosine(xs, norm, at, i)
                if exact > best:
                    best = exact
                    kept[at], of[at], similarity[at] = False, i, exact


@compiled
def root(parent, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The first row of the component of row i."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def join(first, starts, earlier, coarse, xs, norm, threshold, margin, parent):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Join rows first .. with every earlier row whose cosine is above the threshold, given the pairs that may be."""
    for j in range(len(starts) - 1):
        for e in range(starts[j], starts[j + 1]):
            if coarse[e] - margin > threshold or cosine(xs, norm, first + j, earlier[e]) > threshold:
                a, b = root(parent, first + j), root(parent, earlier[e])
                parent[max(a, b)] = min(a, b)


@compiled
def settle(xs, norm, fixed, parent, kept, of, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep the first row of each component, and those below `fixed`."""
    for at in range(len(parent)):
        first = root(parent, at)
        kept[at] = first == at or at < fixed
        if not kept[at]:
            of[at] = first
            similarity[at] = cosine(xs, norm, at, first)
