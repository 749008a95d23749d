"""The compiled loops behind `assign`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot, square_distance


@compiled
def norms(xs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(rows,) float64 lengths."""
    out = np.empty(xs.shape[0])
    for j in range(xs.shape[0]):
        out[j] = np.sqrt(dot(xs[j], xs[j]))
    return out


@compiled(error_model="numpy")
def divide(xs, length, out):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the rows divided by their lengths to `out`; one of length 0 stays, infinity becomes NaN, which `tiles` refuses."""
    for j in range(xs.shape[0]):
        divisor = length[j] if length[j] > 0 else 1.0
        for f in range(xs.shape[1]):
            out[j, f] = np.float64(xs[j, f]) / divisor


@compiled
def nearest(coarse, tile, x_norm, centres, c_norm, margin, rows, distance, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The distance to the nearest centre and its place, ties to the first.

    A product errs by at most margin * |x| * the largest |c|; what that leaves open is worked out exactly. An infinite
    margin leaves everything open.
    """
    largest = c_norm.max()
    for j in range(tile.shape[0]):
        slack = margin * x_norm[j] * largest
        least = np.inf
        for i in range(coarse.shape[1]):
            least = min(least, 0.5 * c_norm[i] * c_norm[i] - np.float64(coarse[j, i]))
        # Roundings of the float64 terms themselves.
        floor = least + 2 * slack + 1e-14 * (largest * largest + x_norm[j] * largest)
        best, at = np.inf, -1
        for i in range(coarse.shape[1]):
            if not 0.5 * c_norm[i] * c_norm[i] - np.float64(coarse[j, i]) > floor:
                square = square_distance(tile[j], centres[i])
                if square < best:
                    best, at = square, i
        distance[rows[j]] = np.sqrt(best)
        place[rows[j]] = at


@compiled
def most_similar(coarse, tile, x_norm, centres, c_norm, margin, rows, cosine, place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The highest cosine to any centre and its place, ties to the first; place -1 where a vector or all centres are 0."""
    for j in range(tile.shape[0]):
        highest = -np.inf
        best, at = -np.inf, -1
        if x_norm[j] > 0:
            for i in range(coarse.shape[1]):
                if c_norm[i] > 0:
                    highest = max(highest, np.float64(coarse[j, i]) / c_norm[i])
            floor = highest - (2 * margin + 1e-14) * x_norm[j]
            for i in range(coarse.shape[1]):
                if c_norm[i] > 0 and not np.float64(coarse[j, i]) / c_norm[i] < floor:
                    exact = dot(tile[j], centres[i]) / (x_norm[j] * c_norm[i])
                    if exact > best:
                        best, at = exact, i
        cosine[rows[j]] = min(1.0, max(-1.0, best)) if at >= 0 else 0.0
        place[rows[j]] = at
