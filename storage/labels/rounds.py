"""Rounds of labeling: what was sent out to be labelled, and why.

    records/rounds/<round_id>/
      round.json      the header: project, number, steps, model, what it was drawn from, advice
      items.parquet   the rows, in the order of the batch (`ITEM_COLUMNS`)

A round is never changed: who labelled what is in the log of labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from storage.errors import NotInStore
from storage.records import checked_items, read_items, write_items
from storage.store import Store, read_json, utc_now, write_json

# Of a round; `annotators` is how many labels a row wants, `inclusion_probability` that of the random arm.
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
ARMS = ("strategy", "random", "gold")


def commit_round(store: Store, header: Mapping[str, Any], items: pa.Table) -> str:
    """Commit a round; the same `round_id` twice is one record, the first.

    Args:
        header: JSON-plain: `round_id`, `project`, `round` and whatever else describes the draw. `n_items` and `created_at`
            are filled in.
        items: columns `ITEM_COLUMNS`; rank is 1 .. n, ascending, an id comes once.

    Returns:
        The round's id.

    Raises:
        ValueError: a column is missing, the ranks are not 1 .. n, an id comes twice, or an arm is unknown.
    """
    round_id = str(header["round_id"])
    strange = sorted(set(items["arm"].to_pylist()) - set(ARMS)) if "arm" in items.column_names else []
    if strange:
        raise ValueError(f"round {round_id}: arm must be one of {', '.join(ARMS)}, got {strange[0]!r}")
    items = checked_items(f"round {round_id}", items, ITEM_COLUMNS)
    if not store.has("records", "rounds", round_id):
        with store.committing("records", "rounds", round_id) as folder:
            write_items(folder / "items.parquet", "round_id", round_id, items)
            write_json(
                folder / "round.json",
                {"created_at": utc_now(), **header, "round_id": round_id, "n_items": len(items)},
            )
    return round_id


def read_rounds(store: Store, project: str) -> list[dict[str, Any]]:
    """The headers of a project's rounds, by number."""
    headers = [read_json(store.path("records", "rounds", name, "round.json")) for name in store.records("rounds")]
    mine = [header for header in headers if header["project"] == project]
    return sorted(mine, key=lambda header: (header["round"], header["created_at"], header["round_id"]))


def read_round_items(store: Store, round_id: str) -> pa.Table:
    """The rows of a round in the order of the batch.

    Raises:
        NotInStore: there is no such round.
        StoreDamaged: the record is not whole.
    """
    if not round_id or not store.has("records", "rounds", round_id):
        raise NotInStore(f"no round {round_id!r} in {store.root}; the catalog's `rounds` lists them")
    return read_items(store.path("records", "rounds", round_id, "items.parquet"), ITEM_COLUMNS)
