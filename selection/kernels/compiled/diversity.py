"""The compiled loops behind `diversity`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.sums import dot


@compiled
def cosine(x, y, x_norm, y_norm):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The exact cosine: float64, in one fixed order; 0 where a vector is 0."""
    size = x_norm * y_norm
    return min(1.0, max(-1.0, dot(x, y) / size)) if size > 0 else 0.0


@compiled
def meet(coarse, x, x_norm, xs, norm, rows, counts, tau, margin, best, near):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """The highest exact cosine of x to the rows that count, and the lowest row that has it, given those of earlier rows.

    Infinite, with no row, once a coarse cosine shows that it is above tau.
    """
    highest = -np.inf
    for i in range(len(coarse)):
        if counts[i]:
            highest = max(highest, np.float64(coarse[i]))
    if highest - margin > tau:
        return np.inf, np.int64(-1)
    floor = max(highest - 2 * margin, best - margin)
    for i in range(len(coarse)):
        if counts[i] and coarse[i] >= floor:
            exact = cosine(x, xs[i], x_norm, norm[i])
            if exact > best or (exact == best and rows[i] < near):
                best, near = exact, rows[i]
    return best, near


@compiled
def meet_kept(coarse, block, block_norm, places, xs, norm, rows, counts, tau, margin, best, near):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Rows `places` of a block meet rows that were kept before; `coarse` is (places, kept)."""
    for j in range(len(places)):
        at = places[j]
        best[at], near[at] = meet(
            coarse[j], block[at], block_norm[at], xs, norm, rows, counts, tau, margin, best[at], near[at]
        )


@compiled
def keep_in_block(coarse, block, norm, rows, places, tau, margin, best, near, room):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Which of rows `places` of a block are kept, at most `room`: each in turn meets those kept before it.

    Args:
        coarse: (places, places); `block`, `norm`, `rows`: of these places; `best`, `near`: of the whole block, written
            to.
    """
    kept = np.zeros(len(places), np.bool_)
    for j in range(len(places)):
        if room == 0:
            break
        at = places[j]
        best[at], near[at] = meet(
            coarse[j, :j], block[j], norm[j], block, norm, rows, kept, tau, margin, best[at], near[at]
        )
        if best[at] <= tau:
            kept[j] = True
            room -= 1
    return kept
