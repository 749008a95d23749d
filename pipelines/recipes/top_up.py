"""What a top-up keeps of the last selection."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipelines.recipes.inputs import DrawInputs, Mask
from selection import Selection
from selection.types import Reason
from storage.ids import from_arrow, rows_of
from storage.records import read_selection


def kept_rows(inputs: DrawInputs, eligible: Mask, cost: npt.NDArray[np.float64]) -> Selection:
    """The rows of the last selection that are still in the pool and eligible, in its order, to the budget; else none."""
    spec = inputs.spec
    if spec.previous is None:
        return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("kept", 0))
    last = read_selection(inputs.view.store, spec.previous)[1]
    rows = rows_of(from_arrow(last["id"]), inputs.snapshot.ids)
    alive = (rows >= 0) & eligible[np.maximum(rows, 0)]
    rows, gain = rows[alive], last["gain"].to_numpy()[alive]
    fits = int(np.searchsorted(np.cumsum(cost[rows]), spec.budget, side="right"))
    return Selection(rows[:fits], gain[:fits], Reason.of("kept", fits))
