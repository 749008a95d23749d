"""When labelling may stop: rules over the rounds so far. They only advise; the caller decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from selection.errors import InvalidInput
from selection.step import check_integer, check_number
from selection.types import Array, Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """The state of a labeling project after a round.

    Attributes:
        predictions: (s,) the class predicted for each row of the stop set, the same rows in every round; None in a
            round without a model.
        mean_uncertainty: `overall_uncertainty` of the stop set, 0..1.
        metric: any measure of quality, higher = better.
        spent: rows or money so far.
    """

    predictions: Rows | None = None
    mean_uncertainty: float | None = None
    metric: float | None = None
    spent: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When to advise a stop: as soon as any rule is met. None turns a rule off.

    Args:
        kappa: the mean agreement (Cohen's kappa) of successive predictions over the last `window` pairs of rounds is at
            least this. Source: Bloodgood and Vijay-Shanker 2009; F then moves by at most `f_bound(kappa)`.
        window: >= 1.
        uncertainty: the mean normalised entropy of the stop set is below this. Source: Zhu et al. 2008.
        change: at most this share of the predictions changed in the last round. Source: Zhu et al. 2008.
        plateau: the metric's best value is at least this many rounds old.
        budget: at least this much is spent.
    """

    kappa: float | None = 0.99
    window: int = 3
    uncertainty: float | None = 0.05
    change: float | None = 0.0
    plateau: int | None = 5
    budget: float | None = None

    def __post_init__(self) -> None:
        for option in ("kappa", "uncertainty", "change", "budget"):
            if getattr(self, option) is not None:
                check_number("stop", option, getattr(self, option), least=0)
        check_integer("stop", "window", self.window, least=1)
        check_integer("stop", "plateau", self.plateau, least=1, optional=True)


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether to stop, and a sentence for each rule that is met."""

    stop: bool
    reasons: tuple[str, ...]


def advise(rules: Rules, history: Sequence[Observation]) -> Advice:
    """The advice of the rules after the last of these rounds; not to stop if there are no rounds.

    Raises:
        InvalidInput: two rounds have predictions of different length, so they are not of the same stop set.

    >>> same = [Observation(predictions=np.array([0, 1, 1])) for _ in range(4)]
    >>> advise(Rules(change=None), same).reasons
    ('kappa 1.000 over the last 3 rounds is at least 0.99: F moves by at most 0.040',)
    """
    if not history:
        return Advice(False, ())
    last = history[-1]
    reasons = []
    predictions = _since_last_gap(history)
    if rules.kappa is not None and len(predictions) > rules.window:
        recent = predictions[-rules.window - 1 :]
        mean = float(np.mean([cohen_kappa(a, b) for a, b in pairwise(recent)]))
        if mean >= rules.kappa:
            bound = f": F moves by at most {f_bound(rules.kappa):.3f}" if rules.kappa > 0 else ""
            reasons.append(f"kappa {mean:.3f} over the last {rules.window} rounds is at least {rules.kappa:g}{bound}")
    uncertainty = last.mean_uncertainty
    if rules.uncertainty is not None and uncertainty is not None and uncertainty < rules.uncertainty:
        reasons.append(f"mean uncertainty {uncertainty:.4f} is below {rules.uncertainty:g}")
    if rules.change is not None and len(predictions) > 1:
        changed = 1 - unchanged(predictions[-2], predictions[-1])
        # A share of s rows is a multiple of 1 / s, so half of that only absorbs rounding.
        if changed <= rules.change + 0.5 / len(predictions[-1]):
            reasons.append(f"{changed:.2%} of the predictions changed in the last round, at most {rules.change:.2%}")
    if rules.plateau is not None:
        age = _age_of_best(history)
        if age >= rules.plateau:
            reasons.append(f"the quality measured has not risen for {age} rounds")
    if rules.budget is not None and last.spent >= rules.budget:
        reasons.append(f"{last.spent:g} of the budget of {rules.budget:g} is spent")
    return Advice(bool(reasons), tuple(reasons))


def cohen_kappa(a: Array, b: Array) -> float:
    """Agreement of two labelings beyond chance, -1..1; 1 if both give the same single class to all rows.

    Args:
        a, b: (s,) integers, s >= 1.

    >>> cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    0.5
    """
    observed = unchanged(a, b)
    classes = np.union1d(a, b)
    share_a = (np.asarray(a)[:, None] == classes).mean(axis=0)
    share_b = (np.asarray(b)[:, None] == classes).mean(axis=0)
    chance = float(share_a @ share_b)
    return 1.0 if observed == 1.0 else (observed - chance) / (1 - chance)


def unchanged(a: Array, b: Array) -> float:
    """The share of rows with the same prediction in both.

    Raises:
        InvalidInput: the lengths differ, or there are no rows.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 1 or not len(a):
        raise InvalidInput(
            f"stop: predictions of two rounds must be of the same rows, at least one, got shapes {np.shape(a)} "
            f"and {np.shape(b)}"
        )
    return float(np.mean(np.asarray(a) == np.asarray(b)))


def overall_uncertainty(probabilities: Array) -> float:
    """Mean entropy of the rows (s, C) over ln C, 0..1; 0 for one class or no rows.

    >>> round(overall_uncertainty(np.array([[0.5, 0.5], [1, 0]])), 3)
    0.5
    """
    P = np.asarray(probabilities, np.float64)
    if P.shape[1] < 2 or not len(P):
        return 0.0
    entropy = -(P * np.log(np.where(P > 0, P, 1))).sum(axis=1)
    return float(entropy.mean() / math.log(P.shape[1]))


def f_bound(kappa: float) -> float:
    """The largest change of the F measure between two models that agree by at least this kappa, > 0.

    Source: Bloodgood and Grothendieck 2013.

    >>> round(f_bound(0.99), 6)
    0.040404
    """
    return 4 * (1 - kappa) / kappa


def _since_last_gap(history: Sequence[Observation]) -> list[Rows]:
    """The predictions of the rounds since the last round without a model."""
    predictions: list[Rows] = []
    for observation in reversed(history):
        if observation.predictions is None:
            break
        predictions.append(observation.predictions)
    return predictions[::-1]


def _age_of_best(history: Sequence[Observation]) -> int:
    """How many rounds with a metric followed the round that first reached the best value; 0 if there are no metrics."""
    values = [observation.metric for observation in history if observation.metric is not None]
    return len(values) - 1 - int(np.argmax(values)) if values else 0
