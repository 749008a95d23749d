"""The compiled loops behind `Levels`.

A level keeps its rows in pieces of PIECE places: `head` has the last piece of each level, of which the remainder of its
count is filled, and `following` the next of each piece, -1 at the end. Pieces that are free are a stack.
"""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled

PIECE = 16

# A level is 2**-11 of its bounds wide; the last has all that are below a sixteenth of those of the first.
LAST = 2**13 - 1
SHIFT = 52 - 11


@compiled
def put(keys, rows, top, head, count, pieces, following, free, n_free):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Put rows into their levels; the highest of these, and how many pieces are free then.

    Args:
        keys: (n,) the bits of float64 bounds as int64, which are in the same order; rows of those below 0 are left out.
        top: level 0 has this key and larger ones.
        count: (LAST + 1,) how many rows a level has.
        free: the pieces that are free, the first `n_free` of it.
    """
    highest = np.int64(LAST)
    for row in rows:
        if keys[row] < 0:
            continue
        level = max(0, min((top - keys[row]) >> SHIFT, LAST))
        at = count[level] % PIECE
        if at == 0:
            n_free -= 1
            following[free[n_free]] = head[level]
            head[level] = free[n_free]
        pieces[head[level], at] = row
        count[level] += 1
        highest = min(highest, level)
    return highest, n_free


@compiled
def take(level, least, head, count, pieces, following, free, n_free):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Take whole levels out, from `level` down until there are `least` rows or none left.

    Returns:
        the rows; the next level, at most the last; whether it or one below may have rows; how many pieces are free.
    """
    size, end = np.int64(0), level
    while end <= LAST and size < least:
        size += count[end]
        end += 1
    rows = np.empty(size, np.int64)
    at = 0
    for taken in range(level, end):
        while count[taken]:
            piece = head[taken]
            filled = (count[taken] - 1) % PIECE + 1
            for k in range(filled):
                rows[at] = pieces[piece, k]
                at += 1
            count[taken] -= filled
            head[taken] = following[piece]
            free[n_free] = piece
            n_free += 1
    return rows, min(end, LAST), end <= LAST, n_free
