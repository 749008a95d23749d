"""A SQL expression over columns as the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.step import Scorer
from selection.types import Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression(Scorer):
    """The value of one SQL expression, highest first, as `{expression: "nll_answer / nll_alone"}`.

    Args:
        sql: the expression; it is what the step's name maps to.

    A recipe evaluates it over the columns of `examples`, read-only, before the steps run. Without a recipe, the values
    are a column whose name is the expression's text.

    Not for: what one column holds already: `column` reads it without SQL.

    Source: the difference of two models (Moore & Lewis 2010) and a soft AND of rewards (Wang et al. 2024) are such
    expressions. Cost: n, and the evaluation.
    """

    sql: str
    name: ClassVar[str] = "expression"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})
    text_option: ClassVar[str | None] = "sql"

    def __post_init__(self) -> None:
        if not isinstance(self.sql, str) or not self.sql.strip():
            raise self.invalid(f"sql must be one SQL expression, got {self.sql!r}", "sql")

    @property
    def columns(self) -> frozenset[str]:
        """The expression's text."""
        return frozenset({self.sql})

    @property
    def expressions(self) -> frozenset[str]:
        """The expression."""
        return frozenset({self.sql})

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: a row has no value, or one that is not finite; names the row.
        """
        values = pool.get_column(self.sql)
        if values.dtype.kind not in "biuf":
            raise InvalidInput(f"expression {self.sql!r} must give numbers, gives {values.dtype}")
        with np.errstate(over="ignore"):
            scores = values.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            value = float(values[bad[0]])
            said = "has no value (NULL or NaN)" if np.isnan(value) else f"is {value:g}, which is not finite as float32"
            # Braces of the expression are not to be filled in.
            text = repr(self.sql).replace("{row}", "{ row}")
            raise InvalidInput(
                f"expression {text}: row {{row}} {said}; `where` can keep such rows out", row=int(bad[0])
            )
        return scores
