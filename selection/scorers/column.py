"""A numeric column of the pool as the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.step import Scorer, check_flag, check_name
from selection.types import Array, Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Scorer):
    """Score by a numeric column, highest first, or lowest first with `descending: false`.

    Args:
        field: the column, of finite numbers.
        descending: true for highest first.

    Not for: numbers that mean something else in each source: the source of the largest takes the whole budget.

    Cost: n.
    """

    field: str
    descending: bool = True
    name: ClassVar[str] = "column"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})

    def __post_init__(self) -> None:
        check_name(self.name, "field", self.field)
        check_flag(self.name, "descending", self.descending)

    @property
    def columns(self) -> frozenset[str]:
        """The column."""
        return frozenset({self.field})

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: the column is not numeric, or a row has no finite value.
        """
        values = numbers(self.field, pool.get_column(self.field))
        return values if self.descending else -values


def numbers(field: str, values: Array) -> Floats:
    """(n,) float32 from a column of numbers. An object column whose values are all numbers is accepted, too.

    Raises:
        InvalidInput: a value is missing, not a number or not finite.
    """
    if values.dtype.kind not in "biufO":
        raise InvalidInput(f"column {field!r} must be numeric, got {values.dtype}")
    if values.dtype.kind == "O":
        for row, value in enumerate(values):
            if value is None or isinstance(value, str):
                raise InvalidInput(f"column {field!r}: row {{row}} is {value!r}, must be a number", row=row)
    with np.errstate(over="ignore"):
        scores = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise InvalidInput(
            f"column {field!r}: row {{row}} is {values[bad[0]]}, must be a finite number; `where` can keep such rows out",
            row=int(bad[0]),
        )
    return scores
