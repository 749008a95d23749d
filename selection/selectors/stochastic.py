"""Draws by score: softmax, power and softrank, so that one round's batch is not the same row many times over.

Each is a draw without replacement, one row after the other, each with a chance proportional to its weight among those that are left
(the law of Plackett and Luce). Adding Gumbel noise to the logarithm of the weights and taking the highest sums is that very draw, in one
pass. The noise is hashed from seed, round and key, so it does not depend on the order of the pool.

Source: Kirsch et al. 2023, "Stochastic Batch Acquisition"; Gumbel top-b: Yellott 1977, Vieira 2014.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from selection.noise import hash_uniform
from selection.scorers.combine import ranks
from selection.selectors.top import highest
from selection.step import Selector, check_number
from selection.types import Floats, Input, Pool, Reason, Selection

Doubles = npt.NDArray[np.float64]

LARGEST_LOG = 1e300  # keeps infinities out of differences
WIDEST_LOG = 300.0  # exp of twice it is finite
LARGEST_SHAPE = 1e6  # a gamma distribution of this shape is a point
WIDEST_SCALE = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionResult(Selector):
    """What the three have in common.

    Args:
        beta: >= 0, how much the score counts: 0 is a uniform draw, large values tend to `top`.

    The gain is the score; `value` of a reason is the row's inclusion probability, the chance that a draw of this budget takes it (limits around
    the draw left aside): see `inclusion_probabilities`.

    Cost: a hash and three logarithms a row, and a partition; inclusion probabilities for budgets above 2 are some
    twenty passes more. About 100 bytes a row.
    """

    beta: float = 1.0
    name: ClassVar[str]
    needs: ClassVar[frozenset[Input]] = frozenset({Input.SCORES})
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.name, "beta", self.beta, least=0)

    @abstractmethod
    def log_weights(self, scores: Floats) -> Doubles:
        """(n,) the logarithm of each candidate's weight for beta 1; -inf for a weight of 0."""

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.probabilities import logs

        rows = np.flatnonzero(pool.candidates).astype(np.int64)
        scores = pool.get_scores()[rows]
        gumbel = -logs(-logs(hash_uniform(pool.get_keys()[rows], rng)))
        weight = np.zeros(len(rows))
        if self.beta:
            weight = self.log_weights(scores)
            with np.errstate(over="ignore"):
                scaled = np.clip(self.beta * weight, -LARGEST_LOG, LARGEST_LOG)
            weight = np.where(np.isneginf(weight), weight, scaled)
        places = highest(weight + gumbel, budget)
        # Weights of 0 come last, and have been taken by row: by noise instead.
        short = int(np.isneginf(weight[places]).sum())
        if short:
            nothing = np.flatnonzero(np.isneginf(weight))
            places[len(places) - short :] = nothing[highest(gumbel[nothing], short)]
        value = inclusion_probabilities(weight, budget)[places]
        reason = Reason.of("weighted_draw", len(places), rank=np.arange(len(places)), value=value)
        return Selection(rows[places], scores[places], reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(SelectionResult):
    """Draw with weights exp(beta * score). What counts are differences of scores, so beta has the inverse unit of the score."""

    name: ClassVar[str] = "softmax"
    incremental: ClassVar[bool] = True

    def log_weights(self, scores: Floats) -> Doubles:
        """The score itself."""
        return scores.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(SelectionResult):
    """Draw with weights score ** beta: ratios of scores count, not their unit. PowerBALD is `[bald, power]`.

    A score of 0 or below has weight 0: such rows are taken only when no other is left, then uniformly.
    """

    name: ClassVar[str] = "power"
    incremental: ClassVar[bool] = True

    def log_weights(self, scores: Floats) -> Doubles:
        """The logarithm of the score."""
        from selection.kernels.compiled.probabilities import logs

        positive = scores > 0
        return np.where(positive, logs(np.where(positive, scores, 1).astype(np.float64)), -np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softrank(SelectionResult):
    """Draw with weights rank ** -beta: only the order of the scores counts. The best candidate has rank 1.

    Equal scores share the mean of their ranks, so they have the same chance. Ranks are among the candidates, so they move up
    when others have been selected: draws one after the other follow another law than one draw of all.
    """

    name: ClassVar[str] = "softrank"

    def log_weights(self, scores: Floats) -> Doubles:
        """Minus the logarithm of the rank."""
        from selection.kernels.compiled.probabilities import logs

        return np.asarray(-logs(ranks(-scores) * len(scores) + 0.5))


def inclusion_probabilities(log_weights: Doubles, budget: int) -> Doubles:
    """The chance of each row to be among `budget` rows drawn one after the other without replacement.

    Args:
        log_weights: (n,) finite, or -inf for rows that are drawn only when no others are left, then uniformly.
        budget: 1 .. n.

    Returns:
        (n,) float64 that sum to the budget. Exact for a budget of 1, 2 or n and for weights of 0; an estimate for others.

    The estimate: let each row arrive after an exponential time with its weight as rate; the first `budget` arrivals are the draw
    (Rosén 1972). A row is among them if it arrives before the budget-th of the others, whose time is taken to have a gamma
    distribution, with the mean and variance that the counts of arrivals imply. Times are scaled so that the sum is the budget. Seen
    against simulation: off by up to 0.03 for a handful of rows of very unequal weight, by less than 0.01 from 300 rows and budget 20 on.

    Cost: budgets above 2, about 25 passes of exponentials over n; 80 bytes a row.

    >>> inclusion_probabilities(np.log([0.9, 0.5, 0.3, 0.1]), 2).round(4).tolist()
    [0.8217, 0.6275, 0.4072, 0.1436]
    """
    n = len(log_weights)
    positive = ~np.isneginf(log_weights)
    count = int(positive.sum())
    result = np.zeros(n)
    if budget >= count:
        result[~positive] = (budget - count) / max(n - count, 1)
        result[positive] = 1.0
        return result
    weights = log_weights[positive]
    law = _one if budget == 1 else _two if budget == 2 else _estimate
    result[positive] = np.clip(law(weights, budget), 0.0, 1.0)
    return result


def _one(log_weights: Doubles, _budget: int) -> Doubles:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def _two(log_weights: Doubles, _budget: int) -> Doubles:
    """p_i + sum over j of p_j p_i / (1 - p_j), where 1 - p_j of the likeliest row is summed over the others."""
    p = _one(log_weights, 1)
    likeliest = int(log_weights.argmax())
    after = np.insert(_one(np.delete(log_weights, likeliest), 1), likeliest, 0.0)
    others = p.copy()
    others[likeliest] = 0.0
    odds = others / (1 - others)
    second = p * (odds.sum() - odds) + p[likeliest] * after
    return np.asarray(p + second)


def _estimate(log_weights: Doubles, budget: int) -> Doubles:
    """See `inclusion_probabilities`; all weights positive, 2 < budget < n."""
    n = len(log_weights)
    # In units of the weight that comes next after the budget's, so that nothing that matters over- or underflows.
    unit = np.partition(log_weights, n - budget - 1)[n - budget - 1]
    w = np.exp(np.clip(log_weights - unit, -WIDEST_LOG, WIDEST_LOG))

    def expected(log_time: float) -> float:
        """How many have arrived: at most w t each, and budget + 1 rows have a weight of at least 1."""
        return float((1 - np.exp(-w * np.exp(log_time))).sum()) - budget

    log_time = _root(expected, np.log(budget / w.sum()) - 1, np.log(np.log(budget + 1)) + 1)
    time = np.exp(log_time)
    late = np.exp(-w * time)
    rate = w * late
    # The budget-th of the others comes later than the budget-th of all, and varies as their count does.
    others_rate = np.maximum(rate.sum() - rate, np.finfo(float).tiny)
    spread = np.maximum(((1 - late) * late).sum() - (1 - late) * late, np.finfo(float).tiny)
    with np.errstate(over="ignore"):  # infinitely late is late enough
        mean = time + (1 - late) / others_rate
        shape = np.clip((mean * others_rate) ** 2 / spread, 1 / LARGEST_SHAPE, LARGEST_SHAPE)

    def included(log_scale: float) -> Doubles:
        with np.errstate(over="ignore"):
            return np.asarray(1 - np.exp(-shape * np.log(1 + w * mean * (np.exp(log_scale) / shape))))

    def excess(log_scale: float) -> float:
        return float(included(log_scale).sum()) - budget

    if not excess(-WIDEST_SCALE) < 0 < excess(WIDEST_SCALE):  # weights so unequal that the draw is all but certain
        return np.asarray(1 - late)
    return included(_root(excess, -WIDEST_SCALE, WIDEST_SCALE))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0 between two points, to about six digits."""
    from scipy.optimize import brentq

    return float(brentq(rising, low, high, xtol=1e-6, rtol=1e-6))
