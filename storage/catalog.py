"""The catalog: one DuckDB file over all committed records, replaced as a whole, so that nobody ever waits for it.

`publish` builds the next file beside the last one, from what that one held and the records it lacked, and then moves the
symlink `winnow.duckdb` to it. The records are the truth: a crash between a commit and a publish heals itself at the next
publish, and `rebuild` makes the same catalog from the records alone. A reader opens a file that nobody will ever write to.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import schema
from storage.errors import BadInput, NotInStore, StorageError
from storage.schema import literal, quoted
from storage.store import Store, read_json, sync_folder, sync_tree

LINK = "winnow.duckdb"
# Readers that opened an older file keep it through an unlink; the ones kept are for people who want to look back.
KEPT_FILES = 5
# The oldest storage format that holds all we need: DuckDB 1.1 and later can open the file (docs/sql.md).
STORAGE_VERSION = "v1.0.0"

_NAME = "winnow"
_PREVIOUS = "previous"

# What an extra field may be, beside text.
_EXTRA_TYPES = frozenset({"BIGINT", "DOUBLE", "BOOLEAN"})

Row = dict[str, Any]
Name = tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Where the rows of a native table come from: each committed folder `<root>/<name>` whose `file` gives `rows`.

    Attributes:
        key: the columns that hold the folder's name, one a level.
    """

    table: str
    root: Name
    key: Name
    file: str
    rows: Callable[[Name, Row], list[Row]]

    def names(self, store: Store) -> list[Name]:
        found: list[Name] = [()]
        for _ in self.key:
            found = [(*name, entry) for name in found for entry in store.committed(*self.root, *name)]
        return found


def _whole(name: Name, document: Row) -> list[Row]:
    return [document]


_SOURCES = (
    _Source("ingests", ("pool",), ("ingest",), "ingest.json", lambda name, d: [d | {"ingest": name[0], "record": d}]),
    _Source(
        "snapshots",
        ("records", "snapshots"),
        ("snapshot",),
        "snapshot.json",
        lambda name, d: [
            d | {"snapshot": name[0], "ingests": len(d["ingests"]), "examples": d.get("examples"), "record": d}
        ],
    ),
    _Source(
        "snapshot_files",
        ("records", "snapshots"),
        ("snapshot",),
        "snapshot.json",
        lambda name, d: [
            counts | {"snapshot": name[0], "ingest": ingest, "read": sum(counts.values())}
            for ingest, counts in d["counts"].items()
        ],
    ),
    _Source(
        "encoders", ("vectors",), ("encoder",), "encoder.json", lambda name, d: [d | {"encoder": name[0], "record": d}]
    ),
    _Source(
        "embeddings",
        ("vectors",),
        ("encoder", "segment"),
        "segment.json",
        lambda name, d: [d | {"encoder": name[0], "segment": name[1], "record": d}],
    ),
    _Source(
        "indexes", ("indexes",), ("index_id",), "index.json", lambda name, d: [d | {"index_id": name[0], "record": d}]
    ),
    _Source(
        "selections", ("records", "selections"), ("selection_id",), "selection.json", lambda _, d: [d | {"record": d}]
    ),
    _Source(
        "metrics",
        ("records", "metrics"),
        ("metrics_id",),
        "metrics.json",
        lambda _, d: [d | {"name": name, "value": value} for name, value in d["values"].items()],
    ),
    _Source("runs", ("records", "runs"), ("run_id",), "run.json", lambda _, d: [d]),
)


def publish(store: Store) -> Path:
    """Make every committed record visible; gives the new catalog file.

    Cost: what is new, plus listing the records' folders; a crash or a full disk on the way leaves the published one as it is.
    """
    return _publish(store, previous=_published(store))


def rebuild(store: Store) -> Path:
    """Make the catalog from the records alone, for example after the store's folder was moved."""
    return _publish(store, previous=None)


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the newest catalog; it keeps its snapshot while others are published.

    Raises:
        NotInStore: nothing is published yet.
    """
    while True:
        path = _published(store)
        if path is None:
            raise NotInStore(f"no catalog is published in {store.root} yet: `winnow run` makes one")
        try:
            # By the file, not by the link: a second connection in this process would else share the older one's snapshot.
            return duckdb.connect(str(path), read_only=True)
        except duckdb.IOException:
            if path == _published(store):
                raise


def query(store: Store, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
    """The result of one SQL statement on the newest catalog; ids are printed as UUIDs.

    Raises:
        BadInput: DuckDB refuses the statement; for an unknown table, the message lists the known ones.
    """
    with connect(store) as connection:
        try:
            result = connection.sql(sql, params=params)
            return pa.table({}) if result is None else result.to_arrow_table()
        except duckdb.CatalogException as error:
            known = connection.execute(
                "SELECT name FROM (SELECT table_name AS name FROM duckdb_tables() UNION ALL "
                "SELECT view_name FROM duckdb_views() WHERE NOT internal) ORDER BY name"
            ).fetchall()
            raise BadInput(f"{error}\nThe catalog has: {', '.join(name for (name,) in known)}") from error
        except duckdb.IOException as error:
            raise BadInput(f"{error}\nIf the store was moved, `winnow catalog rebuild` mends its paths.") from error
        except duckdb.Error as error:
            raise BadInput(str(error)) from error


def _published(store: Store) -> Path | None:
    link = store.path(LINK)
    return link.resolve() if link.exists() else None


def _publish(store: Store, previous: Path | None) -> Path:
    with store.lock("catalog", "publishing the catalog"):
        folder = store.path("tmp", f"catalog.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        folder.mkdir(parents=True)
        try:
            file = folder / "next.duckdb"
            _build(store, file, previous)
            if (folder / "next.duckdb.wal").exists():
                raise StorageError(f"DuckDB left a log beside {file}; the catalog is not published")
            file.chmod(0o444)
            sync_tree(folder)
            catalog = store.path("catalog")
            catalog.mkdir(exist_ok=True)
            target = catalog / f"{max(_numbers(catalog), default=0) + 1:04d}.duckdb"
            file.rename(target)
            sync_folder(catalog)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _point_to(store, target)
        _drop_old(catalog)
        store.sweep_tmp()
        return target


def _numbers(catalog: Path) -> set[int]:
    """The numbers in use, also by a log that an analyst's killed session left: a new file must not lie beside it."""
    return {int(name) for name in (entry.split(".")[0] for entry in os.listdir(catalog)) if name.isdigit()}


def _point_to(store: Store, target: Path) -> None:
    fresh = store.path(f".{LINK}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    fresh.symlink_to(target.relative_to(store.root))
    os.replace(fresh, store.path(LINK))
    sync_folder(store.root)


def _drop_old(catalog: Path) -> None:
    for number in sorted(_numbers(catalog))[:-KEPT_FILES]:
        for path in catalog.glob(f"{number:04d}.duckdb*"):
            path.unlink(missing_ok=True)


def _build(store: Store, file: Path, previous: Path | None) -> None:
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"ATTACH {literal(str(file))} AS {_NAME} (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute(f"USE {_NAME}")
        carried = previous is not None and _attach_previous(connection, previous)
        connection.execute("BEGIN")
        for step in schema.STEPS:
            connection.execute(step)
        connection.execute("INSERT INTO schema_version VALUES (?)", [len(schema.STEPS)])
        for source in _SOURCES:
            _fill(store, connection, source, carried=carried)
        _create_views(store, connection)
        _comment(connection)
        connection.execute("COMMIT")
        connection.execute(f"CHECKPOINT {_NAME}")
        connection.execute("USE memory")
        connection.execute(f"DETACH {_NAME}")


def _attach_previous(connection: duckdb.DuckDBPyConnection, previous: Path) -> bool:
    """Attach the last catalog to copy from; False if it cannot serve, and then everything comes from the records."""
    if previous.with_name(f"{previous.name}.wal").exists():
        return False
    try:
        connection.execute(f"ATTACH {literal(str(previous))} AS {_PREVIOUS} (READ_ONLY)")
        made_by = connection.execute(f"SELECT version FROM {_PREVIOUS}.schema_version").fetchone()  # noqa: S608
    except duckdb.Error:
        # Open for writing elsewhere, damaged, or not a catalog of ours.
        return False
    return made_by == (len(schema.STEPS),)


def _fill(store: Store, connection: duckdb.DuckDBPyConnection, source: _Source, *, carried: bool) -> None:
    """Rows of the records that are committed now: from the last catalog where it has them, from the records else."""
    names = source.names(store)
    key = ", ".join(source.key)
    if carried:
        lists = ", ".join("unnest(?::VARCHAR[])" for _ in source.key)
        connection.execute(
            f"INSERT INTO {source.table} SELECT * FROM {_PREVIOUS}.{source.table} WHERE ({key}) IN (SELECT ({lists}))",  # noqa: S608
            [list(column) for column in zip(*names, strict=True)] if names else [[] for _ in source.key],
        )
    present = set(connection.execute(f"SELECT DISTINCT {key} FROM {source.table}").fetchall())  # noqa: S608
    rows: list[Row] = []
    for name in names:
        path = store.path(*source.root, *name, source.file)
        # An encoder's folder is there before its description is.
        if name not in present and (source.root[0] == "records" or path.exists()):
            rows += source.rows(name, read_json(path))
    if rows:
        types = {
            column: kind
            for column, kind in connection.execute(
                "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = ? AND table_name = ?",
                [_NAME, source.table],
            ).fetchall()
        }
        plain = [{column: row.get(column) for column in types} for row in rows]
        connection.execute(
            f"INSERT INTO {source.table} BY NAME SELECT unnest(from_json_strict(?, ?), max_depth := 2)",  # noqa: S608
            [json.dumps(plain), json.dumps([types])],
        )


def _create_views(store: Store, connection: duckdb.DuckDBPyConnection) -> None:
    latest = _latest_snapshot(connection)
    ingests = [name for (name,) in connection.execute("SELECT ingest FROM ingests ORDER BY ingest").fetchall()]
    live = [
        name
        for (name,) in connection.execute(
            "SELECT ingest FROM snapshot_files WHERE snapshot = ? ORDER BY ingest", [latest]
        ).fetchall()
    ]
    snapshots = store.records("snapshots")
    files: dict[str, Iterable[Path]] = {
        "duplicates": [store.path("records", "snapshots", latest, "duplicates.parquet")] if latest else [],
        "tombstones": [store.path("records", "snapshots", name, "tombstones.parquet") for name in snapshots],
        "quarantine": [store.path("quarantine", name, "rows.parquet") for name in live],
        "targets": [store.path("records", "targets", name, "items.parquet") for name in store.records("targets")],
        "selection_items": [
            store.path("records", "selections", name, "items.parquet") for name in store.records("selections")
        ],
        "labels": [],
        "rounds": [],
    }
    for view, paths in files.items():
        connection.execute(f"CREATE VIEW {view} AS {_facts(view, paths)}")
    extra = _extra_columns(connection)
    connection.execute(f"CREATE VIEW pool_rows AS {_rows(_parts(store, ingests), extra)}")
    connection.execute(
        f"CREATE VIEW examples AS SELECT r.* FROM ({_rows(_parts(store, live), extra)}) r "  # noqa: S608
        "ANTI JOIN duplicates d ON r.ingest = d.ingest AND r.line = d.line"
    )
    connection.execute(
        'CREATE VIEW pools AS SELECT s.snapshot, s.parent, s.ingests, s.examples, sum(f."read")::BIGINT AS "read", '  # noqa: S608
        "sum(f.kept)::BIGINT AS kept, sum(f.duplicate)::BIGINT AS duplicate, sum(f.quarantined)::BIGINT AS quarantined, s.created_at "
        f"FROM snapshots s LEFT JOIN snapshot_files f USING (snapshot) WHERE s.snapshot = {literal(latest or '')} GROUP BY ALL"
    )
    connection.execute(schema.VIEWS)


def _latest_snapshot(connection: duckdb.DuckDBPyConnection) -> str | None:
    """The snapshot that the last good ingest gave, which may be an older one that came back; without runs the newest."""
    found = connection.execute(
        "SELECT s.snapshot FROM snapshots s LEFT JOIN runs r ON r.subject = s.snapshot AND r.stage = 'ingest' AND r.status = 'ok' "
        "ORDER BY r.run_id DESC NULLS LAST, s.created_at DESC, s.snapshot LIMIT 1"
    ).fetchone()
    return None if found is None else str(found[0])


def _parts(store: Store, ingests: Iterable[str]) -> list[Path]:
    return [part for ingest in ingests for part in sorted(store.path("pool", ingest).glob("part-*.parquet"))]


def _facts(view: str, paths: Iterable[Path]) -> str:
    """The select behind a view over Parquet files."""
    columns = schema.FACTS[view]
    listed = ", ".join(literal(str(path)) for path in paths)
    if not listed:
        typed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in columns.items())
        return f"SELECT {typed} WHERE false"  # noqa: S608
    from_folder = schema.FROM_FOLDER.get(view)
    chosen = ", ".join(
        f"split_part(filename, '/', -2) AS {quoted(name)}" if name == from_folder else quoted(name) for name in columns
    )
    return f"SELECT {chosen} FROM read_parquet([{listed}], filename = true)"  # noqa: S608


def _rows(parts: Sequence[Path], extra: Mapping[str, tuple[str, str]]) -> str:
    """The select over pool files with their extra fields as columns."""
    more = "".join(
        f", TRY_CAST(extra::JSON->>{literal(_pointer(field))} AS {kind}) AS {quoted(name)}"
        for name, (field, kind) in extra.items()
    )
    return f"SELECT *{more} FROM ({_facts('pool_rows', parts)})"  # noqa: S608


def _extra_columns(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[str, str]]:
    """Column name -> (field, type) for the fields of the pool's files, ever, that winnow has no name for.

    A field with different types in different files is text. A name that is taken, also by upper or lower case, which SQL does
    not tell apart, gets an underscore.
    """
    fields: dict[str, str] = {}
    for field, kind in connection.execute(
        "SELECT DISTINCT e.key, e.value->>'$' FROM ingests, json_each(record->'extra') e ORDER BY ALL"
    ).fetchall():
        fields[field] = "VARCHAR" if field in fields or kind not in _EXTRA_TYPES else kind
    taken = set(schema.FACTS["pool_rows"]) | set(schema.FACTS["selection_items"])
    columns = {}
    for field, kind in fields.items():
        name = field or "_"
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        columns[name] = (field, kind)
    return columns


def _pointer(field: str) -> str:
    """A JSON pointer, which unlike a path can name any field."""
    return "/" + field.replace("~", "~0").replace("/", "~1")


def _comment(connection: duckdb.DuckDBPyConnection) -> None:
    views = {
        name
        for (name,) in connection.execute(
            "SELECT view_name FROM duckdb_views() WHERE database_name = ? AND NOT internal", [_NAME]
        ).fetchall()
    }
    tables = {
        name
        for (name,) in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = ?", [_NAME]
        ).fetchall()
    }
    for name, comment in schema.RELATION_COMMENTS.items():
        what = "VIEW" if name in views else "TABLE" if name in tables else "MACRO TABLE"
        connection.execute(f"COMMENT ON {what} {name} IS {literal(comment)}")
    for relation, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = ? AND NOT internal", [_NAME]
    ).fetchall():
        comment = schema.column_comment(relation, column) or "A field of the pool's files, as they have it."
        connection.execute(f"COMMENT ON COLUMN {relation}.{quoted(column)} IS {literal(comment)}")
