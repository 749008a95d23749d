"""k-means++ seeding: each pick is drawn with probability proportional to its squared distance to the centres, exactly.

Squared distances only fall, so those of some earlier moment (stale) bound today's. A proposal is drawn from the stale
ones, by one cumulative sum and a bisection, and accepted with probability today's / stale: so a pick follows today's
law, while only proposals are ever measured, and those only until they are surely rejected. Float32 filters; what it
cannot decide is decided in float64 (see `nearest`). After n/2 proposals every row is measured again.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from selection.kernels import nearest_loops as loops
from selection.kernels.nearest import Doubles, Nearest, Picks
from selection.kernels.top_r import Points
from selection.types import Array, Floats, Rows

# Proposals drawn at once: few at first, for a small budget, then enough to fill the register-blocked loops. The
# schedule does not depend on the budget, so that a smaller one gives the first picks of a larger one.
FIRST_PROPOSALS = 32
MOST_PROPOSALS = 1024

# Rows of the sample that one task of `_gains` adds up, one after the other.
GAIN_ROWS = 256


def kmeans_pp(
    vectors: Points,
    budget: int,
    *,
    centres: Rows,
    order: Rows,
    rng: np.random.Generator,
    trials: int = 1,
    sample: Rows | None = None,
    max_rejects: int | None = None,
) -> Picks:
    """Draw `budget` candidates one after the other, each by its squared distance to the centres and all before it.

    Args:
        vectors: (n, d), or outer products.
        centres: the centres to begin with, at least one; they are no picks.
        order: the candidates, at least `budget`, no centre among them; random numbers are handed out in this order.
        trials: draw this many for each pick and take the one that lowers the cost of the sample most.
        sample: candidates for that, if `trials` > 1.
        max_rejects: after this many rejections in a row take a candidate uniformly (method 2 of the source).

    When every candidate coincides with a centre, the rest is drawn uniformly.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass over the vectors, then two to six proposals a pick, each of at most one product with every centre;
    with trials, a product of each trial with each row of the sample. Memory: 72 n bytes, and 4 d bytes for a centre, a
    row of the sample and each of 1024 proposals.
    Source: Arthur, Vassilvitskii 2007; rejection: Shah et al. 2025 (arXiv 2502.02085), here with a tighter envelope.
    """
    candidates = np.zeros(vectors.shape[0], bool)
    candidates[order] = True
    end = len(centres) + budget
    draw = _Draw(Nearest(vectors, centres, candidates, end), order, trials, sample, max_rejects)
    known = draw.known
    stale, cumulative = draw.masses()
    size, proposed = FIRST_PROPOSALS, 0
    while known.count < end:
        if proposed > len(order) // 2:
            known.measure(order[known.state["bound"][order] > 0])
            stale, cumulative = draw.masses()
            proposed = 0
        if not cumulative[-1] > 0:
            draw.fill(rng)
            break
        uniform = rng.random((2, size))
        place = by_mass(stale, cumulative, uniform[0])
        draw.propose(order[place], uniform[1] * stale[place], rng)
        proposed += size
        size = min(2 * size, MOST_PROPOSALS)
    picked = slice(len(centres), end)
    return Picks(known.centre_rows[picked], known.distance(draw.value[picked]), known.centre_rows[draw.near[picked]])


def by_mass(mass: Doubles, cumulative: Doubles, uniform: Doubles) -> Rows:
    """The place that each uniform number in 0 .. 1 draws, a place with probability proportional to its mass.

    >>> by_mass(np.array([1.0, 0, 3]), np.array([1.0, 1, 4]), np.array([0.2, 0.25, 1.0]))
    array([0, 2, 2])
    """
    place = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
    return np.asarray(np.minimum(place, np.flatnonzero(mass)[-1]))  # rounding may lead past the last mass


class _Draw:
    """The state of a draw beside that of its centres."""

    def __init__(self, known: Nearest, order: Rows, trials: int, sample: Rows | None, max_rejects: int | None) -> None:
        self.known, self.order = known, order
        capacity, d = known.centres.shape
        self.end = capacity
        self.value = np.zeros(capacity)
        self.near = np.full(capacity, -1, np.int64)
        self.taken = np.zeros(len(known.state), bool)
        self.rejects = np.zeros(2, np.int64)  # in a row so far, and how many are allowed
        self.rejects[1] = np.iinfo(np.int64).max if max_rejects is None else max_rejects
        # The trials of the pick to come: their vectors, row and nearest centre, value; and how many there are.
        self.trials = np.empty((trials, d), np.float32), np.empty((trials, 2), np.int64), np.empty(trials)
        self.n_trials = np.zeros(1, np.int64)
        rows = np.empty(0, np.int64) if sample is None or trials == 1 else sample
        known.measure(rows)
        self.sample = known.take(rows)
        self.sample_state = known.state[rows]

    def masses(self) -> tuple[Doubles, Doubles]:
        """What proposals are drawn from, by place in `order`, and its cumulative sum."""
        stale = self.known.state["bound"][self.order]
        return stale, np.cumsum(stale)

    def propose(self, rows: Rows, threshold: Doubles, rng: np.random.Generator) -> None:
        """Accept, one after the other, the proposals whose squared distance exceeds their threshold."""
        known = self.known
        X, state = known.take(rows), known.state[rows]
        known.refresh(X, state, np.arange(len(rows)), threshold)
        start = 0
        while start < len(rows) and known.count < self.end:
            start = self._consume(X, state, rows, threshold, start)
            if self.rejects[0] >= self.rejects[1] and known.count < self.end:
                self.rejects[0] = 0
                anyone = self._uniform(rng)
                self._consume(known.take(anyone), known.state[anyone], anyone, np.full(1, -1.0), 0)
        known.state[rows] = state

    def fill(self, rng: np.random.Generator) -> None:
        """Take what is wanted uniformly: every candidate coincides with a centre."""
        known = self.known
        left = self._left()
        new = slice(known.count, self.end)
        known.centre_rows[new] = rng.permutation(left)[: self.end - known.count]
        self.near[new] = known.state["near"][known.centre_rows[new]]
        known.count = self.end

    def _left(self) -> Rows:
        self.taken[self.known.centre_rows[: self.known.count]] = True
        return self.order[~self.taken[self.order]]

    def _uniform(self, rng: np.random.Generator) -> Rows:
        self.taken[self.known.centre_rows[: self.known.count]] = True
        while True:
            row = self.order[rng.integers(len(self.order))]
            if not self.taken[row]:
                return np.array([row])

    def _consume(self, X: Floats, state: Array, rows: Rows, threshold: Doubles, start: int) -> int:
        known = self.known
        known.count, start = _accept(
            X, state, rows, threshold, start, known.centres, known.high, known.low, known.centre_rows, known.count,
            self.end, self.value, self.near, self.rejects, *self.trials, self.n_trials, self.sample, self.sample_state,
            known.split,
        )  # fmt: skip
        return start


@njit(cache=True, nogil=True)
def _accept(  # type: ignore[no-untyped-def]  # noqa: ANN202
    X, state, rows, threshold, start, centres, high, low, centre_rows, count, end, value, near, rejects,  # noqa: ANN001
    trial, trial_row, trial_value, n_trials, sample, sample_state, split,  # noqa: ANN001
):  # fmt: skip
    """Go through proposals from `start` until all centres are there, or too many were rejected in a row.

    Returns:
        the number of centres, and the first proposal not looked at.
    """
    work = np.empty((1, loops.WORK))
    for p in range(start, len(rows)):
        if state[p].bound > threshold[p]:
            if state[p].version < count:
                loops.refresh_one(X[p], state, p, work, centres, high, low, count, threshold[p], split)
            if state[p].bound > threshold[p] and not state[p].exact:
                loops.resolve(X[p], state, p, centres, low, split)
        if not state[p].bound > threshold[p]:
            rejects[0] += 1
            if rejects[0] >= rejects[1]:
                return count, p + 1
            continue
        rejects[0] = 0
        t = n_trials[0]
        trial[t] = X[p]
        trial_row[t, 0] = rows[p]
        trial_row[t, 1] = state[p].near
        trial_value[t] = state[p].bound
        n_trials[0] = t + 1
        if t + 1 < len(trial):
            continue
        n_trials[0] = 0
        best = 0
        if len(trial) > 1:
            best = int(np.argmax(_gains(sample, sample_state, trial, split)))
            _lower(sample, sample_state, trial[best], split)
        centre_rows[count] = trial_row[best, 0]
        near[count] = trial_row[best, 1]
        value[count] = trial_value[best]
        loops.add_centre(trial[best], centres, high, low, count, split)
        count += 1
        if count == end:
            return count, p + 1
    return count, len(rows)


@njit(parallel=True, cache=True, nogil=True)
def _gains(sample, state, trial, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """(trials,) how much each would lower the cost of the sample: exact distances, summed in one order."""
    m, t = len(sample), len(trial)
    gamma = loops.margin(sample.shape[1])
    low = np.empty(t)
    for j in range(t):
        low[j] = loops.square_norm(trial[j], split) * (1.0 - gamma)
    tasks = (m + GAIN_ROWS - 1) // GAIN_ROWS
    part = np.zeros((tasks, t))
    for g in prange(tasks):
        out = np.empty((8, 4), np.float32)
        stop = min((g + 1) * GAIN_ROWS, m)
        for i in range(g * GAIN_ROWS, stop, 4):
            i1, i2, i3 = min(i + 1, stop - 1), min(i + 2, stop - 1), min(i + 3, stop - 1)
            for j in range(0, t, 4):
                j1, j2, j3 = min(j + 1, t - 1), min(j + 2, t - 1), min(j + 3, t - 1)
                loops.products_16(sample, i, i1, i2, i3, trial, j, j1, j2, j3, split, out)
                for a in range(i, min(i + 4, stop)):
                    cut = state[a].bound - state[a].square * (1.0 - gamma) + loops.TINY
                    for b in range(j, min(j + 4, t)):
                        if low[b] - 2.0 * out[a - i, b - j] < cut:
                            exact = loops.exact_square(sample[a], trial[b], split)
                            part[g, b] += max(0.0, state[a].bound - exact)
    total = np.zeros(t)
    for g in range(tasks):
        for j in range(t):
            total[j] += part[g, j]
    return total


@njit(parallel=True, cache=True, nogil=True)
def _lower(sample, state, centre, split):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Lower the sample's squared distances to those to a new centre."""
    gamma = loops.margin(sample.shape[1])
    low = loops.square_norm(centre, split) * (1.0 - gamma)
    for i in prange(len(sample)):
        cut = state[i].bound - state[i].square * (1.0 - gamma) + loops.TINY
        if low - 2.0 * loops.product(sample[i], centre, split) < cut:
            state[i].bound = min(state[i].bound, loops.exact_square(sample[i], centre, split))
