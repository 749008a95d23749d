"""How hard a row was to learn, from columns that a training run wrote down: el2n, aum, forgetting, cartography.

One column holds the ready score. Several hold what was measured at each epoch, in the order of the epochs, and are added
up here. Scores are given as published, so they point different ways: see each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput, InvalidOption
from selection.scorers.column import numbers
from selection.step import Scorer, check_choice, check_flag, check_name
from selection.types import Array, Floats, Input, Pool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDynamics(Scorer):
    """What they have in common.

    Args:
        fields: the column of the score, or the columns of the epochs.
        descending: highest first, or lowest first with false.
    """

    fields: str | Sequence[str]
    descending: bool = True
    name: ClassVar[str]
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})

    def __post_init__(self) -> None:
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        if not isinstance(fields, list | tuple) or not fields:
            raise InvalidOption(
                f"fields must be a column or a list of one for each epoch, got {self.fields!r}",
                step=self.name,
                option="fields",
            )
        for field in fields:
            check_name(self.name, "fields", field)
        if len(set(fields)) < len(fields):
            raise InvalidOption(f"fields names a column twice: {', '.join(fields)}", step=self.name, option="fields")
        object.__setattr__(self, "fields", tuple(fields))
        check_flag(self.name, "descending", self.descending)

    @property
    def columns(self) -> frozenset[str]:
        """The columns."""
        return frozenset(self.fields)

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: a value is missing, not a number or impossible; names column and row.
        """
        epochs = np.stack([numbers(field, pool.get_column(field)) for field in self.fields])
        scores = self.of_epochs(epochs).astype(np.float32)
        return scores if self.descending else -scores

    def of_epochs(self, epochs: Floats) -> Array:
        """(n,) the score from (epochs, n)."""
        return np.asarray(epochs.sum(axis=0, dtype=np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class El2n(TrainingDynamics):
    """The error norm: the sum over early epochs of |p - y|, p the predicted probabilities and y the label as one-hot.

    High is hard (or wrongly labelled), so `top` takes the hardest; `ccs` wants `hard: high`. In 0 .. sqrt(2) an epoch.

    Source: Paul et al. 2021; the first 10 epochs summed as in CCS, `generate_importance_score.py`.
    """

    name: ClassVar[str] = "el2n"

    def of_epochs(self, epochs: Floats) -> Array:
        """The sum.

        Raises:
            InvalidInput: a norm is negative.
        """
        negative = np.argwhere(epochs < 0)
        if len(negative):
            at, row = negative[0].tolist()
            raise InvalidInput(
                f"el2n: column {self.fields[at]!r}: row {{row}} is {epochs[at, row]:g}, a norm is >= 0", row=row
            )
        return TrainingDynamics.of_epochs(self, epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aum(TrainingDynamics):
    """The area under the margin: the sum over epochs of p(label) - max p(other).

    Low is hard (or wrongly labelled), so `top` takes the easiest unless `descending: false`; `ccs` wants `hard: low`.

    Source: Pleiss et al. 2020; with probabilities, not logits, and a sum, not a mean, as in CCS.
    """

    name: ClassVar[str] = "aum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting(TrainingDynamics):
    """How often a row was right in one epoch and wrong in the next, from columns of 1 (right) and 0 (wrong).

    Args:
        never_learned: the score of a row that was right in no epoch: "most", above every count (the paper: it counts as
            forgotten most), or "zero" (CCS: nothing was forgotten, which ranks it with the easiest). Of epochs only:
            a ready count is taken as it is.

    High is hard, so `top` takes the hardest; `ccs` wants `hard: high`.

    Source: Toneva et al. 2019; `zero` as in CCS, `generate_importance_score.py`.
    """

    never_learned: str = "most"
    name: ClassVar[str] = "forgetting"

    def __post_init__(self) -> None:
        TrainingDynamics.__post_init__(self)
        check_choice(self.name, "never_learned", self.never_learned, ("most", "zero"))

    def of_epochs(self, epochs: Floats) -> Array:
        """The count of right, then wrong.

        Raises:
            InvalidInput: a value is neither 0 nor 1.
        """
        if len(epochs) == 1:
            return np.asarray(epochs[0])
        wrong = np.argwhere((epochs != 0) & (epochs != 1))
        if len(wrong):
            at, row = wrong[0].tolist()
            raise InvalidInput(
                f"forgetting: column {self.fields[at]!r}: row {{row}} is {epochs[at, row]:g}, must be 1 (right) or 0 (wrong)",
                row=row,
            )
        count = ((epochs[:-1] == 1) & (epochs[1:] == 0)).sum(axis=0)
        if self.never_learned == "most":
            count[~epochs.any(axis=0)] = len(epochs)
        return np.asarray(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cartography(TrainingDynamics):
    """Confidence times variability: the mean over epochs of the probability of the label, times its standard deviation.

    Low is an outlier: a row that no epoch learned. `top` takes the highest, `outliers` drops the lowest.

    Source: Karamcheti et al. 2021, on the data maps of Swayamdipta et al. 2020.
    """

    name: ClassVar[str] = "cartography"

    def of_epochs(self, epochs: Floats) -> Array:
        """The product; a ready score is taken as it is.

        Raises:
            InvalidInput: a probability is not in 0..1.
        """
        if len(epochs) == 1:
            return np.asarray(epochs[0])
        wrong = np.argwhere((epochs < 0) | (epochs > 1))
        if len(wrong):
            at, row = wrong[0].tolist()
            raise InvalidInput(
                f"cartography: column {self.fields[at]!r}: row {{row}} is {epochs[at, row]:g}, must be a probability",
                row=row,
            )
        return np.asarray(epochs.mean(axis=0, dtype=np.float64) * epochs.std(axis=0, dtype=np.float64))
