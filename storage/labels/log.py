"""The log of labels: append-only, one record an import, every event once however often its file is imported.

    records/labels/<import>/
      labels.parquet       the events that this import added (`LOG_SCHEMA`)
      quarantine.parquet   records of the file that are no label, and the cause
      import.json          `LabelImport`

An **event** is one act of one annotator on one row. Its name is a hash of its content, so an event that the log has is
not stored again: importing a file twice changes nothing, and a file that grew adds its new events. The same event twice
in one file counts as two, so that a change of mind and back is kept.

What counts is the latest event of an annotator on a row (`counted`): by the time it names, or else that of its import,
then by import, then by line. A class and a skip replace each other; ratings, texts and the known answers of gold rows
stand each by themselves; `ignore` is for good.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from storage.ids import from_arrow, from_bytes, id_of_text, rows_of, to_bytes
from storage.labels.files import Label, LabelFile, read_label_file
from storage.labels.rounds import read_round_items, read_rounds
from storage.pool.content import Turns
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
        import_id = digest_of(depends_on)
        if committed_whole(store, "labels", import_id) and _to_be_tried_again(store, import_id, snapshot):
            import_id = digest_of(depends_on | {"snapshot": snapshot.id})
        imports = _imports(store)
        of_file = [entry for entry in imports if entry.project == project and entry.url == url]
        if committed_whole(store, "labels", import_id) and of_file and of_file[-1].digest != digest:
            # The file went back to an earlier state, which is its latest.
            import_id = digest_of(depends_on | {"after": of_file[-1].id})
        if committed_whole(store, "labels", import_id):
            entry = read_import(store, import_id)
            return replace(entry, new=0, known=entry.known + entry.new)
        label_file = read_label_file(file, url, classes=classes, fields=fields)
        state.require(file, url)
        events, unknown = _events(store, project, label_file, snapshot, gold=gold)
        earlier = [_path(store, entry) for entry in imports if entry.project == project and entry.new]
        seen = set(pq.read_table(earlier, columns=["event"])["event"].to_pylist()) if earlier else set()
        restated = _restated(events, [_path(store, entry) for entry in of_file if entry.new], import_id)
        new = [event for event in events if event["event"] not in seen] + restated
        bad = sorted([*label_file.bad, *unknown], key=lambda bad: bad.line)
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
            new=len(new),
            known=len(events) - len(new),
            quarantined=len(bad),
            unknown_ids=len(unknown),
            unlabelled=label_file.unlabelled,
            damage=label_file.damage,
            created_at=_not_before(imports),
        )
        with store.committing("records", "labels", import_id) as folder:
            labels = pa.Table.from_pylist([{"file": url, **event} for event in new], LOG_SCHEMA)
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


def _events(
    store: Store, project: str, label_file: LabelFile, snapshot: Snapshot, *, gold: bool
) -> tuple[list[dict[str, Any]], list[Bad]]:
    """The labels as events, and those that name no row or several."""
    ids = _ids_of_names(store, project, snapshot, {label.name for label in label_file.labels})
    labels = [
        replace(label, kind="gold", annotator=GOLD) if gold and label.kind == "class" else label
        for label in label_file.labels
    ]
    times: Counter[str] = Counter()
    events, bad = [], []
    sent = _Sent(store, project, snapshot, {name[0] for name in ids.values() if len(name) == 1}, labels)
    for label in labels:
        named = ids[label.name]
        cause: str | None
        if len(named) != 1:
            cause = f"{label.name[:60]!r} names {'no row' if not named else f'{len(named)} rows'} of the pool"
        elif label.annotator == GOLD and label.kind != "gold":
            cause = f"{GOLD!r} is the annotator of known answers; give this one another name"
        else:
            cause = sent.mistake(label, named[0])
        if cause:
            bad.append(Bad(label.line, cause, excerpt(label.record)))
            continue
        event = {"project": project, "id": named[0], **{name: getattr(label, name) for name in _LABEL_COLUMNS}}
        key = digest_of({**event, "id": event["id"].hex(), "line": None, "created_at": str(event["created_at"])})
        times[key] += 1
        name = key if times[key] == 1 else digest_of([key, times[key]])
        events.append({"event": name, **event})
    return events, bad


class _Sent:
    """What batches sent out, to check that an answer is on the row that it was given for."""

    def __init__(
        self, store: Store, project: str, snapshot: Snapshot, ids: set[bytes], labels: Sequence[Label]
    ) -> None:
        named = {label.round_id for label in labels if label.round_id}
        rounds = {header["round_id"] for header in read_rounds(store, project)} & named if named else set()
        self.rounds = {name: set(to_bytes(from_arrow(read_round_items(store, name)["id"]))) for name in rounds}
        self.texts: dict[bytes, set[str]] = {}
        if any(label.shown for label in labels):
            wanted = from_bytes(sorted(ids))
            present = wanted[rows_of(wanted, snapshot.ids) >= 0]
            for some, batch in snapshot.turns(present):
                self.texts |= {id_: _shown_texts(turns) for id_, turns in zip(to_bytes(some), batch, strict=True)}

    def mistake(self, label: Label, id_: bytes) -> str | None:
        """Why the answer is not on the row that it was given for; None if it is."""
        if label.round_id in self.rounds and id_ not in self.rounds[label.round_id]:
            return (
                f"round {label.round_id} did not send out the row {label.name[:60]!r}; is this an id of the tool's own?"
            )
        if label.shown and id_ in self.texts and " ".join(label.shown.split()) not in self.texts[id_]:
            return f"the text that was labelled is not that of the row {label.name[:60]!r}"
        return None


def _shown_texts(turns: Turns) -> set[str]:
    """The texts by which a batch shows a row, and each of its turns."""
    context = [f"{role}: {text}" for role, text in turns]
    texts = {text for _, text in turns} | {"\n\n".join(context), "\n\n".join(context[:-1])}
    return {" ".join(text.split()) for text in texts}


def _restated(events: list[dict[str, Any]], of_file: list[Path], import_id: str) -> list[dict[str, Any]]:
    """The labels that a file says again after it had said something else, as new events of the moment of the import."""
    if not of_file:
        return []
    before = pa.concat_tables([pq.read_table(path, schema=LOG_SCHEMA) for path in of_file]).to_pylist()
    last = {_subject({**event, "id": event["id"].bytes}): event for event in before}
    known = {event["event"] for event in before}
    now = {_subject(event): event for event in events}
    return [
        event | {"event": digest_of([event["event"], import_id]), "created_at": None}
        for subject, event in now.items()
        if event["event"] in known and any(event[name] != last[subject][name] for name in ("kind", "label", "rating"))
    ]


def _subject(event: Mapping[str, Any]) -> tuple[bytes, str, str]:
    """What only one label of can count."""
    return event["id"], event["annotator"], "class" if event["kind"] == "skip" else event["kind"]


def _ids_of_names(store: Store, project: str, snapshot: Snapshot, names: Iterable[str]) -> dict[str, list[bytes]]:
    """The ids that each name stands for: of rows of the pool, else of rows that left it after a batch sent them out."""
    rows = snapshot.rows_of_names(names)
    ids = {name: to_bytes(snapshot.ids[matches]) for name, matches in rows.items()}
    missing = {name: key for name, matches in rows.items() if not matches and (key := id_of_text(name))}
    if missing:
        sent = {
            key
            for header in read_rounds(store, project)
            for key in to_bytes(from_arrow(read_round_items(store, header["round_id"])["id"]))
        }
        ids |= {name: [key] for name, key in missing.items() if key in sent}
    return ids


def _to_be_tried_again(store: Store, import_id: str, snapshot: Snapshot) -> bool:
    entry = read_import(store, import_id)
    return entry.unknown_ids > 0 and entry.snapshot != snapshot.id


def _imports(store: Store) -> list[LabelImport]:
    """All imports, in the order in which they were made."""
    documents = [readable(store, "labels", name, whole=True) for name in store.records("labels")]
    imports = [_import_of(document) for document in documents if document is not None]
    return sorted(imports, key=lambda entry: (entry.number, entry.id))


def _import_of(document: Mapping[str, Any]) -> LabelImport:
    return LabelImport(**{name: document[name] for name in LabelImport.__dataclass_fields__})


def _not_before(imports: Sequence[LabelImport]) -> str:
    """The time, but not before the imports that there are: a clock that was ahead must not decide which label counts."""
    now = datetime.fromtimestamp(time.time_ns() // 1000 / 1e6, UTC)
    return max([now, *(datetime.fromisoformat(entry.created_at) for entry in imports)]).isoformat()


def _path(store: Store, entry: LabelImport) -> Path:
    return store.path("records", "labels", entry.id, "labels.parquet")
