"""Random draws weighted by score: softmax, power and softrank. They keep similar rows from filling a batch.

Each draws rows one at a time without replacement, each row with a probability proportional to its weight among the rows
that are left (the Plackett-Luce distribution). Adding Gumbel noise to the logarithm of the weights and taking the
highest sums gives exactly that distribution, in one pass. The noise is hashed from seed, round and key, so it does not
depend on the order of the pool.

Cost of each: one pass over the scores; `softrank` sorts them.

Source: Kirsch et al. 2023, "Stochastic Batch Acquisition"; Gumbel top-b: Yellott 1977, Vieira 2014.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.noise import hash_uniform
from selection.pool import Pool
from selection.scorers.combine import ranks
from selection.step import Selector, check_number
from selection.types import Doubles, Floats, Input, Selection

LARGEST_LOG = 1e300  # bounds logarithms, so that their differences are finite
WIDEST_LOG = 300.0  # exp of twice it is finite
LARGEST_SHAPE = 1e6  # a gamma distribution of this shape is almost a constant
WIDEST_SCALE = 50.0  # how far the logarithm of the time scale is searched


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedDraw(Selector):
    """The base of the three selectors.

    Args:
        beta: >= 0, how much the score counts: 0 is a uniform draw, large values approach `top`.

    The gain is the score. A reason's `value` is the row's inclusion probability: the chance that a draw of this budget
    takes the row, without regard to quotas and other limits of the recipe. See `inclusion_probabilities`.

    Cost: a hash and three logarithms a row, and a partition. For budgets above 2, the inclusion probabilities take
    about twenty more passes. About 100 bytes a row.
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

        rows = pool.candidate_rows
        scores = pool.get_scores()[rows]
        gumbel = -logs(-logs(hash_uniform(pool.get_keys()[rows], rng)))
        weight = np.zeros(len(rows))
        if self.beta:
            weight = self.log_weights(scores)
            with np.errstate(over="ignore"):
                scaled = np.clip(self.beta * weight, -LARGEST_LOG, LARGEST_LOG)
            weight = np.where(np.isneginf(weight), weight, scaled)
        places = highest(weight + gumbel, budget)
        # Rows of weight 0 come last, where `highest` ordered them by row; replace them by a uniform draw.
        missing = int(np.isneginf(weight[places]).sum())
        if missing:
            weightless = np.flatnonzero(np.isneginf(weight))
            places[len(places) - missing :] = weightless[highest(gumbel[weightless], missing)]
        value = inclusion_probabilities(weight, budget)[places]
        return Selection.in_order("weighted_draw", rows[places], scores[places], value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softmax(WeightedDraw):
    """Draw with weights exp(beta * score). Only differences of scores count, so beta has the score's inverse unit.

    Not for: scores of an unknown unit: beta must fit it, `softrank` needs none.
    """

    name: ClassVar[str] = "softmax"
    incremental: ClassVar[bool] = True

    def log_weights(self, scores: Floats) -> Doubles:
        """The score itself."""
        return scores.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Power(WeightedDraw):
    """Draw with weights score ** beta. Only ratios of scores count, not their unit. PowerBALD is `[bald, power]`.

    A score of 0 or below gives weight 0: such rows are drawn only when no others are left, then uniformly.

    Not for: scores below 0, or whose zero means nothing: `softmax` takes differences, `softrank` the order.
    """

    name: ClassVar[str] = "power"
    incremental: ClassVar[bool] = True

    def log_weights(self, scores: Floats) -> Doubles:
        """The logarithm of the score."""
        from selection.kernels.compiled.probabilities import logs

        positive = scores > 0
        return np.where(positive, logs(np.where(positive, scores, 1).astype(np.float64)), -np.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Softrank(WeightedDraw):
    """Draw with weights rank ** -beta. Only the order of the scores counts. The best candidate has rank 1.

    Equal scores share the mean of their ranks, so they have the same chance. Ranks are among the candidates, so they
    change when others are selected: several small draws follow a different distribution than a single large one.

    Not for: scores whose size matters: it sees their order alone.
    """

    name: ClassVar[str] = "softrank"

    def log_weights(self, scores: Floats) -> Doubles:
        """Minus the logarithm of the rank."""
        from selection.kernels.compiled.probabilities import logs

        return np.asarray(-logs(ranks(-scores) * len(scores) + 0.5))


def inclusion_probabilities(log_weights: Doubles, budget: int) -> Doubles:
    """The chance of each row to be among `budget` rows drawn one at a time without replacement.

    Args:
        log_weights: (n,) finite, or -inf for rows that are drawn only when no others are left, then uniformly.
        budget: 1 .. n.

    Returns:
        (n,) float64 that sum to the budget. Exact for a budget of 1, 2 or n and for weights of 0; an estimate for
        others.

    The estimate: let each row arrive after an exponential time whose rate is its weight; the first `budget` arrivals
    are the draw (Rosén 1972). A row is among them if it arrives before the budget-th of the others. The time of that
    arrival is modelled by a gamma distribution, with the mean and variance that the counts of arrivals imply. Times are
    scaled so that the sum is the budget. Compared with simulations, the error is up to 0.03 for a handful of rows of
    very unequal weight, and less than 0.01 from 300 rows and budget 20 on.

    Cost: for budgets above 2, about 25 passes of exponentials over n; 80 bytes a row.

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
    probabilities = _of_one_draw if budget == 1 else _of_two_draws if budget == 2 else _estimate
    result[positive] = np.clip(probabilities(weights, budget), 0.0, 1.0)
    return result


def _of_one_draw(log_weights: Doubles, _budget: int) -> Doubles:
    weights = np.exp(log_weights - log_weights.max())
    return np.asarray(weights / weights.sum())


def _of_two_draws(log_weights: Doubles, _budget: int) -> Doubles:
    """p_i + sum over j of p_j p_i / (1 - p_j), where 1 - p_j of the likeliest row is summed over the others."""
    p = _of_one_draw(log_weights, 1)
    likeliest = int(log_weights.argmax())
    after = np.insert(_of_one_draw(np.delete(log_weights, likeliest), 1), likeliest, 0.0)
    others = p.copy()
    others[likeliest] = 0.0
    odds = others / (1 - others)
    second = p * (odds.sum() - odds) + p[likeliest] * after
    return np.asarray(p + second)


def _estimate(log_weights: Doubles, budget: int) -> Doubles:
    """See `inclusion_probabilities`; all weights positive, 2 < budget < n."""
    n = len(log_weights)
    # The unit is the weight of rank budget + 1, so that no weight that matters over- or underflows.
    unit = np.partition(log_weights, n - budget - 1)[n - budget - 1]
    w = np.exp(np.clip(log_weights - unit, -WIDEST_LOG, WIDEST_LOG))

    def expected(log_time: float) -> float:
        """The expected number of arrivals less the budget: at most w t each, and budget + 1 rows have a weight >= 1."""
        return float((1 - np.exp(-w * np.exp(log_time))).sum()) - budget

    log_time = _root(expected, np.log(budget / w.sum()) - 1, np.log(np.log(budget + 1)) + 1)
    time = np.exp(log_time)
    late = np.exp(-w * time)
    rate = w * late
    # The budget-th of the others arrives later than the budget-th of all, and varies as their count does.
    others_rate = np.maximum(rate.sum() - rate, np.finfo(float).tiny)
    spread = np.maximum(((1 - late) * late).sum() - (1 - late) * late, np.finfo(float).tiny)
    with np.errstate(over="ignore"):  # an infinite time is a valid result
        mean = time + (1 - late) / others_rate
        shape = np.clip((mean * others_rate) ** 2 / spread, 1 / LARGEST_SHAPE, LARGEST_SHAPE)

    def included(log_scale: float) -> Doubles:
        with np.errstate(over="ignore"):
            return np.asarray(1 - np.exp(-shape * np.log(1 + w * mean * (np.exp(log_scale) / shape))))

    def excess(log_scale: float) -> float:
        return float(included(log_scale).sum()) - budget

    # The weights may be so unequal that the draw is almost certain.
    if not excess(-WIDEST_SCALE) < 0 < excess(WIDEST_SCALE):
        return np.asarray(1 - late)
    return included(_root(excess, -WIDEST_SCALE, WIDEST_SCALE))


def _root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function crosses 0 between two bounds, to about six digits."""
    from scipy.optimize import brentq

    return float(brentq(rising, low, high, xtol=1e-6, rtol=1e-6))
