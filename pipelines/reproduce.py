"""Draw a selection again from its record."""

from __future__ import annotations

import numpy as np

from pipelines.context import Context
from pipelines.errors import HeldBack
from pipelines.labeling.inputs import recorded_inputs
from pipelines.recipes.draw import replay
from pipelines.recipes.spec import SelectionSpec
from storage.errors import NotInStore
from storage.ids import from_arrow
from storage.records import read_selection
from storage.vectors.segments import verify_segments

_FORGOTTEN = "Rows of its pool were forgotten on request since it was drawn, so that nothing can draw it again."


def reproduce(context: Context, selection_id: str) -> str:
    """Draw a selection again from its record and say whether it is the same.

    Raises:
        NotInStore: there is no such selection.
        StoreDamaged: the vectors are not what was committed.
        HeldBack: it differs.
    """
    header, items = read_selection(context.store, selection_id)
    stored = {header["encoder"], *header["target_encoders"].values(), *header.get("scores", {}).values()}
    for encoder in stored - {None}:
        verify_segments(context.store, encoder)
    spec = SelectionSpec.from_record(header)
    is_without_rows = bool(context.pool.snapshot_of(spec.snapshot).header.get("forgotten"))
    try:
        again = replay(recorded_inputs(context.pool, spec, header))
    except NotInStore as error:
        if not is_without_rows:
            raise
        raise HeldBack(f"{selection_id} is not reproduced: {error}. {_FORGOTTEN}") from error
    before = from_arrow(items["id"])
    now = from_arrow(again["id"])
    if len(before) == len(now) and bool((before == now).all()) and items["gain"].equals(again["gain"]):
        return f"{selection_id}: the same {len(before):,} rows in the same order, with the same gains"
    common = len(np.intersect1d(before, now))
    if is_without_rows:
        raise HeldBack(
            f"{selection_id} is not reproduced: {common:,} of {len(before):,} rows are the same. {_FORGOTTEN}"
        )
    raise HeldBack(
        f"{selection_id} is not reproduced: {common:,} of {len(before):,} rows are the same. It was drawn by "
        f"{header['code_version']}; this is another version, or its vectors were encoded anew."
    )
