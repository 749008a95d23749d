"""The compiled loops behind `kmeans_pp`."""

from __future__ import annotations

import numpy as np

from selection.kernels.compiled import nearest
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.margin import distance_margin
from selection.kernels.compiled.products import LANES, ROWS

# Rows of the sample that one task of `gains` adds up, one after the other; a multiple of LANES.
GAIN_ROWS = 256


@compiled
def accept(  # type: ignore[no-untyped-def]  # noqa: ANN201
    X, state, rows, threshold, start, centres, high, low, count, rejects,  # noqa: ANN001
    trial, trial_row, trial_value, n_trials, split,  # noqa: ANN001
):  # fmt: skip
    """Go through proposals from `start` until the trials of a pick are there, or too many were rejected in a row.

    Returns:
        the first proposal not looked at.
    """
    work = np.empty((1, nearest.WORK))
    for p in range(start, len(rows)):
        if state[p].bound > threshold[p]:
            if state[p].version < count:
                nearest.refresh_one(X[p], state, p, work, centres, high, low, count, threshold[p], split)
            if state[p].bound > threshold[p] and not state[p].exact:
                nearest.resolve(X[p], state, p, centres, low, split)
        if not state[p].bound > threshold[p]:
            rejects[0] += 1
            if rejects[0] >= rejects[1]:
                return p + 1
            continue
        rejects[0] = 0
        t = n_trials[0]
        for f in range(X.shape[1]):  # the assignment of a row would compile for seconds
            trial[t, f] = X[p, f]
        trial_row[t, 0] = rows[p]
        trial_row[t, 1] = state[p].near
        trial_value[t] = state[p].bound
        n_trials[0] = t + 1
        if t + 1 == len(trial):
            return p + 1
    return len(rows)


@compiled
def gains(X, state, packed, trial, split, products, part, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Write what each trial gains on rows start .. stop-1 of the sample to part[start // GAIN_ROWS]."""
    gamma = distance_margin(X.shape[1])
    out = np.empty((2, ROWS, LANES), np.float32)
    places = np.empty(ROWS, np.int64)
    task = start // GAIN_ROWS
    for j in range(0, len(trial), ROWS):
        for e in range(ROWS):
            places[e] = min(j + e, len(trial) - 1)
        for group in range(start // LANES, (stop + LANES - 1) // LANES):
            nearest.products(trial, places, packed, group, split, out)
            for e in range(min(ROWS, len(trial) - j)):
                low = nearest.square_norm(trial[j + e], split) * (1.0 - gamma)
                for i in range(group * LANES, min((group + 1) * LANES, stop)):
                    products[j + e, i] = out[0, e, i - group * LANES]
                    cut = state[i].bound - state[i].square * (1.0 - gamma) + nearest.TINY
                    if low - 2.0 * products[j + e, i] < cut:
                        exact = nearest.exact_square(X[i], trial[j + e], split)
                        part[task, j + e] += state[i].scale * max(0.0, state[i].bound - exact)


@compiled
def lower(X, state, products, centre, split, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Lower the squared distances of rows start .. stop-1 to those to a new centre, given its products."""
    gamma = distance_margin(X.shape[1])
    low = nearest.square_norm(centre, split) * (1.0 - gamma)
    for i in range(start, stop):
        cut = state[i].bound - state[i].square * (1.0 - gamma) + nearest.TINY
        if low - 2.0 * products[i] < cut:
            state[i].bound = min(state[i].bound, nearest.exact_square(X[i], centre, split))
