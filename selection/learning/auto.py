"""Which steps choose the next rows to label, by what the labels so far say.

Typical rows come first: a model of few labels is sure of the wrong things, and most scores that ask it do worse than
random rows. Once successive models agree, the rows that they are unsure of are worth more. Where a class is rare, these
are worth more from the third model on, whether models agree or not. Measured beside fixed strategies in
docs/evidence-labeling.md, with `benchmarks/labeling_default.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, starmap
from typing import Any, Literal

import numpy as np

from selection.errors import InvalidInput
from selection.learning.stopping import cohen_kappa
from selection.types import Rows

# Models are asked once Cohen's kappa of the predictions of each and the next is at least this, for so many in a row.
# Where a class is rare it is enough that there are so many.
TRUSTED = 0.6
MODELS = 3
# Of the least certain rows, how many times the batch is kept for each class that labels are spread over.
TIMES_PER_CLASS = 4
# A class is rare if its share of the labels is below 1 / (this * number of classes).
RARE = 4
# Part of a batch for a rare class.
RARE_SHARE = 0.25
# Of the rows likeliest to be of the rare class, how many times its part of the batch is kept.
RARE_TIMES = 5
# A class is looked for once it has so many labels; with fewer a model has not seen it.
KNOWN = 2


@dataclass(frozen=True, slots=True)
class Choice:
    """How the next batch is chosen.

    Attributes:
        phase: `typical` rows, rows at `random`, or `uncertain` ones.
        steps: that choose them; None for typical rows, which a project's `cold_start` chooses.
        rare: the class that gets `RARE_SHARE` of the batch, chosen by `rare_steps`; None if there is none.
        reason: a sentence that says why, with the numbers.
    """

    phase: Literal["typical", "random", "uncertain"]
    steps: tuple[Any, ...] | None
    rare: str | None
    reason: str

    @property
    def rare_steps(self) -> tuple[Any, ...]:
        """Likely rows of the rare class that are unlike each other and those with a label."""
        return ({"class_probability": {"of": self.rare}}, {"keep_top": {"times": RARE_TIMES}}, "facility_location")


def choose(counts: Sequence[int] | Rows, agreement: float | None, classes: Sequence[str]) -> Choice:
    """The choice of the next batch.

    Args:
        counts: (C,) how many labels each class has, of those that a model learns from.
        agreement: of the last `MODELS` models, see `agreement_of`; None if there are fewer.
        classes: (C,) their names.

    Raises:
        InvalidInput: the lengths differ, or a count is negative.

    >>> choose([0, 20], None, ["spam", "fine"]).phase
    'typical'
    >>> choose([5, 45], 0.8, ["spam", "fine"]).steps
    ('margin', {'keep_top': {'times': 6}}, 'facility_location')
    """
    n = np.asarray(counts, np.int64)
    if n.shape != (len(classes),) or (n < 0).any():
        raise InvalidInput(f"auto: needs a count >= 0 for each of {len(classes)} classes, got {n.tolist()}")
    if (n > 0).sum() < 2:
        return Choice("typical", None, None, "fewer than two classes have a label")
    rare = _rarest(n, classes)
    scarce = f"; {n[classes.index(rare)]} of {n.sum()} labels are {rare!r}" if rare else ""
    if agreement is None:
        # Typical rows are rarely of a rare class; random ones are as often as they are in the pool.
        why = f"fewer than {MODELS} models were fitted{scarce}"
        return Choice("random" if rare else "typical", ("random",) if rare else None, None, why)
    agree = f"the last {MODELS} models agree by kappa {agreement:.2f}"
    if agreement < TRUSTED and not rare:
        return Choice("typical", None, None, f"{agree}, {TRUSTED:g} is needed to ask them")
    if agreement < TRUSTED:
        agree += ", which a rare class does not wait for"
    times = max(3, round(TIMES_PER_CLASS * _effective_classes(n)))
    steps = ("margin", {"keep_top": {"times": times}}, "facility_location")
    return Choice("uncertain", steps, rare, agree + scarce)


def agreement_of(predictions: Sequence[Rows | None]) -> float | None:
    """The lowest of Cohen's kappas of each of the last `MODELS` models and the next, -1..1; None if there are fewer.

    Args:
        predictions: of successive models for the same rows, (s,) class numbers; None where there was no model.

    >>> agreement_of([np.array([0, 1, 1]), np.array([0, 1, 1]), np.array([0, 1, 1])])
    1.0
    """
    known = [each for each in predictions[-MODELS:] if each is not None]
    return min(starmap(cohen_kappa, pairwise(known))) if len(known) == MODELS else None


def _rarest(n: Rows, classes: Sequence[str]) -> str | None:
    """The class with the fewest labels of those that are rare and known; of several the first."""
    known = np.flatnonzero(n >= KNOWN)
    rare = known[n[known] * RARE * len(n) < n.sum()]
    return classes[rare[np.argmin(n[rare])]] if len(rare) else None


def _effective_classes(n: Rows) -> float:
    """The exponential of the entropy of the labels' classes: C where all are as frequent, near 1 where one has nearly all."""
    share = n[n > 0] / n.sum()
    return float(np.exp(-(share * np.log(share)).sum()))
