"""What rows cost to have labelled, and how many of a draw can be paid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.config.schema import LabelBudget
from selection.allocation import as_written
from selection.encoders import tokenizer_fingerprint
from storage import ids as idlib
from storage.errors import BadInput
from storage.pool.snapshot import Snapshot
from storage.pool.token_counts import read_counts

Money = npt.NDArray[np.float64]
# Of what is left: sums of many prices differ in their last bits.
ROUNDING = 1e-9


def purse(budget: LabelBudget | None, left: float, overlap: float) -> dict[str, Any] | None:
    """What may end an arm of a round early, JSON-plain; None where money does not."""
    if budget is None or budget.money is None:
        return None
    return {
        "left": left,
        "per_row": budget.per_row,
        "column": budget.column,
        "per_token": budget.per_token,
        "tokenizer": tokenizer_fingerprint(budget.tokenizer) if budget.tokenizer else None,
        "overlap": overlap,
    }


def prices(purse: Mapping[str, Any], snapshot: Snapshot) -> Money:
    """(n,) what one label of each row costs; NaN where the column says nothing."""
    if purse["per_row"] is not None:
        return np.full(len(snapshot), purse["per_row"], np.float64)
    if purse["tokenizer"] is not None:
        units = read_counts(snapshot.store, purse["tokenizer"], snapshot.ids).astype(np.float64)
    else:
        units = snapshot.column(purse["column"])
        if units.dtype.kind != "f":
            raise BadInput(f"budget: column {purse['column']!r} must hold numbers")
    return np.asarray(units * (1.0 if purse["per_token"] is None else purse["per_token"]))


def payable(purse: Mapping[str, Any], rows: npt.NDArray[np.int64], snapshot: Snapshot) -> int:
    """How many of the rows, in their order, can be paid before the first that overflows what is left.

    Raises:
        BadInput: a row has no price, or one below 0; names it.
    """
    price = prices(purse, snapshot)[rows]
    bad = np.flatnonzero(~(price >= 0))
    if len(bad):
        row = idlib.to_text(snapshot.ids[rows[bad[:1]]])[0]
        raise BadInput(f"budget: row {row} has the price {price[bad[0]]}; `where` can keep such rows out")
    cost = np.cumsum(price * wanted(len(rows), purse["overlap"]))
    return int(np.searchsorted(cost, purse["left"] * (1 + ROUNDING), side="right"))


def wanted(count: int, overlap: float) -> npt.NDArray[np.uint8]:
    """(count,) how many labels each row of an arm wants: two for an even share of them, else one.

    >>> wanted(10, 0.2).tolist()
    [1, 1, 1, 1, 2, 1, 1, 1, 1, 2]
    """
    return np.array([1 + share_of(overlap, place + 1) - share_of(overlap, place) for place in range(count)], np.uint8)


def share_of(share: float, count: int) -> int:
    """A share of a count, rounded down."""
    return int(as_written(share) * count)
