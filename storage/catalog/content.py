"""The content of a catalog: rows of the records that are committed, and views over the Parquet files that exist.

Small facts become rows of native tables; those that the last catalog had are copied from it. Big facts stay in Parquet,
under views that list their files by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from storage.catalog import schema
from storage.duck import json_pointer, literal, quoted
from storage.pool.columns import read_columns
from storage.pool.examples import free_name, sql_names
from storage.pool.extra import common_type, sql_type
from storage.pool.ingest import parts
from storage.store import Store, read_json

# More fields than this stay in `extra` alone: keys that are data themselves would make a catalog of columns.
_MAX_EXTRA = 200

Row = dict[str, Any]
Name = tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Where the rows of a native table come from: `file` of each committed folder below `root`.

    Attributes:
        key: the columns that hold the folder's name, one a level.
        rows: the content of the file -> rows, by column; what is no column is left out. `record` is that content.
    """

    table: str
    root: Name
    key: Name
    file: str
    rows: Callable[[Row], list[Row]] = lambda document: [document]

    def names(self, store: Store) -> list[Name]:
        names: list[Name] = [()]
        for _ in self.key:
            names = [(*name, entry) for name in names for entry in store.committed(*self.root, *name)]
        # An embedding that was interrupted leaves its plan beside the segments.
        return [name for name in names if not name[-1].startswith("plan-")]


def _snapshot(document: Row) -> list[Row]:
    # Two snapshots within a second: the exact time says which is the later.
    created_at = datetime.fromtimestamp(document["created_ns"] / 1e9, UTC).isoformat()
    row = {"ingests": len(document["ingests"]), "examples": document["rows"], "created_at": created_at}
    return [document | row]


def _snapshot_files(document: Row) -> list[Row]:
    files = document["files"]
    return [counts | {"ingest": ingest, "file": files[ingest]} for ingest, counts in document["counts"].items()]


def _round(document: Row) -> list[Row]:
    advice = document.get("advice") or {}
    row = {"model_id": document.get("model"), "stop": advice.get("stop"), "reasons": advice.get("reasons")}
    return [document | row]


_SNAPSHOTS = ("records", "snapshots")
_SOURCES = (
    _Source("ingests", ("pool",), ("ingest",), "ingest.json"),
    _Source("snapshots", _SNAPSHOTS, ("snapshot",), "snapshot.json", _snapshot),
    _Source("snapshot_files", _SNAPSHOTS, ("snapshot",), "snapshot.json", _snapshot_files),
    _Source("encoders", ("vectors",), ("encoder",), "encoder.json", lambda d: [d["spec"] | d]),
    _Source("embeddings", ("vectors",), ("encoder", "segment"), "segment.json"),
    _Source("indexes", ("indexes",), ("index",), "index.json"),
    _Source("selections", ("records", "selections"), ("selection_id",), "selection.json"),
    _Source(
        "metrics",
        ("records", "metrics"),
        ("metrics_id",),
        "metrics.json",
        lambda d: [d | {"name": name, "value": value} for name, value in d["values"].items()],
    ),
    _Source("runs", ("records", "runs"), ("run_id",), "run.json"),
    _Source("label_imports", ("records", "labels"), ("import",), "import.json"),
    _Source("round_records", ("records", "rounds"), ("round_id",), "round.json", _round),
    _Source("models", ("records", "models"), ("model_id",), "model.json"),
)


def fill(store: Store, connection: DuckDBPyConnection, previous: str | None) -> None:
    """Make and fill the native tables of the connection's current database.

    Args:
        previous: an attached database with the same tables, whose rows need not be read from the records again.
    """
    for step in schema.STEPS:
        connection.execute(step)
    connection.execute("INSERT INTO schema_version VALUES (?)", [len(schema.STEPS)])
    for source in _SOURCES:
        names = source.names(store)
        if previous is not None:
            _copy(connection, source, names, previous)
        _read(store, connection, source, names)


def _copy(connection: DuckDBPyConnection, source: _Source, names: Sequence[Name], previous: str) -> None:
    """Copy the rows of the records that are still there."""
    lists = ", ".join("unnest(?::VARCHAR[])" for _ in source.key)
    connection.execute(
        f"INSERT INTO {source.table} SELECT * FROM {previous}.{source.table} "  # noqa: S608
        f"WHERE ({_listed(source.key)}) IN (SELECT ({lists}))",
        [[name[level] for name in names] for level in range(len(source.key))],
    )


def _read(store: Store, connection: DuckDBPyConnection, source: _Source, names: Sequence[Name]) -> None:
    """Insert the rows of the records that are not in the table yet."""
    key = _listed(source.key)
    present = set(connection.execute(f"SELECT DISTINCT {key} FROM {source.table}").fetchall())  # noqa: S608
    rows: list[Row] = []
    for name in names:
        path = store.path(*source.root, *name, source.file)
        # An encoder's folder is there before its description is.
        if name not in present and (source.table != "encoders" or path.exists()):
            document = read_json(path)
            own = {"record": document, **dict(zip(source.key, name, strict=True))}
            rows += [row | own for row in source.rows(document)]
    if not rows:
        return
    types = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {source.table}").fetchall()}
    plain = [{column: row.get(column) for column in types} for row in rows]
    connection.execute(
        f"INSERT INTO {source.table} BY NAME SELECT unnest(from_json_strict(?, ?), max_depth := 2)",
        [json.dumps(plain), json.dumps([types])],
    )


def create_views(store: Store, connection: DuckDBPyConnection) -> None:
    """Make the views and macros."""
    latest = _latest_snapshot(connection)
    live = _column(connection, "SELECT ingest FROM snapshot_files WHERE snapshot = ? ORDER BY ingest", [latest or ""])
    ingests = _column(connection, "SELECT ingest FROM ingests ORDER BY ingest")
    folder = store.path("records", "snapshots", latest) if latest else None
    files: dict[str, Iterable[Path]] = {
        "duplicates": [folder / "duplicates.parquet"] if folder else [],
        "tombstones": _of_records(store, "snapshots", "tombstones.parquet"),
        "quarantine": [store.path("quarantine", name, "rows.parquet") for name in live],
        "targets": _of_records(store, "targets", "items.parquet"),
        "selection_items": _of_records(store, "selections", "items.parquet"),
        "selection_drops": [path for path in _of_records(store, "selections", "dropped.parquet") if path.exists()],
        "selection_finds": [path for path in _of_records(store, "selections", "found.parquet") if path.exists()],
        "label_events": _of_imports(store, connection, "labels.parquet", "new > 0"),
        "label_quarantine": _of_imports(store, connection, "quarantine.parquet", f"{_IS_LAST} AND quarantined > 0"),
        "round_items": _of_records(store, "rounds", "items.parquet"),
        "consensus": _of_records(store, "models", "consensus.parquet", _latest_models(connection)),
    }
    for view, paths in files.items():
        connection.execute(f"CREATE VIEW {view} AS {_select(view, paths)}")
    imported = _imported_columns(store, connection, latest)
    columns = _named(imported, _extra_fields(connection, latest))
    for view, names in (("pool_rows", ingests), ("examples", live)):
        rows = _rows([part for name in names for part in parts(store, name)], columns, imported)
        once = " ANTI JOIN duplicates d ON r.ingest = d.ingest AND r.line = d.line" if view == "examples" else ""
        connection.execute(f"CREATE VIEW {view} AS SELECT r.* FROM ({rows}) r{once}")  # noqa: S608
    taken = {"id", *schema.PARQUET_COLUMNS["selection_items"]}
    clashing = [name for name in columns if name.lower() in taken]
    connection.execute(
        schema.VIEWS.format(
            latest=literal(latest or ""),
            without=_listed(["id", *clashing]),
            renamed="".join(
                f", e.{quoted(name)} AS {quoted(free_name(name, taken | set(columns)))}" for name in clashing
            ),
        )
    )
    connection.execute(schema.LABEL_VIEWS)


def comment(connection: DuckDBPyConnection) -> None:
    """Put a comment on every table, view, macro and column."""
    views = set(_column(connection, "SELECT view_name FROM duckdb_views() WHERE database_name = current_database()"))
    tables = set(_column(connection, "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"))
    statements = []
    for name, text in schema.RELATION_COMMENTS.items():
        relation_kind = "VIEW" if name in views else "TABLE" if name in tables else "MACRO TABLE"
        statements.append(f"COMMENT ON {relation_kind} {name} IS {literal(text)}")
    for relation, column in connection.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database() AND NOT internal"
    ).fetchall():
        text = schema.column_comment(relation, column)
        statements.append(f"COMMENT ON COLUMN {relation}.{quoted(column)} IS {literal(text)}")
    connection.execute(";".join(statements))


def _latest_snapshot(connection: DuckDBPyConnection) -> str | None:
    """The snapshot of the last good ingest, which may be an older one that came back; without runs the newest."""
    snapshots = _column(
        connection,
        "SELECT s.snapshot FROM snapshots s "
        "LEFT JOIN runs r ON r.subject = s.snapshot AND r.stage = 'ingest' AND r.status = 'ok' "
        "ORDER BY r.run_id DESC NULLS LAST, s.number DESC NULLS LAST, s.created_at DESC LIMIT 1",
    )
    return snapshots[0] if snapshots else None


def _of_records(store: Store, kind: str, file: str, names: Iterable[str] | None = None) -> list[Path]:
    """A file of each record of a kind, or of those of some names."""
    return [store.path("records", kind, name, file) for name in (store.records(kind) if names is None else names)]


# A file's labels that could not be used are those of its last state.
_IS_LAST = "number = (SELECT max(number) FROM label_imports l WHERE l.project = i.project AND l.url = i.url)"


def _of_imports(store: Store, connection: DuckDBPyConnection, file: str, condition: str) -> list[Path]:
    sql = f'SELECT "import" FROM label_imports i WHERE {condition} ORDER BY number, "import"'  # noqa: S608 - ours
    return _of_records(store, "labels", file, _column(connection, sql))


def _latest_models(connection: DuckDBPyConnection) -> list[str]:
    """The model of each project's last good fit, which may be an older one that came back; without runs the newest."""
    return _column(
        connection,
        "SELECT model_id FROM models m LEFT JOIN runs r ON r.subject = m.model_id AND r.status = 'ok' "
        "QUALIFY row_number() OVER ("
        "PARTITION BY m.project ORDER BY r.run_id DESC NULLS LAST, m.number DESC NULLS LAST, m.created_at DESC, model_id"
        ") = 1 ORDER BY m.project",
    )


def _select(view: str, paths: Iterable[Path]) -> str:
    """The select behind a view over Parquet files; of no files, no rows of the right types."""
    columns = schema.PARQUET_COLUMNS[view]
    files = ", ".join(literal(_as_pattern(path)) for path in paths)
    if not files:
        typed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in columns.items())
        return f"SELECT {typed} WHERE false"
    folder = schema.FROM_FOLDER.get(view)
    selected = ", ".join(
        f"split_part(filename, '/', -2) AS {quoted(name)}" if name == folder else quoted(name) for name in columns
    )
    source = f"read_parquet([{files}], filename = true)"
    if view == "pool_rows":  # files that earlier versions wrote lack the newer columns
        typed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in columns.items())
        of_any_age = f"FROM read_parquet([{files}], union_by_name = true)"
        source = f"(SELECT {typed} WHERE false UNION ALL BY NAME {of_any_age})"
    return f"SELECT {selected} FROM {source}"  # noqa: S608


def _as_pattern(path: Path) -> str:
    """A path as DuckDB reads it: its own glob signs in brackets."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def _rows(files: Sequence[Path], columns: Mapping[str, str], imported: Mapping[Path, Sequence[str]]) -> str:
    """The select over files of the pool, with the user's columns and the extra fields at the end."""
    joins = "".join(
        f" LEFT JOIN read_parquet([{literal(_as_pattern(path))}]) c{number} ON c{number}.id = p.id"
        for number, path in enumerate(imported)
    )
    extra = "".join(f", {value} AS {quoted(name)}" for name, value in columns.items())
    return f"SELECT p.*{extra} FROM ({_select('pool_rows', files)}) p{joins}"  # noqa: S608


def _imported_columns(store: Store, connection: DuckDBPyConnection, latest: str | None) -> dict[Path, Sequence[str]]:
    """File of the latest snapshot -> the user's columns in it."""
    digests = _column(connection, "SELECT unnest(columns::VARCHAR[]) FROM snapshots WHERE snapshot = ?", [latest or ""])
    folder = store.path("records", "snapshots", latest or "", "column_rows")
    return {folder / f"{digest}.parquet": sorted(read_columns(store, digest).types) for digest in digests}


def _extra_fields(connection: DuckDBPyConnection, latest: str | None) -> dict[str, str]:
    """Field -> type, for the fields of the pool's files that winnow has no name for.

    Types are those that the pool as it is now has; fields that only older files had come last.
    """
    fields = connection.execute(
        "SELECT f.snapshot IS NOT NULL AS live, e.key, list(DISTINCT e.value->>'$') "
        "FROM ingests i LEFT JOIN snapshot_files f ON f.ingest = i.ingest AND f.snapshot = ?, "
        "json_each(extra_columns) e "
        "GROUP BY ALL ORDER BY live DESC, e.key",
        [latest or ""],
    ).fetchall()
    kinds: dict[str, str] = {}
    for _, field, types in fields:
        kinds.setdefault(field, sql_type(common_type(types)) or "VARCHAR")
    return dict(list(kinds.items())[:_MAX_EXTRA])


def _named(imported: Mapping[Path, Sequence[str]], fields: Mapping[str, str]) -> dict[str, str]:
    """Column -> SQL."""
    columns = {name: f"c{number}.{quoted(name)}" for number, names in enumerate(imported.values()) for name in names}
    return columns | {
        name: f"TRY_CAST(p.extra->>{literal(json_pointer(field))} AS {fields[field]})"
        for name, field in sql_names(columns, fields).items()
    }


def _column(connection: DuckDBPyConnection, sql: str, params: Sequence[Any] = ()) -> list[str]:
    return [value for (value,) in connection.execute(sql, params).fetchall()]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(quoted(name) for name in names)
