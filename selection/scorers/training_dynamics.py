"""How hard a row was to learn, from columns that a training run recorded: el2n, aum, forgetting, cartography.

A single column holds the finished score. Several columns hold one measurement for each epoch, in the order of the
epochs, and the scorer combines them. Scores keep the direction in which they were published: each docstring says
whether high or low is hard.

Cost of each: one pass over the columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.scorers.column import numbers
from selection.step import Scorer, check_choice, check_flag, check_name
from selection.types import Array, Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingDynamics(Scorer):
    """The base of these scorers.

    Args:
        fields: the column of the score, or a list with the column of each epoch.
        descending: true for highest first, false for lowest first.
    """

    fields: str | Sequence[str]
    descending: bool = True
    name: ClassVar[str]
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})

    def __post_init__(self) -> None:
        fields = (self.fields,) if isinstance(self.fields, str) else self.fields
        if not isinstance(fields, list | tuple) or not fields:
            raise self.invalid(
                f"fields must be a column or a list of one for each epoch, got {self.fields!r}", "fields"
            )
        for field in fields:
            check_name(self.name, "fields", field)
        if len(set(fields)) < len(fields):
            raise self.invalid(f"fields names a column twice: {', '.join(fields)}", "fields")
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
        scores = self.score_epochs(epochs).astype(np.float32)
        return scores if self.descending else -scores

    def score_epochs(self, epochs: Floats) -> Array:
        """(n,) the score from the measurements (epochs, n): their sum, unless a scorer says otherwise."""
        return np.asarray(epochs.sum(axis=0, dtype=np.float64))

    def refuse(self, wrong: Array, epochs: Floats, rule: str) -> None:
        """Raise `InvalidInput` for the first value of (epochs, n) that is wrong; `rule` says what a value must be."""
        for epoch, row in np.argwhere(wrong)[:1].tolist():
            column, value = self.fields[epoch], epochs[epoch, row]
            raise InvalidInput(f"{self.name}: column {column!r}: row {{row}} is {value:g}, {rule}", row=row)


@dataclass(frozen=True, slots=True, kw_only=True)
class El2n(TrainingDynamics):
    """The error norm: the sum over early epochs of |p - y|, with p the predicted probabilities and y the one-hot label.

    High is hard (or wrongly labelled), so `top` takes the hardest and `ccs` needs `hard: high`. Each epoch adds 0 ..
    sqrt(2).

    Not for: labels that are often wrong: wrong labels score highest.

    Source: Paul et al. 2021; the first 10 epochs summed as in CCS, `generate_importance_score.py`.
    """

    name: ClassVar[str] = "el2n"

    def score_epochs(self, epochs: Floats) -> Array:
        """The sum.

        Raises:
            InvalidInput: a norm is negative.
        """
        self.refuse(epochs < 0, epochs, "a norm is >= 0")
        return TrainingDynamics.score_epochs(self, epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Aum(TrainingDynamics):
    """The area under the margin: the sum over epochs of p(label) - max p(other).

    Low is hard (or wrongly labelled), so `top` takes the easiest unless `descending: false`, and `ccs` needs `hard:
    low`.

    Not for: runs of a few epochs, or labels that the run did not learn from.

    Source: Pleiss et al. 2020; with probabilities instead of logits and a sum instead of a mean, as in CCS.
    """

    name: ClassVar[str] = "aum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting(TrainingDynamics):
    """How often a row was predicted right in one epoch and wrong in the next, from columns of 1 (right) and 0 (wrong).

    Args:
        never_learned: the score of a row that was right in no epoch. "most" is above every count (as in the paper);
            "zero" says that nothing was forgotten, which ranks the row with the easiest (as in CCS). Used with several
            columns only: a finished count in a single column stays as it is.

    High is hard, so `top` takes the hardest and `ccs` needs `hard: high`.

    Not for: runs of a few epochs: most rows are then forgotten never or once.

    Source: Toneva et al. 2019; `zero` as in CCS, `generate_importance_score.py`.
    """

    never_learned: str = "most"
    name: ClassVar[str] = "forgetting"

    def __post_init__(self) -> None:
        TrainingDynamics.__post_init__(self)
        check_choice(self.name, "never_learned", self.never_learned, ("most", "zero"))

    def score_epochs(self, epochs: Floats) -> Array:
        """The count; a single column is the finished count.

        Raises:
            InvalidInput: a value is neither 0 nor 1.
        """
        if len(epochs) == 1:
            return np.asarray(epochs[0])
        self.refuse((epochs != 0) & (epochs != 1), epochs, "must be 1 (right) or 0 (wrong)")
        count = ((epochs[:-1] == 1) & (epochs[1:] == 0)).sum(axis=0)
        if self.never_learned == "most":
            count[~epochs.any(axis=0)] = len(epochs)
        return np.asarray(count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cartography(TrainingDynamics):
    """Confidence times variability: the mean over epochs of the label's probability, times its standard deviation.

    A low score marks an outlier: a row that no epoch learned. `top` takes the highest, `outliers` drops the lowest.

    Not for: runs of a few epochs, whose standard deviations say little.

    Source: Karamcheti et al. 2021, on the data maps of Swayamdipta et al. 2020.
    """

    name: ClassVar[str] = "cartography"

    def score_epochs(self, epochs: Floats) -> Array:
        """The product; a single column is the finished score.

        Raises:
            InvalidInput: a probability is not in 0..1.
        """
        if len(epochs) == 1:
            return np.asarray(epochs[0])
        self.refuse((epochs < 0) | (epochs > 1), epochs, "must be a probability")
        return np.asarray(epochs.mean(axis=0, dtype=np.float64) * epochs.std(axis=0, dtype=np.float64))
