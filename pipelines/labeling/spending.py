"""What labels cost, and how many rows of a draw can be paid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.config.schema import LabelBudget
from selection.allocation import as_written
from selection.encoders import tokenizer_fingerprint
from selection.types import Rows
from storage.errors import BadInput
from storage.ids import to_text
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import read_counts

Money = npt.NDArray[np.float64]
# Of what is left: sums of many costs differ in their last bits.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class SpendingLimit:
    """What may end an arm of a round early.

    Attributes:
        left: how much money is left.
        per_row, column, per_token, tokenizer: what one label of a row costs, as `labeling.<name>.budget` says it; the
            tokenizer by its fingerprint.
        overlap: the share of rows that want two labels.
    """

    left: float
    per_row: float | None
    column: str | None
    per_token: float | None
    tokenizer: str | None
    overlap: float

    @classmethod
    def of(cls, budget: LabelBudget | None, left: float = 0.0, overlap: float = 0.0) -> SpendingLimit | None:
        """The limit that a project's budget sets; None where the budget is not in money."""
        if budget is None or budget.money is None:
            return None
        prices = budget.model_dump(include={"per_row", "column", "per_token"})
        tokenizer = tokenizer_fingerprint(budget.tokenizer) if budget.tokenizer else None
        return cls(left=left, tokenizer=tokenizer, overlap=overlap, **prices)

    def costs(self, snapshot: Snapshot) -> Money:
        """(n,) what one label of each row costs; NaN where the column says nothing."""
        if self.per_row is not None:
            return np.full(len(snapshot), self.per_row, np.float64)
        if self.tokenizer is not None:
            units = read_counts(snapshot.store, self.tokenizer, snapshot.ids).astype(np.float64)
        else:
            assert self.column is not None  # the configuration demands one of the three
            units = snapshot.column(self.column)
            if units.dtype.kind != "f":
                raise BadInput(f"budget: column {self.column!r} must hold numbers")
        return np.asarray(units * (1.0 if self.per_token is None else self.per_token))

    def affordable(self, rows: Rows, snapshot: Snapshot) -> int:
        """How many of the rows, in their order, can be paid before the first that overflows what is left.

        Raises:
            BadInput: a row has no price, or one below 0; names it.
        """
        costs = self.costs(snapshot)[rows]
        bad = np.flatnonzero(~(costs >= 0))
        if len(bad):
            row = to_text(snapshot.ids[rows[bad[:1]]])[0]
            raise BadInput(f"budget: row {row} has the price {costs[bad[0]]}; `where` can keep such rows out")
        total = np.cumsum(costs * labels_wanted(len(rows), self.overlap))
        return int(np.searchsorted(total, self.left * (1 + ROUNDING), side="right"))

    def total(self, rows: Rows, snapshot: Snapshot) -> float:
        """What all labels that these rows want cost together."""
        return float((self.costs(snapshot)[rows] * labels_wanted(len(rows), self.overlap)).sum())


def labels_wanted(count: int, overlap: float) -> npt.NDArray[np.uint8]:
    """(count,) how many labels each row of an arm wants: two for an even share of them, else one.

    >>> labels_wanted(10, 0.2).tolist()
    [1, 1, 1, 1, 2, 1, 1, 1, 1, 2]
    """
    return np.array([1 + share_of(overlap, place + 1) - share_of(overlap, place) for place in range(count)], np.uint8)


def share_of(share: float, count: int) -> int:
    """A share of a count, rounded down."""
    return int(as_written(share) * count)
