"""The compiled loops behind `neighbor_graph`.

Of distances: a pair's squared distance is |q|^2 + |x|^2 - 2 q.x. With a float32 product it errs by at most 2 (margin |q| |x| + tiny), and by a
little rounding of the float64 terms. Comparisons are written so that a NaN from an overflow leaves a pair to be worked
out.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot, square_distance
from selection.kernels.compiled.top_k import cut

ROUNDING = 1e-13


@compiled
def offer(coarse, asked, rows, skip, slack, depth, product, row, size, floor, crowded):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Offer the rows of a tile to each asked row, which keeps all that may be among its `depth` nearest.

    What lies more than `slack` below the depth-th product of the latest cut is out (`floor`). A list that a cut does
    not make much shorter is `crowded` and given up.
    """
    room = product.shape[1]
    for i in range(coarse.shape[0]):
        if crowded[i]:
            continue
        for j in range(coarse.shape[1]):
            if np.float64(coarse[i, j]) < floor[i] or skip[rows[j]] or rows[j] == asked[i]:
                continue
            product[i, size[i]] = coarse[i, j]
            row[i, size[i]] = rows[j]
            size[i] += 1
            if size[i] == room:
                size[i] = shorten(product[i], row[i], room, depth, slack)
                floor[i] = np.float64(product[i, depth - 1]) - slack
                if size[i] > (room + depth) // 2:
                    crowded[i] = True
                    break


@compiled
def shorten(product, row, size, depth, slack):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Bring the `depth` highest products to the front, the last of them to depth-1, and then those within the slack of it.

    Returns:
        how many these are together.
    """
    cut(product, row, size, depth)
    least = np.float64(product[depth - 1]) - slack
    kept = depth
    for at in range(depth, size):
        if np.float64(product[at]) >= least:
            product[kept], product[at] = product[at], product[kept]
            row[kept], row[at] = row[at], row[kept]
            kept += 1
    return kept


@compiled
def settle(depth, slack, product, row, size, sure, crowded, nearest):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write the rows that are among the nearest for sure to `nearest`, and bring them to the front of their list.

    `sure` and `size` bound the rows between, of which some are to be chosen: there are none if all that are left are
    in.
    """
    for i in range(len(size)):
        if crowded[i]:
            continue
        kept = shorten(product[i], row[i], size[i], depth, slack) if size[i] > depth else size[i]
        front = kept
        if kept > depth:
            most = np.float64(product[i, depth - 1]) + slack
            front = 0
            for at in range(kept):
                if np.float64(product[i, at]) > most:
                    product[i, front], product[i, at] = product[i, at], product[i, front]
                    row[i, front], row[i, at] = row[i, at], row[i, front]
                    front += 1
        nearest[i, :front] = row[i, :front]
        size[i] = kept
        sure[i] = front


@compiled
def pair_products(queries, which, xs):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """(pairs,) the exact inner product of queries[which[p]] and xs[p]."""
    out = np.empty(len(which))
    for p in range(len(which)):
        out[p] = dot(xs[p], queries[which[p]])
    return out


@compiled
def within(coarse, queries, q_norm, tile, x_norm, margin, tiny, distance, near):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """near[i, j] = whether tile[j] lies within the distance of queries[i]."""
    limit = distance * distance
    for i in range(coarse.shape[0]):
        for j in range(coarse.shape[1]):
            squares = q_norm[i] * q_norm[i] + x_norm[j] * x_norm[j]
            about = squares - 2.0 * np.float64(coarse[i, j])
            slack = 2.0 * (margin * q_norm[i] * x_norm[j] + tiny) + ROUNDING * (squares + limit)
            if about > limit + slack:
                near[i, j] = False
            elif about < limit - slack:
                near[i, j] = True
            else:
                near[i, j] = np.sqrt(square_distance(tile[j], queries[i])) <= distance


@compiled
def nearest_other(coarse, queries, q_norm, q_place, tile, x_norm, x_place, margin, tiny, square):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lower square[i] to the squared distance from queries[i] to the rows of the tile that are in another cluster."""
    for i in range(coarse.shape[0]):
        for j in range(coarse.shape[1]):
            if x_place[j] < 0 or x_place[j] == q_place[i]:
                continue
            squares = q_norm[i] * q_norm[i] + x_norm[j] * x_norm[j]
            least = squares - 2.0 * np.float64(coarse[i, j])
            least -= 2.0 * (margin * q_norm[i] * x_norm[j] + tiny) + ROUNDING * squares
            if not least > square[i]:
                square[i] = min(square[i], square_distance(tile[j], queries[i]))


@compiled
def turned(neighbours):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Starts and rows of the lists of a graph whose edges are turned round; -1 is no edge."""
    n, k = neighbours.shape
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        for e in range(k):
            if neighbours[i, e] >= 0:
                starts[neighbours[i, e] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    place = starts[:-1].copy()
    row = np.empty(starts[n], np.int32)
    for i in range(n):
        for e in range(k):
            j = neighbours[i, e]
            if j >= 0:
                row[place[j]] = i
                place[j] += 1
    return starts, row
