"""k-means++ seeding: each pick is drawn with probability proportional to its squared distance to the centres, exactly.

Squared distances only fall, so those of some earlier moment (stale) bound today's. A proposal is drawn from the stale
ones, by one cumulative sum and a bisection, and accepted with probability today's / stale: so a pick follows today's
law, while only proposals are ever measured, and those only until they are surely rejected. Float32 filters; what it
cannot decide is decided in float64 (see `nearest`). After n/2 proposals every row is measured again.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from selection.kernels.compiled import kmeans_pp as loops
from selection.kernels.compiled.kmeans_pp import GAIN_ROWS
from selection.kernels.compiled.products import LANES, packed
from selection.kernels.nearest import Nearest, Picks, put_records
from selection.types import Array, Doubles, Floats, Points, Rows

# Proposals drawn at once: few at first, for a small budget, then enough to fill the register-blocked loops. The
# schedule does not depend on the budget, so that a smaller one gives the first picks of a larger one.
FIRST_PROPOSALS = 32
MOST_PROPOSALS = 1024


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
                row = self._uniform(rng)
                self._consume(known.take(row), known.state[row], row, np.full(1, -1.0), 0)
        put_records(known.state, rows, state)

    def fill(self, rng: np.random.Generator) -> None:
        """Take what is wanted uniformly: every candidate coincides with a centre."""
        known = self.known
        self.taken[known.centre_rows[: known.count]] = True
        left = self.order[~self.taken[self.order]]
        new = slice(known.count, self.end)
        known.centre_rows[new] = rng.permutation(left)[: self.end - known.count]
        self.near[new] = known.state["near"][known.centre_rows[new]]
        known.count = self.end

    def _uniform(self, rng: np.random.Generator) -> Rows:
        self.taken[self.known.centre_rows[: self.known.count]] = True
        while True:
            row = self.order[rng.integers(len(self.order))]
            if not self.taken[row]:
                return np.array([row])

    def _consume(self, X: Floats, state: Array, rows: Rows, threshold: Doubles, start: int) -> int:
        known, (trial, trial_row, trial_value) = self.known, self.trials
        start = loops.accept(
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
        lower = partial(loops.lower, self.X, self.state, products[best], trial[best], self.split)
        self.threads.run(lower, len(self.X), GAIN_ROWS)
        return best

    def gains(self, trial: Floats) -> tuple[Doubles, Floats]:
        """(trials,) how much each would lower the cost: exact, summed in one order; and (trials, sample) float32 products."""
        m, t = len(self.X), len(trial)
        products = np.empty((t, len(self.packed) * LANES), np.float32)
        part = np.zeros((-(-m // GAIN_ROWS), t))
        gain = partial(loops.gains, self.X, self.state, self.packed, trial, self.split, products, part)
        self.threads.run(gain, m, GAIN_ROWS)
        return part.sum(axis=0), products
