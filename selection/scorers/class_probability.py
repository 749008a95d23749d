"""The probability of one class as the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.probabilities import by_row
from selection.pool import Pool
from selection.step import Scorer
from selection.types import Array, Doubles, Floats, Input, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassProbability(Scorer):
    """The probability that a row is of one class, highest first: what a classifier of good and other rows keeps.

    Args:
        of: the class: its name, or its number (0 .. C-1).

    Not for: finding what the classifier is unsure of: `entropy` and `margin` do that.

    Source: the quality filters of DCLM (Li et al. 2024). Cost: one pass over the probabilities, one block and n floats.
    """

    of: str | int
    name: ClassVar[str] = "class_probability"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.PROBABILITIES})

    def __post_init__(self) -> None:
        is_number = isinstance(self.of, int) and not isinstance(self.of, bool) and self.of >= 0
        if not is_number and not (isinstance(self.of, str) and self.of):
            raise self.invalid(f"of must be a class's name or its number, 0 or more, got {self.of!r}", "of")

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidOption: there is no such class.
            InvalidInput: a row's probabilities are no distribution; names the row.
        """
        probabilities = pool.get_probabilities()
        number = self.number(tuple(pool.classes), probabilities.shape[1])
        return by_row(probabilities, Input.PROBABILITIES, _probability_of, number)

    def number(self, names: tuple[str, ...], count: int) -> int:
        """The number of the class among `count`.

        Args:
            names: of the classes; none where they are not known.

        Raises:
            InvalidOption: there is no such class.
        """
        if isinstance(self.of, int) and self.of < count:
            return self.of
        if self.of in names:
            return names.index(str(self.of))
        known = f", {', '.join(names)}" if names else "; their names are not known"
        raise self.invalid(f"of is {self.of!r}, but the classes are 0..{count - 1}{known}", "of")


def _probability_of(tile: Doubles, number: int, rows: Rows, out: Array) -> None:
    out[rows] = tile[:, number]
