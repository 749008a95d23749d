"""Whether a difference of losses is one: intervals over seeds and examples, what could have been seen, verdicts.

A difference is loss(control) - loss(selection), so a positive one says that the selection helped. Seeds and measured
examples are both samples of many, so an interval from examples alone, or from seeds alone, is too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from selection.errors import InvalidInput
from selection.types import Doubles

Verdict = Literal["helped", "no evidence", "hurt"]
CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean difference and what is known of it.

    Attributes:
        mean: positive = the selection has the lower loss.
        se: its standard error, >= 0.
        df: degrees of freedom of the standard error; infinite where nothing varies.
        low, high: the interval of 95 %; the point itself where nothing varies.
        p: two-sided, of no difference; 0..1.
    """

    mean: float
    se: float
    df: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        return "helped" if self.low > 0 else "hurt" if self.high < 0 else "no evidence"


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """The two-way table of differences, seeds by examples: how much each varies.

    Attributes:
        seed: of the means of seeds, times the number of examples.
        example: of the means of examples, times the number of seeds.
        rest: of what neither explains.
    """

    seed: float
    example: float
    rest: float


def mean_squares(differences: Any) -> MeanSquares:
    """The mean squares of a two-way table without replication.

    Args:
        differences: (S, n) of finite numbers, S >= 2 seeds and n >= 2 examples.

    Raises:
        InvalidInput: the table has another shape, or a number is not finite.

    >>> mean_squares([[1, 2], [3, 4]])
    MeanSquares(seed=4.0, example=1.0, rest=0.0)
    """
    table = _table(differences)
    seeds, examples = table.shape
    by_seed, by_example = table.mean(axis=1, keepdims=True), table.mean(axis=0, keepdims=True)
    rest = table - by_seed - by_example + table.mean()
    return MeanSquares(
        seed=float(examples * by_seed.var(ddof=1)),
        example=float(seeds * by_example.var(ddof=1)),
        rest=float((rest**2).sum() / ((seeds - 1) * (examples - 1))),
    )


def crossed_effect(differences: Any) -> Effect:
    """The mean difference where seeds and examples are both random and crossed.

    Args:
        differences: as in `mean_squares`.

    Raises:
        InvalidInput: as `mean_squares`.

    The variance of the mean is max(MS_seed + MS_example - MS_rest, MS_rest) / (S n); its degrees of freedom are
    Satterthwaite's. Where neither seeds nor examples differ the interval is wider than it need be.

    Source: Satterthwaite 1946; the two-way random model of Searle, Casella and McCulloch 1992, chapter 4.
    """
    table = _table(differences)
    squares = mean_squares(table)
    seeds, examples = table.shape
    variance = max(squares.seed + squares.example - squares.rest, squares.rest)
    parts = ((squares.seed, seeds - 1), (squares.example, examples - 1), (squares.rest, (seeds - 1) * (examples - 1)))
    se = float(np.sqrt(variance / table.size))
    # What rounding leaves of equal numbers is no spread.
    if se <= 1e-12 * float(np.abs(table).max()):
        return _without_spread(float(table.mean()))
    # By shares of the variance, so that no square of a small number becomes 0.
    return _effect(float(table.mean()), se, 1 / sum((square / variance) ** 2 / own for square, own in parts))


def paired_effect(differences: Any) -> Effect:
    """The mean of differences of which there is a number for each seed: the paired t interval.

    Args:
        differences: (S,) finite, S >= 2.

    Raises:
        InvalidInput: there are fewer, or a number is not finite. A single seed says nothing of how much seeds vary.

    >>> round(paired_effect([0.1, 0.2, 0.3]).low, 4)
    -0.0484
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise InvalidInput(f"paired_effect: needs a finite number for each of 2 seeds or more, got {values.tolist()}")
    se = float(values.std(ddof=1) / np.sqrt(len(values)))
    if se <= 1e-12 * float(np.abs(values).max()):
        return _without_spread(float(values.mean()))
    return _effect(float(values.mean()), se, float(len(values) - 1))


def detectable_effect(null: Effect, power: float = POWER) -> float:
    """The smallest effect that is called one with some probability, by the spread of two controls that do not differ.

    Args:
        null: of the differences of two random controls, with as many seeds and examples as the trial.
        power: above 0 and below 1.

    The spread is an estimate itself: with 5 seeds, an effect of the stated size is seen in about 7 of 10 trials, not 8.

    >>> detectable_effect(Effect(mean=0.0, se=0.0, df=float("inf"), low=0.0, high=0.0, p=1.0))
    0.0
    """
    if not 0 < power < 1:
        raise InvalidInput(f"detectable_effect: power must be above 0 and below 1, got {power!r}")
    return 0.0 if null.se == 0 else (_quantile(null.df, 1 - (1 - CONFIDENCE) / 2) + _quantile(null.df, power)) * null.se


def holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for their number, in their order: one that is then below 0.05 stands for itself.

    Args:
        p: 0..1.

    Source: Holm 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda each: p[each])):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def adjusted_verdicts(effects: Sequence[Effect]) -> list[Verdict]:
    """The verdict of each of several effects where all of them were looked at; of a single one, that of its interval."""
    verdicts = []
    for effect, p in zip(effects, holm([effect.p for effect in effects]), strict=True):
        verdicts.append(effect.verdict if p < 1 - CONFIDENCE else "no evidence")
    return verdicts


def _table(differences: Any) -> Doubles:
    table = np.asarray(differences, np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise InvalidInput(
            f"a trial needs differences of 2 seeds or more on 2 examples or more, got the shape {table.shape}"
        )
    if not np.isfinite(table).all():
        seed, example = np.argwhere(~np.isfinite(table))[0].tolist()
        raise InvalidInput(f"the difference of seed {seed} and example {example} is {table[seed, example]}")
    return table


def _without_spread(mean: float) -> Effect:
    return Effect(mean, 0.0, float("inf"), mean, mean, 1.0 if mean == 0 else 0.0)


def _effect(mean: float, se: float, df: float) -> Effect:
    from scipy.special import stdtr

    half = _quantile(df, 1 - (1 - CONFIDENCE) / 2) * se
    return Effect(mean, se, df, mean - half, mean + half, float(2 * stdtr(df, -abs(mean / se))))


def _quantile(df: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(df, probability))
