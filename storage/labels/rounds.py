"""Rounds of labeling: the rows that were sent out to be labelled, and why.

    records/rounds/<round_id>/
      round.json      the header: project, number, steps, model, what it was drawn from, advice
      items.parquet   the rows, in the order of the batch (`ITEM_COLUMNS`)

A round is never changed: who labelled what is in the log of labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.damage import readable
from storage.ids import Ids, from_arrow
from storage.records import checked_items, commit_record, read_items, record_folder
from storage.store import Store

# Of a round; `annotators` is how many labels a row wants, `assigned` whose, where the project names its annotators;
# `price` is what one label of the row costs;
# `inclusion_probability` is that of the random arm.
ITEM_COLUMNS = {
    "rank": pa.uint32(),
    "id": pa.uuid(),
    "arm": pa.string(),
    "annotators": pa.uint8(),
    "prediction": pa.string(),
    "probability": pa.float32(),
    "score": pa.float32(),
    "inclusion_probability": pa.float32(),
}
# Not in records of earlier versions, nor of projects that name no annotators; nor where the budget is not in money.
ADDED_COLUMNS = {"assigned": pa.list_(pa.string()), "price": pa.float64()}
ARMS = ("strategy", "random", "gold", "rare")


def commit_round(store: Store, header: Mapping[str, Any], items: pa.Table) -> str:
    """Commit a round; the same `round_id` twice is one record, the first.

    Args:
        header: JSON-plain: `round_id`, `project`, `round` and whatever else describes the draw. `n_items` and
            `created_at` are filled in.
        items: columns `ITEM_COLUMNS`, and those of `ADDED_COLUMNS` that say something; rank is 1 .. n, ascending, an id
            comes once.

    Returns:
        The round's id.

    Raises:
        ValueError: a column is missing, the ranks are not 1 .. n, an id comes twice, or an arm is unknown.
    """
    round_id = str(header["round_id"])
    unknown = sorted(set(items["arm"].to_pylist()) - set(ARMS)) if "arm" in items.column_names else []
    if unknown:
        raise ValueError(f"round {round_id}: arm must be one of {', '.join(ARMS)}, got {unknown[0]!r}")
    added = {name: kind for name, kind in ADDED_COLUMNS.items() if name in items.column_names}
    items = checked_items(f"round {round_id}", items, ITEM_COLUMNS | added)
    return commit_record(store, "round", {**header, "n_items": len(items)}, {"items": items})


def read_rounds(store: Store, project: str) -> list[dict[str, Any]]:
    """The headers of a project's rounds, by number."""
    headers = [readable(store, "rounds", name, whole=True) for name in store.records("rounds")]
    of_project = [header for header in headers if header and header["project"] == project]
    return sorted(of_project, key=lambda header: (header["round"], header["created_at"], header["round_id"]))


def read_round_items(store: Store, round_id: str) -> pa.Table:
    """The rows of a round in the order of the batch, with columns `ITEM_COLUMNS` and `ADDED_COLUMNS`.

    Raises:
        NotInStore: there is no such round.
        StoreDamaged: the record is not whole.
    """
    return read_items(record_folder(store, "round", round_id) / "items.parquet", ITEM_COLUMNS, ADDED_COLUMNS)


def sent_ids(store: Store, rounds: Iterable[str], arm: str | None = None) -> Ids:
    """The rows that rounds sent out, each once, ascending; of one arm, or of all."""
    ids = [np.empty(0, "S16")]
    for round_id in rounds:
        items = read_round_items(store, round_id)
        items = items if arm is None else items.filter(pc.equal(items["arm"], arm))
        ids.append(from_arrow(items["id"]))
    return np.unique(np.concatenate(ids))
