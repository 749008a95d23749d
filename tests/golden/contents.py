"""What lies in a store, file by file, as short digests that can be compared; read with json, pyarrow and duckdb only.

What varies by nature is taken out of text first: times, durations, the code's version, ids of runs, the digest of
the configuration (it depends on where the project lies), the path of the project and the size of the catalog. There
are up to three digests of a file:

    text      JSON and YAML: every byte, once normalised
    bytes     Parquet, .npy and FAISS files: every byte; only where no path stands in the file
    layout    Parquet: compression, encodings, row groups, statistics, metadata of the schema
    values    Parquet: names, types and metadata of columns, and every value; .npy: type, shape and every value

`bytes` and `layout` depend on the versions of the libraries that write (`versions`), `values` do not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.golden.archive import MADE_IN

Facts = dict[str, str]

WRITERS = ("duckdb", "faiss-cpu", "numpy", "orjson", "pyarrow", "scikit-learn", "scipy")
"""What decides the bytes of a file beside winnow itself."""

_TIMES = "created_at|created_ns|finished_at|lease_until|seconds|started_at"
_OURS = "code_version|config_digest|invocation|peak_memory_bytes|run_id"
_VARYING = re.compile(rf'("(?:{_TIMES}|{_OURS})": ?)("[^"]*"|-?[0-9][-+.eE0-9]*)')
_SAID_TIME = re.compile(r"\b(until |in )(\d{4}-\d\d-\d\dT[0-9:+]+|[0-9.]+ (?:s|min|h)\b)")
_VARYING_COLUMNS = frozenset(f"{_TIMES}|{_OURS}".split("|"))
# A report and its map describe what is compared here itself.
_LEFT_OUT = (
    "last/",
    "catalog/",
    "locks/",
    "tmp/",
    "winnow.duckdb",
    "records/reports/",
    "pages/",
    "report.html",
    "format.json",
)
_MAP = re.compile(r"vectors/[^/]+/map-")
# A catalog is a copy of the last one, with free blocks: how many depends on how well times compress.
_CATALOG_SIZE = re.compile(r'(\.duckdb",\s*"size_bytes": ?)[0-9]+')
_REPORT = re.compile(r"(records/reports/)[^/]+/")
ROOT_SIGN = "<project>"


def versions() -> dict[str, str]:
    """The versions of the libraries that write."""
    return {name: version(name) for name in WRITERS}


def digest(content: str | bytes) -> str:
    """16 hex digits."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def normal(text: str, root: Path) -> str:
    """A text without what varies by nature."""
    placed = text.replace(str(root), ROOT_SIGN).replace(str(MADE_IN), ROOT_SIGN)
    text = _REPORT.sub(r"\1<run>/", _VARYING.sub(r"\1<varies>", placed))
    text = _CATALOG_SIZE.sub(r"\1<varies>", text)
    return _SAID_TIME.sub(r"\1<time>", text)


# ---- files


def files_of(project: Path) -> dict[str, Path]:
    """The files that winnow wrote for a project, by the names under which they are compared.

    Runs are called by their number and what they did, since their ids are drawn; the configuration by its kind.
    """
    store = project / "store"
    found: dict[str, Path] = {}
    runs = [run for run in sorted((store / "records" / "runs").iterdir()) if _did(run) != "report"]
    numbers = {run.name: f"{number:03d}-{_did(run)}" for number, run in enumerate(runs)}
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        # The files that checksums are of are compared themselves; those of a record with a time in it vary.
        if path.is_dir() or name.startswith(_LEFT_OUT) or path.name == "checksums.json" or _MAP.match(name):
            continue
        if name.startswith("records/runs/") and path.parent.name not in numbers:
            continue
        if name.startswith("records/runs/"):
            name = f"records/runs/{numbers[path.parent.name]}/{path.name}"
        elif name.startswith("configs/"):
            name = "configs/<digest>.yaml"
            assert name not in found, "the store holds more than one configuration"
        found[name] = path
    for path in sorted((project / "labeling").rglob("*")):
        if path.is_file():
            found[path.relative_to(project).as_posix()] = path
    return found


def facts_of(path: Path, root: Path) -> Facts:
    """The digests of one file."""
    if path.suffix == ".parquet":
        return _parquet_facts(path, root)
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        values = f"{array.dtype.str} {array.shape} {array.tobytes().hex()}"
        return {"bytes": digest(path.read_bytes()), "values": digest(values)}
    if path.suffix == ".faiss":
        return {"bytes": digest(path.read_bytes())}
    return {"text": digest(normal(path.read_text("utf-8"), root))}


def shown(path: Path, root: Path) -> list[str]:
    """A file as lines of text, for a message that says what differs."""
    if path.suffix == ".parquet":
        return [*_parquet_layout(path), *_parquet_values(path, root)]
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
        return [f"{array.dtype.str} {array.shape}", *(repr(row) for row in array.tolist())]
    if path.suffix == ".faiss":
        return [f"{path.stat().st_size} bytes"]
    return normal(path.read_text("utf-8"), root).splitlines()


def _did(run: Path) -> str:
    record = json.loads((run / "run.json").read_text("utf-8"))
    return "-".join(filter(None, (record["stage"], record["target"])))


def _parquet_facts(path: Path, root: Path) -> Facts:
    values = "\n".join(_parquet_values(path, root))
    facts = {"layout": digest("\n".join(_parquet_layout(path))), "values": digest(values)}
    return facts if ROOT_SIGN in values else {"bytes": digest(path.read_bytes()), **facts}


def _parquet_values(path: Path, root: Path) -> Iterator[str]:
    table = pq.read_table(path)
    yield f"metadata {table.schema.metadata}"
    for field in table.schema:
        yield f"{field.name}: {field.type}, nullable {field.nullable}, metadata {field.metadata}"
    yield from _rows(table, root)


def _rows(table: pa.Table, root: Path) -> Iterator[str]:
    for row in table.to_pylist():
        texts = {name: normal(value, root) for name, value in row.items() if isinstance(value, str)}
        yield json.dumps(row | texts, default=str, ensure_ascii=False)


def _parquet_layout(path: Path) -> Iterator[str]:
    file = pq.read_metadata(path)
    yield f"version {file.format_version}, {file.num_rows} rows, {file.num_row_groups} row groups, by {file.created_by}"
    for group in range(file.num_row_groups):
        for number in range(file.num_columns):
            column = file.row_group(group).column(number)
            yield (
                f"{group} {column.path_in_schema} {column.physical_type} {column.compression} "
                f"{sorted(column.encodings)} {column.num_values} values, "
                f"dictionary {column.has_dictionary_page}, statistics {column.is_stats_set}"
            )


# ---- what was drawn


def drawn(project: Path) -> dict[str, list[str]]:
    """Recipe -> the ids of its selections, in the order in which they were drawn."""
    found: dict[str, list[str]] = {}
    for run in sorted((project / "store" / "records" / "runs").iterdir()):
        record = json.loads((run / "run.json").read_text("utf-8"))
        if record["stage"] == "select":
            found.setdefault(record["target"], []).append(record["subject"])
    return found


def rounds(project: Path) -> dict[str, list[dict[str, Any]]]:
    """Labeling project -> what names each of its rounds, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in (project / "store" / "records" / "rounds").iterdir():
        record = json.loads((one / "round.json").read_text("utf-8"))
        names = ("round", "phase", "round_id", "selection_id", "random_selection_id", "model", "labels", "n_items")
        found.setdefault(record["project"], []).append({name: record[name] for name in names})
    return {name: sorted(some, key=lambda one: one["round"]) for name, some in sorted(found.items())}


def selection_ids(project: Path) -> list[str]:
    """Every selection of the store, those of the arms of rounds included."""
    return sorted(path.name for path in (project / "store" / "records" / "selections").iterdir())


# ---- the catalog

_SCHEMA = {
    "tables": "SELECT table_name AS name, comment, sql FROM duckdb_tables() WHERE NOT internal",
    "views": "SELECT view_name AS name, comment, sql FROM duckdb_views() WHERE NOT internal",
    "columns": "SELECT table_name || '.' || lpad(column_index::VARCHAR, 2, '0') AS name, column_name, data_type, "
    "is_nullable, column_default, comment FROM duckdb_columns() WHERE NOT internal",
    "macros": "SELECT function_name AS name, function_type, parameters, macro_definition, comment "
    "FROM duckdb_functions() WHERE NOT internal",
    "constraints": "SELECT table_name || '.' || constraint_index AS name, constraint_text FROM duckdb_constraints()",
    "indexes": "SELECT index_name AS name, table_name, sql FROM duckdb_indexes()",
    "types": "SELECT type_name AS name, logical_type FROM duckdb_types() WHERE NOT internal",
    "sequences": "SELECT sequence_name AS name, sql FROM duckdb_sequences()",
}


def catalog_schema(project: Path) -> dict[str, Any]:
    """Everything that the published catalog declares: tables, views, columns, types, comments, macros."""
    with _catalog(project) as connection:
        return {
            kind: {
                row.pop("name"): {key: _plain(value, project) for key, value in row.items() if value is not None}
                for row in _asked(connection, f"SELECT * FROM ({query}) ORDER BY ALL")
            }
            for kind, query in _SCHEMA.items()
        }


def catalog_rows(project: Path) -> dict[str, str]:
    """Table or view -> how many rows it has, and a digest of them in any order, without columns that vary by nature."""
    with _catalog(project) as connection:
        names = [row["name"] for kind in ("tables", "views") for row in _asked(connection, _SCHEMA[kind])]
        found = {}
        for name in sorted(names):
            without_reports = " WHERE stage <> 'report'" if name == "runs" else ""
            table = connection.sql(f'SELECT * FROM "{name}"{without_reports}').to_arrow_table()
            table = table.drop_columns([column for column in table.column_names if column in _VARYING_COLUMNS])
            found[name] = f"{len(table)} rows {digest(chr(10).join(sorted(_rows(table, project))))}"
    return found


def _catalog(project: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str((project / "store" / "winnow.duckdb").resolve()), read_only=True)


def _asked(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    return connection.sql(query).to_arrow_table().to_pylist()


def _plain(value: Any, root: Path) -> Any:
    return normal(value, root) if isinstance(value, str) else value
