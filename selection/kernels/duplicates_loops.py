"""The compiled loops behind `duplicates`; numba caches what it compiles beside this file."""

from __future__ import annotations

import numpy as np
from numba import njit

from selection.kernels.sums import dot


@njit(cache=True, nogil=True)
def add_rows(xs, place, total):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """total[place[j]] += xs[j], one row after the other."""
    for j in range(xs.shape[0]):
        if place[j] >= 0:
            for i in range(xs.shape[1]):
                total[place[j], i] += np.float64(xs[j, i])


@njit(cache=True, nogil=True)
def cosine(xs, norm, a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact cosine: float64, in one fixed order."""
    return min(1.0, dot(xs[a], xs[b]) / (norm[a] * norm[b]))


@njit(cache=True, nogil=True)
def sweep(coarse, first, xs, norm, fixed, threshold, margin, chain, kept, of, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Decide rows first .. first + len(coarse) - 1, in order, given their coarse cosines to all rows up to them.

    A row is dropped if its highest cosine to an earlier row is above the threshold; with `chain` to any earlier row,
    else to a kept one. Rows below `fixed` are kept whatever they are.
    """
    for j in range(coarse.shape[0]):
        at = first + j
        kept[at] = True
        if at < fixed:
            continue
        highest = -np.inf
        for i in range(at):
            if chain or kept[i]:
                highest = max(highest, np.float64(coarse[j, i]))
        if highest + margin <= threshold:
            continue
        best, who = -np.inf, -1
        for i in range(at):
            if (chain or kept[i]) and coarse[j, i] >= highest - 2 * margin:
                exact = cosine(xs, norm, at, i)
                if exact > best:
                    best, who = exact, i
        if best > threshold:
            kept[at] = False
            of[at] = who
            similarity[at] = best


@njit(cache=True, nogil=True)
def root(parent, i):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The first row of the component of row i."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def join(coarse, first, xs, norm, threshold, margin, parent):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Join rows first .. with every earlier row whose cosine is above the threshold."""
    for j in range(coarse.shape[0]):
        at = first + j
        for i in range(at):
            if coarse[j, i] + margin > threshold and (
                coarse[j, i] - margin > threshold or cosine(xs, norm, at, i) > threshold
            ):
                a, b = root(parent, at), root(parent, i)
                parent[max(a, b)] = min(a, b)


@njit(cache=True, nogil=True)
def settle(xs, norm, fixed, parent, kept, of, similarity):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Keep the first row of each component, and those below `fixed`."""
    for at in range(len(parent)):
        first = root(parent, at)
        kept[at] = first == at or at < fixed
        if not kept[at]:
            of[at] = first
            similarity[at] = cosine(xs, norm, at, first)
