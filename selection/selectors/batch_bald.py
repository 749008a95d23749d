"""A batch whose labels together are most informative about which member of a committee is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.probabilities import by_row, taken
from selection.kernels.ranking import highest
from selection.pool import Pool
from selection.step import Selector, check_integer
from selection.types import Doubles, Input, Rows, Selection

TUPLES = 10_000  # how many label tuples of the picks are kept: all of them, or a sample
DECIMALS = 12  # of a gain in nats: gains that differ by less are a tie, since the difference is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBald(Selector):
    """Pick one row at a time, the one that most raises the mutual information between the batch's labels and the model.

    The model is one member of the committee, all equally likely before the first label.

    In nats, H(y_1 .. y_b) minus the sum of the rows' mean H(y_i | member) (BatchBALD, Kirsch et al. 2019). A row's gain
    is the information that its label adds to the labels of the picks, so the second of two equal rows gains less.

    Args:
        candidates: only this many rows of highest `bald` are considered, ties to the lowest row; the budget if it is
            larger.

    Exact while the labels of the previous picks have at most 10,000 tuples of positive probability (so at least while
    C^b <= 10,000). After that it is the mean over 10,000 tuples drawn from their joint distribution, where each pick
    adds a label to every tuple. Ties, to 1e-12 nats, go to the lowest row. Already selected rows are ignored, because
    the members were trained on their labels. The gain is the information that a pick adds; the reason's value is the
    information of the batch so far.

    Not for: large batches: it considers a few hundred rows, and from some picks on it samples their labels.

    Cost for t candidates: one pass over n*members*C probabilities, then at most t*10,000*C*(members + 10) operations a
    pick.
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
        rows = pool.candidate_rows
        rows = rows[np.sort(highest(bald[rows], max(self.candidates, budget)))]
        members, _ = normalised(taken(pool.get_committee(), rows, Input.COMMITTEE))
        places, gain = batch_bald(members, budget, rng=rng)
        return Selection.in_order("score", rows[places], gain, np.cumsum(gain))


def batch_bald(members: Doubles, budget: int, *, rng: np.random.Generator) -> tuple[Rows, Doubles]:
    """The positions of the picks in `members`, and the information that each adds; see `BatchBald`.

    Args:
        members: (t, members, C), each distribution of sum 1.
        budget: 1 .. t.

    >>> disagree, agree = [[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]
    >>> batch_bald(np.array([agree, disagree]), 1, rng=np.random.default_rng(0))[0]
    array([1])
    """
    from selection.kernels.compiled.probabilities import information

    states = LabelStates.without_labels(members.shape[1])
    left = np.ones(len(members), bool)
    picks, gains = np.empty(budget, np.int64), np.empty(budget)
    out = np.empty(len(members))
    for i in range(budget):
        if i:
            states = states.with_label(members[picks[i - 1]], rng)
        information(members, states.weights, states.chance, out)
        # Information is never negative, so a negative gain is rounding.
        gain = np.where(left, np.maximum(out.round(DECIMALS), 0.0), -1.0)
        picks[i] = np.argmax(gain)
        gains[i] = gain[picks[i]]
        left[picks[i]] = False
    return picks, gains


@dataclass(frozen=True, slots=True, eq=False)
class LabelStates:
    """The possible labels of some picks: one state for each tuple of labels.

    Attributes:
        chance: (k,) float64 > 0, the probability of each state; equal if the states are a sample.
        weights: (k, members) float64, the probability of each member given the labels of a state.
        sampled: whether the states are a sample.
    """

    chance: Doubles
    weights: Doubles
    sampled: bool = False

    @classmethod
    def without_labels(cls, members: int) -> LabelStates:
        """The state before the first pick: all members are equally likely."""
        return cls(np.ones(1), np.full((1, members), 1.0 / members))

    def with_label(self, p: Doubles, rng: np.random.Generator) -> LabelStates:
        """The states with the label of another row, whose probabilities are p (members, C).

        Cost: 10,000 * (members + C).
        """
        by_class = np.ascontiguousarray(p.T)
        if not self.sampled and len(self.chance) * len(by_class) <= TUPLES:
            chance = (self.chance[:, None] * self.next(p)).reshape(-1)
            weights = (self.weights[:, None, :] * by_class).reshape(-1, len(p))
            possible = chance > 0
            return LabelStates(chance[possible], _normalised(weights[possible]))
        sample = self if self.sampled else self._sample(rng)
        cumulative = np.cumsum(sample.next(p), axis=1)
        label = np.argmax(cumulative >= cumulative[:, -1:] * _thresholds(rng)[:, None], axis=1)
        return LabelStates(sample.chance, _normalised(sample.weights * by_class[label]), sampled=True)

    def _sample(self, rng: np.random.Generator) -> LabelStates:
        cumulative = np.cumsum(self.chance)
        states = np.searchsorted(cumulative, cumulative[-1] * _thresholds(rng))
        return LabelStates(np.full(TUPLES, 1.0 / TUPLES), self.weights[states], sampled=True)

    def next(self, p: Doubles) -> Doubles:
        """(k, C) the probabilities of the next label in each state.

        A loop over the members, because a library may reorder the sums of a matrix product.
        """
        mean = np.zeros((len(self.weights), p.shape[1]))
        for m, of_member in enumerate(p):
            mean += self.weights[:, m, None] * of_member
        return mean


def _thresholds(rng: np.random.Generator) -> Doubles:
    """(TUPLES,) uniform in (0, 1]: never 0, so that a label or state of probability 0 is never drawn."""
    return 1.0 - rng.random(TUPLES)


def _normalised(weights: Doubles) -> Doubles:
    total: Doubles = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, total)
