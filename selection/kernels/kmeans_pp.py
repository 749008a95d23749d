"""k-means++ seeding: each pick is drawn with probability proportional to its squared distance to the centres, exactly.

Squared distances only fall, so those of some earlier moment (stale) bound today's. A proposal is drawn from the stale
ones, by one cumulative sum and a bisection, and accepted with probability today's / stale: so a pick follows today's
law, while only proposals are ever measured, and those only until they are surely rejected. Float32 filters; what it
cannot decide is decided in float64 (see `nearest`). After n/2 proposals every row is measured again.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from selection.kernels.compiled import nearest as loops
from selection.kernels.compiled.jit import compiled
from selection.kernels.compiled.products import LANES, ROWS, packed
from selection.kernels.nearest import Doubles, Nearest, Picks, put
from selection.kernels.top_k import Points
from selection.types import Array, Floats, Rows

# Proposals drawn at once: few at first, for a small budget, then enough to fill the register-blocked loops. The
# schedule does not depend on the budget, so that a smaller one gives the first picks of a larger one.
FIRST_PROPOSALS = 32
MOST_PROPOSALS = 1024

# Rows of the sample that one task of `_gains` adds up, one after the other; a multiple of LANES.
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
    scale: Doubles | None = None,
) -> Picks:
    """Draw `budget` candidates one after the other, each by its squared distance to the centres and all before it.

    Args:
        vectors: (n, d), or outer products.
        centres: the centres to begin with, at least one; they are no picks.
        order: the candidates, at least `budget`, no centre among them; random numbers are handed out in this order.
        trials: draw this many for each pick and take the one that lowers the cost of the sample most.
        sample: candidates for that, if `trials` > 1.
        max_rejects: after this many rejections in a row take a candidate uniformly (method 2 of the source).
        scale: (n,) float64 >= 0 that multiplies squared distances, in the law, the cost and what is given.

    When every candidate coincides with a centre or has a scale of 0, the rest is drawn uniformly.

    Raises:
        InvalidInput: a vector is not finite; names the row.

    Cost: one pass over the vectors, then two to six proposals a pick, each of at most one product with every centre;
    with trials, a product of each trial with each row of the sample. Memory: 72 n bytes, 8 d bytes for a
    centre and a row of the sample, 4 d for each of 1024 proposals.
    Source: Arthur, Vassilvitskii 2007; rejection: Shah et al. 2025 (arXiv 2502.02085), here with a tighter envelope.
    """
    candidates = np.zeros(vectors.shape[0], bool)
    candidates[order] = True
    end = len(centres) + budget
    draw = _Draw(Nearest(vectors, centres, candidates, end, scale), order, trials, sample, max_rejects)
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
        self.sample = None if sample is None or trials == 1 else _Sample(known, sample)

    def masses(self) -> tuple[Doubles, Doubles]:
        """What proposals are drawn from, by place in `order`, and its cumulative sum."""
        stale = self.known.state["bound"][self.order]
        return stale, np.cumsum(stale)

    def propose(self, rows: Rows, threshold: Doubles, rng: np.random.Generator) -> None:
        """Accept, one after the other, the proposals whose squared distance exceeds their threshold."""
        known = self.known
        X, state = known.take(rows), known.state.take(rows)
        known.refresh(X, state, threshold)
        start = 0
        while start < len(rows) and known.count < self.end:
            start = self._consume(X, state, rows, threshold, start)
            if self.rejects[0] >= self.rejects[1] and known.count < self.end:
                self.rejects[0] = 0
                anyone = self._uniform(rng)
                self._consume(known.take(anyone), known.state[anyone], anyone, np.full(1, -1.0), 0)
        put(known.state, rows, state)

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
        known, (trial, trial_row, trial_value) = self.known, self.trials
        start = _accept(
            X, state, rows, threshold, start, known.centres, known.high, known.low, known.count,
            self.rejects, trial, trial_row, trial_value, self.n_trials, known.split,
        )  # fmt: skip
        if self.n_trials[0] == len(trial):
            best = 0 if self.sample is None else self.sample.take_best(trial)
            self.near[known.count], self.value[known.count] = trial_row[best, 1], trial_value[best]
            known.add(trial[best], trial_row[best, 0])
            self.n_trials[0] = 0
        return start


class _Sample:
    """Rows on which trials are compared, and their squared distance to the nearest centre."""

    def __init__(self, known: Nearest, rows: Rows) -> None:
        known.measure(rows)
        self.threads, self.split = known.threads, known.split
        self.X, self.state = known.take(rows), known.state.take(rows)
        scale = self.state["scale"]  # counts in the gains alone
        self.state["bound"] = np.divide(self.state["bound"], scale, out=np.zeros(len(rows)), where=scale > 0)
        self.packed = packed(self.X)

    def take_best(self, trial: Floats) -> int:
        """The trial that lowers the cost most, the first of equals; it becomes a centre."""
        gains, products = self.gains(trial)
        best = int(np.argmax(gains))
        lower = partial(_lower, self.X, self.state, products[best], trial[best], self.split)
        self.threads.run(lower, len(self.X), GAIN_ROWS)
        return best

    def gains(self, trial: Floats) -> tuple[Doubles, Floats]:
        """(trials,) how much each would lower the cost: exact, summed in one order; and (trials, sample) float32 products."""
        m, t = len(self.X), len(trial)
        products = np.empty((t, len(self.packed) * LANES), np.float32)
        part = np.zeros((-(-m // GAIN_ROWS), t))
        gain = partial(_gains, self.X, self.state, self.packed, trial, self.split, products, part)
        self.threads.run(gain, m, GAIN_ROWS)
        return part.sum(axis=0), products


@compiled
def _accept(  # type: ignore[no-untyped-def]  # noqa: ANN202
    X, state, rows, threshold, start, centres, high, low, count, rejects,  # noqa: ANN001
    trial, trial_row, trial_value, n_trials, split,  # noqa: ANN001
):  # fmt: skip
    """Go through proposals from `start` until the trials of a pick are there, or too many were rejected in a row.

    Returns:
        the first proposal not looked at.
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
def _gains(X, state, packed, trial, split, products, part, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Write what each trial gains on rows start .. stop-1 of the sample to part[start // GAIN_ROWS]."""
    gamma = loops.margin(X.shape[1])
    out = np.empty((2, ROWS, LANES), np.float32)
    places = np.empty(ROWS, np.int64)
    task = start // GAIN_ROWS
    for j in range(0, len(trial), ROWS):
        for e in range(ROWS):
            places[e] = min(j + e, len(trial) - 1)
        for group in range(start // LANES, (stop + LANES - 1) // LANES):
            loops.products(trial, places, packed, group, split, out)
            for e in range(min(ROWS, len(trial) - j)):
                low = loops.square_norm(trial[j + e], split) * (1.0 - gamma)
                for i in range(group * LANES, min((group + 1) * LANES, stop)):
                    products[j + e, i] = out[0, e, i - group * LANES]
                    cut = state[i].bound - state[i].square * (1.0 - gamma) + loops.TINY
                    if low - 2.0 * products[j + e, i] < cut:
                        exact = loops.exact_square(X[i], trial[j + e], split)
                        part[task, j + e] += state[i].scale * max(0.0, state[i].bound - exact)


@compiled
def _lower(X, state, products, centre, split, start, stop):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Lower the squared distances of rows start .. stop-1 to those to a new centre, given its products."""
    gamma = loops.margin(X.shape[1])
    low = loops.square_norm(centre, split) * (1.0 - gamma)
    for i in range(start, stop):
        cut = state[i].bound - state[i].square * (1.0 - gamma) + loops.TINY
        if low - 2.0 * products[i] < cut:
            state[i].bound = min(state[i].bound, loops.exact_square(X[i], centre, split))
