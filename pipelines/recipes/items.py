"""A selection over rows as tables over ids, which is what a record holds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from selection import Selection
from selection.types import FilterReport, Reason, Rows
from storage.ids import Ids, to_arrow, to_text


def items_table(parts: Sequence[Selection], ids: Ids) -> pa.Table:
    """The picks of several selections, one after the other: rank, id, kind, ref, value, gain, ref_rank."""
    items = pa.concat_tables([_picks(part, ids) for part in parts])
    return items.add_column(0, "rank", pa.array(np.arange(1, len(items) + 1, dtype=np.uint32)))


def reports_table(reports: Sequence[FilterReport], ids: Ids) -> pa.Table | None:
    """What filters report of rows, with the step's name: id, kind, ref, value, step. None without a report."""
    tables = [
        _reasons(report.rows, report.reason, ids).append_column(
            "step", pa.repeat(pa.scalar(report.step), len(report.rows))
        )
        for report in reports
    ]
    return pa.concat_tables(tables) if tables else None


def _picks(selection: Selection, ids: Ids) -> pa.Table:
    rank = selection.reason.rank
    return (
        _reasons(selection.rows, selection.reason, ids)
        .append_column("gain", pa.array(selection.gain, pa.float32()))
        # Places are counted from 1 for people, as ranks are.
        .append_column("ref_rank", pa.array(rank + 1, pa.int32(), mask=rank < 0))
    )


def _reasons(rows: Rows, reason: Reason, ids: Ids) -> pa.Table:
    """Rows with their reasons, as ids and names."""
    refs = reason.text()
    is_row = np.flatnonzero(np.isin(reason.kind, list(reason.ROW_KINDS)) & (reason.ref >= 0))
    for position, text in zip(is_row, to_text(ids[reason.ref[is_row]]), strict=True):
        refs[position] = text
    return pa.table(
        {
            "id": to_arrow(ids[rows]),
            "kind": pa.array(reason.kind.tolist(), pa.string()),
            "ref": pa.array(refs, pa.string()),
            "value": pa.array(reason.value, pa.float32(), from_pandas=True),
        }
    )
