"""A batch that tells most of which member of a committee is right, counting once what two rows both tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from selection.kernels.probabilities import Doubles, by_row, taken
from selection.selectors.top import highest
from selection.step import Selector, check_integer
from selection.types import Input, Pool, Reason, Rows, Selection

TUPLES = 10_000  # label tuples of the picks that are known at once, all of them or a sample
DECIMALS = 12  # of a gain in nats: what is closer is rounding, and a tie


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBald(Selector):
    """Pick, one after the other, the row that raises the mutual information of the batch's labels and the member the most.

    In nats, H(y_1 .. y_b) less the sum of the rows' mean H(y_i | member) (BatchBALD, Kirsch et al. 2019). A row's gain is
    what its label still tells once those of the picks are known, so of equal rows the second gains less.

    Args:
        candidates: only so many rows of highest `bald` are looked at, ties to the lowest row; the budget if that is more.

    Exact while the labels of the picks before have at most 10,000 tuples of any probability (so at least while
    C^b <= 10,000), from then on the mean over 10,000 tuples drawn from their joint distribution, each pick adding one label
    to every tuple. Ties, to 1e-12 nats, go to the lowest row. Already selected rows do not count: the members have learned
    from their labels. The gain is what a pick adds, the reason's value the information of the batch with it.

    Cost for t candidates: one pass over n*members*C probabilities, then t*10,000*C*(members + 10) operations a pick at most.
    Memory: the candidates' probabilities, n floats and 10,000*(2*C + 2*members) float64.
    Source: Kirsch et al. 2019, equations 5 to 13.
    """

    candidates: int = 200
    name: ClassVar[str] = "batch_bald"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COMMITTEE})

    def __post_init__(self) -> None:
        check_integer(self.name, "candidates", self.candidates, least=1)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.probabilities import divergence, normalised

        bald = by_row(pool.get_committee(), Input.COMMITTEE, divergence, False)
        rows = np.flatnonzero(pool.candidates).astype(np.int64)
        rows = rows[np.sort(highest(bald[rows], max(self.candidates, budget)))]
        members, _ = normalised(taken(pool.get_committee(), rows, Input.COMMITTEE))
        places, gain = batch_bald(members, budget, rng=rng)
        reason = Reason.of("score", budget, rank=np.arange(budget), value=np.cumsum(gain))
        return Selection(rows[places], gain.astype(np.float32), reason)


def batch_bald(members: Doubles, budget: int, *, rng: np.random.Generator) -> tuple[Rows, Doubles]:
    """Places of the picks among `members` and what each adds to the information; see `BatchBald`.

    Args:
        members: (t, members, C), each distribution of sum 1.
        budget: 1 .. t.

    >>> doubtful, alike = [[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]
    >>> batch_bald(np.array([alike, doubtful]), 1, rng=np.random.default_rng(0))[0]
    array([1])
    """
    from selection.kernels.compiled.probabilities import information

    known = Knowledge.before(members.shape[1])
    left = np.ones(len(members), bool)
    picks, gains = np.empty(budget, np.int64), np.empty(budget)
    out = np.empty(len(members))
    for i in range(budget):
        if i:
            known = known.after(members[picks[i - 1]], rng)
        information(members, known.weights, known.chance, out)
        # No label tells less than nothing; a negative gain is rounding.
        gain = np.where(left, np.maximum(out.round(DECIMALS), 0.0), -1.0)
        picks[i] = np.argmax(gain)
        gains[i] = gain[picks[i]]
        left[picks[i]] = False
    return picks, gains


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What the labels of some picks would tell: one state for each tuple of labels.

    Attributes:
        chance: (k,) float64 > 0, the probability of each; equal for those of a sample.
        weights: (k, members) float64, the probability of each member given these labels.
        sampled: the states are a sample.
    """

    chance: npt.NDArray[np.float64]
    weights: Doubles
    sampled: bool = False

    @classmethod
    def before(cls, members: int) -> Knowledge:
        """Of no labels: every member is as likely as another."""
        return cls(np.ones(1), np.full((1, members), 1.0 / members))

    def after(self, p: Doubles, rng: np.random.Generator) -> Knowledge:
        """With the label of one more row, of which p (members, C) are the probabilities.

        Cost: 10,000 * (members + C).
        """
        by_class = np.ascontiguousarray(p.T)
        if not self.sampled and len(self.chance) * len(by_class) <= TUPLES:
            chance = (self.chance[:, None] * self.next(p)).reshape(-1)
            weights = (self.weights[:, None, :] * by_class).reshape(-1, len(p))
            possible = chance > 0
            return Knowledge(chance[possible], _of_sum_1(weights[possible]))
        drawn = self if self.sampled else self._sample(rng)
        reached = np.cumsum(drawn.next(p), axis=1)
        label = np.argmax(reached >= reached[:, -1:] * _thresholds(rng)[:, None], axis=1)
        return Knowledge(drawn.chance, _of_sum_1(drawn.weights * by_class[label]), sampled=True)

    def _sample(self, rng: np.random.Generator) -> Knowledge:
        reached = np.cumsum(self.chance)
        states = np.searchsorted(reached, reached[-1] * _thresholds(rng))
        return Knowledge(np.full(TUPLES, 1.0 / TUPLES), self.weights[states], sampled=True)

    def next(self, p: Doubles) -> Doubles:
        """(k, C) the probabilities of the next label in each state; no matrix product, whose sums a library may reorder."""
        mean = np.zeros((len(self.weights), p.shape[1]))
        for m, of_member in enumerate(p):
            mean += self.weights[:, m, None] * of_member
        return mean


def _thresholds(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """(TUPLES,) uniform in (0, 1]: the first cumulative sum to reach one is never that of something of probability 0."""
    return 1.0 - rng.random(TUPLES)


def _of_sum_1(weights: Doubles) -> Doubles:
    total: Doubles = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total)
