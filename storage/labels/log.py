"""The log of labels: append-only, one record an import, every event once however often its file is imported.

    records/labels/<import>/
      labels.parquet       the events that this import added (`LOG_SCHEMA`)
      quarantine.parquet   records of the file that are no label, and the cause
      import.json          `LabelImport`

An **event** is one act of one annotator on one row. Its name is a hash of its content, so an event that the log has is
not stored again: importing a file twice changes nothing, and a file that grew adds its new events. The same event twice
in one file counts as two, so that a change of mind and back is kept. A file that was edited in place, back to what it
said before, adds the event again, as of now and without its cost.

What counts is the latest event of an annotator on a row (`counted`): by the time it names, or else that of its import,
then by import, then by line. A class and a skip replace each other; ratings, texts and the known answers of gold rows
stand each by themselves; `ignore` is for good.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.damage import committed_whole, read_record, readable
from storage.errors import NotInStore
from storage.files import readers
from storage.files.readers import Bad, excerpt
from storage.files.user_files import file_digest, unchanged
from storage.ids import from_arrow, to_bytes
from storage.labels.files import LabelFile, read_label_file
from storage.labels.recipients import Recipients, UnknownRow, WrongRow
from storage.pool.snapshot import Snapshot
from storage.records import digest_of
from storage.store import Store, write_json

# Raised by one when the reading rules change what a file's labels are.
RULES = 1
# Who gave the known answers of gold rows.
GOLD = "gold"

_TEXT = pa.string()
LOG_SCHEMA = pa.schema(
    [
        ("event", _TEXT),
        ("project", _TEXT),
        ("id", pa.uuid()),
        ("round_id", _TEXT),
        ("annotator", _TEXT),
        ("kind", _TEXT),
        ("label", _TEXT),
        ("rating", pa.float64()),
        ("confidence", pa.float64()),
        ("seconds", pa.float64()),
        ("cost", pa.float64()),
        ("created_at", pa.timestamp("us")),
        ("file", _TEXT),
        ("line", pa.int64()),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [("project", _TEXT), ("file", _TEXT), ("line", pa.int64()), ("cause", _TEXT), ("excerpt", _TEXT)]
)
# When an event without a time is given, among events of its own file.
_NOW = datetime.max  # noqa: DTZ901
# The columns of an event that come from its label.
_LABEL_COLUMNS = [name for name in LOG_SCHEMA.names if name not in ("event", "project", "id", "file")]


@dataclass(frozen=True)
class LabelImport:
    """One import: the content of import.json.

    Attributes:
        id: hash of the file's bytes, how it was read, project and classes; a copy elsewhere is the same import.
        number: imports in the order in which they were made.
        snapshot: the pool in which the rows were looked up.
        gold: the file holds known answers.
        read: records of the file.
        new: events added to the log; 0 when the import was made before.
        known: events that the log had.
        quarantined: records of the file that are no label.
        unknown_ids: how many of those name no row.
        unlabelled: rows of a batch that wait for their label.
        damage: why nothing was taken of a damaged file, None if it is whole.
        tied_votes: what becomes of a row with tied votes, one of them of this import: "adjudicate", it waits for
            another; or, in imports of earlier versions, "first_class".
    """

    id: str
    number: int
    project: str
    url: str
    digest: str
    fields: Mapping[str, str] | None
    classes: Sequence[str]
    gold: bool
    snapshot: str
    read: int
    new: int
    known: int
    quarantined: int
    unknown_ids: int
    unlabelled: int
    damage: str | None
    created_at: str
    tied_votes: str = "first_class"


def import_labels(
    store: Store,
    project: str,
    url: str,
    *,
    classes: Sequence[str],
    snapshot: Snapshot,
    fields: Mapping[str, str] | None = None,
    gold: bool = False,
) -> LabelImport:
    """Add a file's labels to a project's log.

    A file of which some ids were unknown is tried again once the pool is another one.

    Args:
        url: absolute path or fsspec URL: JSON Lines, CSV, Label Studio JSON; plain, gzip or zstd.
        classes: the names of the project's classes.
        snapshot: where rows are looked up by their own id; rows that a batch sent out are known by winnow's id for
            ever.
        fields: `label_files.FIELDS` -> the record's field; None = detected.
        gold: the labels are the known answers of gold rows, kept as events of the kind "gold" by the annotator "gold".

    Raises:
        BadInput: the file is missing or of an unknown kind, or a stated field is in no record.

    Cost: the file's records in memory, and the names of the log's events.
    """
    with store.lock("labels", f"importing {url}"), unchanged(store, url) as (file, state):
        digest = file_digest(file)
        depends_on = {
            "classes": list(classes),
            "digest": digest,
            "fields": None if fields is None else dict(fields),
            "format": readers.extension(url),
            "gold": gold,
            "project": project,
            "rules": RULES,
        }
        imports = _imports(store)
        import_id, entry = _import_id(store, imports, depends_on, url, snapshot)
        if entry is not None:
            return replace(entry, new=0, known=entry.known + entry.new)
        label_file = read_label_file(file, url, classes=classes, fields=fields)
        state.require(file, url)
        events, bad, unknown = _events(store, project, label_file, snapshot, gold=gold)
        earlier = [_path(store, entry) for entry in imports if entry.project == project and entry.new]
        seen = set(pq.read_table(earlier, columns=["event"])["event"].to_pylist()) if earlier else set()
        new = [event for event in events if event["event"] not in seen]
        again = _again(store, project, url, events, {event["event"] for event in new}, import_id)
        bad = sorted([*label_file.bad, *bad, *unknown], key=lambda bad: bad.line)
        result = LabelImport(
            id=import_id,
            number=max((entry.number for entry in imports), default=0) + 1,
            project=project,
            url=url,
            digest=digest,
            fields=None if fields is None else dict(fields),
            classes=list(classes),
            gold=gold,
            snapshot=snapshot.id,
            read=label_file.read,
            new=len(new) + len(again),
            known=len(events) - len(new) - len(again),
            quarantined=len(bad),
            unknown_ids=len(unknown),
            unlabelled=label_file.unlabelled,
            damage=label_file.damage,
            created_at=_not_before(imports),
            tied_votes="adjudicate",
        )
        with store.committing("records", "labels", import_id) as folder:
            labels = pa.Table.from_pylist([{"file": url, **event} for event in new + again], LOG_SCHEMA)
            pq.write_table(labels, folder / "labels.parquet", compression="zstd")
            quarantined = [{"project": project, "file": url, **asdict(row)} for row in bad]
            quarantine = pa.Table.from_pylist(quarantined, QUARANTINE_SCHEMA)
            pq.write_table(quarantine, folder / "quarantine.parquet", compression="zstd")
            write_json(folder / "import.json", asdict(result))
    return result


def read_import(store: Store, import_id: str) -> LabelImport:
    """The record of a committed import.

    Raises:
        NotInStore: there is none of this id.
    """
    folder = store.path("records", "labels", import_id)
    if not folder.is_dir():
        raise NotInStore(f"no import of labels {import_id!r} in {store.root}")
    return _import_of(read_record("labels", folder))


def last_import(store: Store, project: str) -> int:
    """The number of the last import that added to a project's log; 0 for an empty log."""
    return max((entry.number for entry in _imports(store) if entry.project == project and entry.new), default=0)


def read_log(store: Store, project: str, upto: int | None = None) -> pa.Table:
    """Every event of a project once, the oldest first (`LOG_SCHEMA`).

    Args:
        upto: the log as it was after this import, by number; as it is now if left out.
    """
    imports = [entry for entry in _imports(store) if entry.project == project and entry.new]
    imports = [entry for entry in imports if upto is None or entry.number <= upto]
    tables = [pq.read_table(_path(store, entry), schema=LOG_SCHEMA) for entry in imports]
    log = pa.concat_tables([LOG_SCHEMA.empty_table(), *tables]).combine_chunks()
    origin = [entry for entry, table in zip(imports, tables, strict=True) for _ in range(len(table))]
    imported_at = [datetime.fromisoformat(entry.created_at) for entry in origin]
    number = [entry.number for entry in origin]
    # Two imports at once, where locks do not hold, may both have stored an event: the earlier one stands.
    at = pc.coalesce(log["created_at"], pa.array(imported_at, pa.timestamp("us")))
    events, (_, first) = log["event"].to_pylist(), np.unique(log["event"].to_pylist(), return_index=True)
    keys = list(zip(at.to_pylist(), number, log["line"].to_pylist(), events, strict=True))
    return log.take(pa.array(sorted(first.tolist(), key=keys.__getitem__), pa.int64()))


def adjudicated_events(store: Store, project: str) -> set[str]:
    """The events of a project's log that leave a row without a label while its votes are tied, see `LabelImport`."""
    imports = [entry for entry in _imports(store) if entry.project == project and entry.new]
    paths = [_path(store, entry) for entry in imports if entry.tied_votes == "adjudicate"]
    return set(pq.read_table(paths, columns=["event"])["event"].to_pylist()) if paths else set()


def event_imports(store: Store, project: str) -> dict[str, int]:
    """Event of a project's log -> the number of the import that brought it first."""
    imports = [entry for entry in _imports(store) if entry.project == project and entry.new]
    return {
        event: entry.number
        for entry in reversed(imports)
        for event in pq.read_table(_path(store, entry), columns=["event"])["event"].to_pylist()
    }


def counted(log: pa.Table) -> pa.Table:
    """The events of a log that count: the latest of each annotator on each row; in the order of the log."""
    groups = ["class" if kind == "skip" else kind for kind in log["kind"].to_pylist()]
    ids = to_bytes(from_arrow(log["id"]))
    last = {key: at for at, key in enumerate(zip(ids, log["annotator"].to_pylist(), groups, strict=True))}
    return log.take(pa.array(sorted(last.values()), pa.int64()))


def log_digest(log: pa.Table) -> str:
    """32 hex digits that name the state of a log: its events in their order."""
    return digest_of(log["event"].to_pylist())


# ---- the parts


def _import_id(
    store: Store, imports: Sequence[LabelImport], depends_on: Mapping[str, Any], url: str, snapshot: Snapshot
) -> tuple[str, LabelImport | None]:
    """The id of the import to make; and the import, if there is nothing to do because it was made."""
    import_id = digest_of(depends_on)
    if committed_whole(store, "labels", import_id) and _to_be_tried_again(store, import_id, snapshot):
        import_id = digest_of({**depends_on, "snapshot": snapshot.id})
    if not committed_whole(store, "labels", import_id):
        return import_id, None
    of_file = [entry for entry in imports if (entry.project, entry.url) == (depends_on["project"], url)]
    if not of_file or of_file[-1].digest == depends_on["digest"]:
        return import_id, read_import(store, import_id)
    return digest_of({**depends_on, "after": of_file[-1].id}), None  # the file is back at an earlier state


def _events(
    store: Store, project: str, label_file: LabelFile, snapshot: Snapshot, *, gold: bool
) -> tuple[list[dict[str, Any]], list[Bad], list[Bad]]:
    """The labels as events; those that were not given for the row that they name; those that name no row or several."""
    recipients = Recipients(store, project, snapshot, label_file.labels)
    times: Counter[str] = Counter()
    events: list[dict[str, Any]] = []
    bad: list[Bad] = []
    unknown: list[Bad] = []
    for label in label_file.labels:
        if gold and label.kind == "class":
            label = replace(label, kind="gold", annotator=GOLD)  # noqa: PLW2901
        elif label.annotator == GOLD:
            cause = f"annotator is {GOLD!r}, which is winnow's name for known answers; give the person another name"
            bad.append(Bad(label.line, cause, excerpt(label.record)))
            continue
        try:
            row_id = recipients.id_of(label)
        except (UnknownRow, WrongRow) as error:
            causes = unknown if isinstance(error, UnknownRow) else bad
            causes.append(Bad(label.line, str(error), excerpt(label.record)))
            continue
        event = {"project": project, "id": row_id, **{name: getattr(label, name) for name in _LABEL_COLUMNS}}
        key = digest_of({**event, "id": event["id"].hex(), "line": None, "created_at": str(event["created_at"])})
        times[key] += 1
        name = key if times[key] == 1 else digest_of([key, times[key]])
        events.append({"event": name, **event})
    return events, bad, unknown


def _again(
    store: Store, project: str, url: str, events: Sequence[dict[str, Any]], new: set[str], import_id: str
) -> list[dict[str, Any]]:
    """What a file says now that would not count, because it said something else since, which is no more in it."""
    log = read_log(store, project)
    of_file = log.filter(pc.equal(log["file"], url)).to_pylist()
    if not of_file:
        return []
    last_said = {_voice(event): event for event in of_file}
    place = {event: number for number, event in enumerate(log["event"].to_pylist())}
    present = {(_said(event), event["created_at"]) for event in events}
    present |= {(said, None) for said, _ in present}
    last_in_file: dict[tuple[Any, ...], dict[str, Any]] = {}
    for event in sorted(events, key=lambda event: (event["created_at"] or _NOW, event["line"])):
        last_in_file[_voice(event)] = event
    again = []
    for voice, event in last_in_file.items():
        before = last_said.get(voice)
        if before is None or (_said(before), before["created_at"]) in present:
            continue
        if event["event"] in new:
            counts = event["created_at"] is None or (before["created_at"] or _NOW) <= event["created_at"]
        else:
            counts = event["created_at"] is not None and place[event["event"]] > place[before["event"]]
        if not counts:
            name = digest_of([event["event"], import_id])
            cost = None if event["cost"] is None else 0.0  # it was paid before
            again.append({**event, "event": name, "created_at": None, "cost": cost})
    return again


def _voice(event: Mapping[str, Any]) -> tuple[Any, ...]:
    """Of which events the last counts: of the same person on the same row, of a kind."""
    row_id = event["id"] if isinstance(event["id"], bytes) else event["id"].bytes
    return row_id, event["annotator"], "class" if event["kind"] == "skip" else event["kind"]


def _said(event: Mapping[str, Any]) -> tuple[Any, ...]:
    return _voice(event), *(event[name] for name in ("kind", "label", "rating", "confidence", "seconds", "round_id"))


def _to_be_tried_again(store: Store, import_id: str, snapshot: Snapshot) -> bool:
    entry = read_import(store, import_id)
    return entry.unknown_ids > 0 and entry.snapshot != snapshot.id


def _imports(store: Store) -> list[LabelImport]:
    """All imports, in the order in which they were made."""
    documents = [readable(store, "labels", name, whole=True) for name in store.records("labels")]
    imports = [_import_of(document) for document in documents if document is not None]
    return sorted(imports, key=lambda entry: (entry.number, entry.id))


def _import_of(document: Mapping[str, Any]) -> LabelImport:
    return LabelImport(**{name: document[name] for name in LabelImport.__dataclass_fields__ if name in document})


def _not_before(imports: Sequence[LabelImport]) -> str:
    """The time, but not before the imports that there are: a clock that was ahead must not decide which label counts."""
    now = datetime.fromtimestamp(time.time_ns() // 1000 / 1e6, UTC)
    return max([now, *(datetime.fromisoformat(entry.created_at) for entry in imports)]).isoformat()


def _path(store: Store, entry: LabelImport) -> Path:
    return store.path("records", "labels", entry.id, "labels.parquet")
