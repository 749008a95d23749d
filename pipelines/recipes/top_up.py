"""What `mode: top_up` and `mode: sticky` go on from: the rows of the last selection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipelines.recipes.inputs import DrawInputs, Mask
from selection import Selection, Sticky, sticky
from selection.types import FilterReport, Floats, Reason, Rows
from storage.ids import from_arrow, rows_of
from storage.records import read_selection

# Of a sticky selection's facts: how many rows of the last selection the steps took again; how many stay only for
# `max_churn`; how many were given up for others; how many rows the steps took that `max_churn` kept out.
FACTS = {
    "sticky_stays": sticky.STAYS,
    "sticky_held": sticky.KEPT,
    "sticky_replaced": sticky.REPLACED,
    "sticky_held_back": sticky.HELD_BACK,
}


def kept_rows(inputs: DrawInputs, eligible: Mask, cost: npt.NDArray[np.float64]) -> Selection:
    """The rows of the last selection that are still in the pool and eligible, in its order, to the budget; else none."""
    spec = inputs.spec
    if spec.previous is None or spec.max_churn is not None:
        return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("kept", 0))
    rows, gain = _last(inputs, spec.previous)
    alive = eligible[rows]
    rows, gain = rows[alive], gain[alive]
    fits = int(np.searchsorted(np.cumsum(cost[rows]), spec.budget, side="right"))
    return Selection(rows[:fits], gain[:fits], Reason.of("kept", fits))


def sticky_rows(inputs: DrawInputs) -> Sticky | None:
    """The rows of the last selection that are still in the pool, in its order, and how much of them may be given up."""
    spec = inputs.spec
    if spec.previous is None or spec.max_churn is None:
        return None
    return Sticky(*_last(inputs, spec.previous), spec.max_churn)


def sticky_counts(inputs: DrawInputs, reports: Iterable[FilterReport]) -> dict[str, int]:
    """What became of the last selection's rows; by the names that the facts of a selection have."""
    spec = inputs.spec
    if spec.previous is None or spec.max_churn is None:
        return {}
    kinds = Counter[str]()
    for report in reports:
        if report.step == sticky.NAME:
            kinds.update(report.reason.kind.tolist())
    counts = {fact: kinds[kind] for fact, kind in FACTS.items()}
    last = len(read_selection(inputs.view.store, spec.previous)[1])
    counts["sticky_could_not_stay"] = last - sum(kinds[kind] for kind in (sticky.STAYS, sticky.KEPT, sticky.REPLACED))
    return counts


def _last(inputs: DrawInputs, previous: str) -> tuple[Rows, Floats]:
    items = read_selection(inputs.view.store, previous)[1]
    rows = rows_of(from_arrow(items["id"]), inputs.snapshot.ids)
    return rows[rows >= 0], items["gain"].to_numpy()[rows >= 0]
