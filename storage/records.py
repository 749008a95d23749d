"""Records of selections, runs and metrics, each committed whole or not at all."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage import duck
from storage.damage import KINDS, committed_whole, read_record, readable, set_aside
from storage.errors import NotInStore, StoreDamaged
from storage.ids import from_arrow, to_text
from storage.packs import read_table, table_columns
from storage.store import Store, utc_now, write_durably, write_json

ITEM_COLUMNS = {
    "rank": pa.uint32(),
    "id": pa.uuid(),
    "gain": pa.float32(),
    "kind": pa.string(),
    "ref": pa.string(),
    "ref_rank": pa.int32(),
    "value": pa.float32(),
}
# Of a row that a filter dropped or kept, and why.
REPORT_COLUMNS = {"id": pa.uuid(), "step": pa.string(), "kind": pa.string(), "ref": pa.string(), "value": pa.float32()}

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_last_run_id = 0
_run_id_lock = threading.Lock()


def digest_of(value: Any) -> str:
    """32 hex digits that depend on a JSON-plain value and nothing else: blake2b-128 of its canonical JSON.

    Raises:
        ValueError: the value holds a NaN or an infinity.
        TypeError: the value is not JSON-plain.

    >>> digest_of({"b": 1, "a": ["x"]}) == digest_of({"a": ("x",), "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def new_run_id(after: Iterable[str] = ()) -> str:
    """A fresh ULID, 26 letters and digits: later ids sort after earlier ones, in one process strictly.

    Args:
        after: ids that it sorts after too, whatever the clock says; what is no ULID does not count.

    >>> new_run_id() < new_run_id()
    True
    >>> new_run_id(after=["7Z000000000000000000000000"]) > "7Z000000000000000000000000"
    True
    """
    global _last_run_id  # noqa: PLW0603
    with _run_id_lock:
        _last_run_id = max((time.time_ns() // 1_000_000 << 80) | secrets.randbits(80), _last_run_id + 1)
        number = _last_run_id
    last = next((_number_of(text) for text in sorted(after, reverse=True) if is_run_id(text)), -1)
    if number <= last:
        # A random step, so that two processes that know of the same last id do not choose the same next one.
        number = last + 1 + secrets.randbits(64)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def is_run_id(text: str) -> bool:
    """Whether a text is a ULID."""
    return len(text) == 26 and set(text) <= set(_CROCKFORD) and text[0] <= "7"


def _number_of(text: str) -> int:
    """The number that a ULID writes."""
    number = 0
    for letter in text:
        number = number << 5 | _CROCKFORD.index(letter)
    return number


def commit_selection(
    store: Store,
    header: Mapping[str, Any],
    items: pa.Table,
    dropped: pa.Table | None = None,
    retrieved: pa.Table | None = None,
) -> str:
    """Commit a selection; the same `selection_id` twice is one record, the first.

    Args:
        header: JSON-plain; `selection_id`, `recipe` and whatever else describes the draw. `n_items` and `created_at`
            are filled in.
        items: columns rank (1 .. n, ascending), id (UUID), gain, kind, ref, ref_rank, value.
        dropped: what filters left out and why: columns id (UUID), step, kind, ref, value.
        retrieved: which row pulled each item through a filter that searches: the same columns; stored as found.parquet.

    Returns:
        The selection's id.

    Raises:
        ValueError: a column is missing, the ranks are not 1 .. n, or an id comes twice.

    Cost: about 20 bytes an item on disk, 16 of them the id.
    """
    items = checked_items(f"selection {header['selection_id']}", items, ITEM_COLUMNS)
    reports = {"dropped": dropped, "found": retrieved}
    tables = {name: table.select(list(REPORT_COLUMNS)) for name, table in reports.items() if table}
    return commit_record(store, "selection", {**header, "n_items": len(items)}, {"items": items, **tables})


def read_selection(store: Store, selection_id: str) -> tuple[dict[str, Any], pa.Table]:
    """A selection's header and its items in rank order.

    Raises:
        NotInStore: no such selection is committed.
        StoreDamaged: the record is not whole.
    """
    folder = record_folder(store, "selection", selection_id)
    header = read_record("selections", folder)
    items = read_items(folder / "items.parquet", ITEM_COLUMNS)
    if len(items) != header.get("n_items"):
        raise StoreDamaged(
            f"{folder / 'items.parquet'} holds {len(items)} items, {folder / 'selection.json'} says {header.get('n_items')}"
        )
    return header, items


def known_selection(
    store: Store, selection_id: str, needs: Iterable[str] = ()
) -> tuple[dict[str, Any], pa.Table] | None:
    """A selection that was drawn before; None if there is none. A damaged one is put aside, to be drawn again.

    Args:
        needs: keys that its header must have.
    """
    if not committed_whole(store, "selections", selection_id):
        return None
    folder = store.place("records", "selections", selection_id)
    try:
        header, items = read_selection(store, selection_id)
    except StoreDamaged as error:
        set_aside(store, folder, str(error))
        return None
    missing = sorted(set(needs) - set(header))
    if missing:
        set_aside(store, folder, f"{folder / 'selection.json'} lacks {', '.join(map(repr, missing))}")
        return None
    return header, items


def commit_run(store: Store, run: Mapping[str, Any]) -> str:
    """Commit the record of one execution of a stage; returns its `run_id`.

    Runs are in the order of their ids, which is that of their commits whatever the clocks say: an id counts on from the
    highest one that the store has.

    Args:
        run: JSON-plain: `invocation`, `stage`, `target`, `status` ("ok", "held_back" or "failed"), `subject` (the id of
            what was made), `started_at`, `finished_at`, `seconds`, `peak_memory_bytes` (of the process),
            `config_digest`, `code_version`, `summary`, `facts`, `checks`, `error`. A `run_id` is given here, unless
            there is one.

    Cost: lists the names of all runs.
    """
    with store.lock("runs", "recording a run"):
        run_id = str(run.get("run_id") or new_run_id(after=store.records("runs")))
        with store.committing("records", "runs", run_id) as folder:
            write_json(folder / "run.json", {"run_id": run_id, **run})
    return run_id


def next_number(store: Store, kind: str) -> int:
    """One more than the highest `number` in the records of a kind: their order, whatever the clocks say.

    Records of earlier versions have none and come first. Hold a lock until the record is committed; a number that was
    given to none is left out.

    Cost: lists the records; reads them where more were added than numbers were given, after a copy of half a store.
    """
    names, path = store.committed(*KINDS[kind].root), store.path("last", kind)
    last, counted = _last_number(path)
    if len(names) > counted + 1:
        headers = [readable(store, kind, name) for name in names]
        last = max((header.get("number", 0) for header in headers if header), default=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, json.dumps([last + 1, len(names), digest_of([last + 1, len(names)])]))
    return last + 1


def _last_number(path: Path) -> tuple[int, int]:
    """The number that was given last, and how many records there were then; if nobody knows, no record was counted."""
    try:
        last, counted, digest = json.loads(path.read_text("utf-8"))
        return (last, counted) if digest_of([last, counted]) == digest else (0, -1)
    except (OSError, ValueError, TypeError):
        return 0, -1


def commit_metrics(store: Store, selection_id: str, values: Mapping[str, float]) -> str:
    """Commit metrics of a selection; the same values again are one record. Returns the record's id.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    document = {"selection_id": selection_id, "values": {name: float(value) for name, value in values.items()}}
    metrics_id = digest_of(document)
    if not store.has("records", "metrics", metrics_id):
        with store.committing("records", "metrics", metrics_id) as folder:
            write_json(folder / "metrics.json", {**document, "metrics_id": metrics_id, "created_at": utc_now()})
    return metrics_id


def commit_record(store: Store, kind: str, header: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> str:
    """Commit `records/<kind>s/<id>/`: `<kind>.json` and the tables; the same id twice is one record, the first.

    Args:
        kind: "selection", "round", "model", "classifier", "contamination", "embedding_recall" or
            "health_measurement".
        header: JSON-plain; `<kind>_id` is the id. `created_at` is filled in.
        tables: file name without extension -> table, written behind a column `<kind>_id`.

    Returns:
        The id.
    """
    key = f"{kind}_id"
    record_id = str(header[key])
    if not store.has("records", f"{kind}s", record_id):
        with store.committing("records", f"{kind}s", record_id) as folder:
            for name, table in tables.items():
                write_items(folder / f"{name}.parquet", key, record_id, table)
            write_json(folder / f"{kind}.json", {"created_at": utc_now(), **header, key: record_id})
    return record_id


def record_folder(store: Store, kind: str, record_id: str) -> Path:
    """The folder of a committed selection, round, model or classifier.

    Raises:
        NotInStore: there is none of this id.
    """
    if not record_id or not store.has("records", f"{kind}s", record_id):
        raise NotInStore(f"no {kind} {record_id!r} in {store.root}; the catalog's `{kind}s` lists them")
    return store.place("records", f"{kind}s", record_id)


def checked_items(record: str, items: pa.Table, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """Ranked items with exactly these columns and types, `rank` and `id` among them.

    Args:
        record: its name in an error: "selection 1234".

    Raises:
        ValueError: a column is missing, the ranks are not 1 .. n, or an id comes twice.
    """
    missing = [name for name in columns if name not in items.column_names]
    if missing:
        raise ValueError(f"{record}: the items miss the columns {missing}, got {items.column_names}")
    ids = from_arrow(items["id"])
    ranks = items["rank"].to_numpy()
    if not np.array_equal(ranks, np.arange(1, len(ranks) + 1)):
        raise ValueError(f"{record}: ranks must be 1 .. {len(ranks)} in this order")
    unique, counts = np.unique(ids, return_counts=True)
    if len(unique) != len(ids):
        raise ValueError(f"{record}: id {to_text(unique[counts > 1][:1])[0]} comes more than once")
    return items.select(list(columns)).cast(pa.schema(columns))


def read_items(path: Path, columns: Iterable[str], added: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """The items of a record, in their order.

    Args:
        added: columns that came later, null in records that have none.

    Raises:
        StoreDamaged: the file cannot be read.
    """
    names = table_columns(path.parent, path.name) if added else []
    table = read_table(path.parent, path.name, [*columns, *(name for name in added or () if name in names)])
    for name, kind in (added or {}).items():
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), kind))
    return table


def write_items(path: Path, key: str, value: str, table: pa.Table) -> None:
    """Write items behind a constant column that names their record.

    Keep the order, since a smaller budget is a prefix; columns that are constant or sorted cost almost nothing in v2.
    """
    with duck.cursor() as connection:
        connection.register("rows", table.add_column(0, key, pa.repeat(pa.scalar(value), len(table))))
        options = "FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2"
        connection.execute(f"COPY (SELECT * FROM rows) TO {duck.literal(str(path))} ({options})")  # noqa: S608
