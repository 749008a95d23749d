"""The content of a catalog: rows of the records that are committed, and views over the Parquet files that exist.

Small facts become rows of native tables; those that the last catalog had are copied from it. Big facts stay in Parquet,
under views that list their files by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from duckdb import Error as DuckDBError

from storage.catalog import schema
from storage.damage import KINDS, committed_whole, read_record, readable, set_aside
from storage.duck import json_pointer, literal, quoted
from storage.errors import NotInStore, StoreDamaged
from storage.packs import COPIES, NAME, Pack, has_table, is_packed, table_columns
from storage.packs import ROWS as PACKED_ROWS
from storage.pool.columns import read_columns
from storage.pool.examples import free_name, sql_names
from storage.pool.extra import common_type, sql_type
from storage.pool.ingest import parts
from storage.store import Store, read_json
from storage.vectors.segments import NORMS, ROWS

# More fields than this stay in `extra` alone: keys that are data themselves would make a catalog of columns.
_MAX_EXTRA = 200
# Of these, files that earlier versions wrote lack the newer columns.
_OF_ANY_AGE = ("pool_rows", "targets", "round_items", "change_causes")

# What is in the catalog, of all that DuckDB lists.
_OURS = "database_name = current_database() AND NOT internal"

Row = dict[str, Any]
Name = tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Where the rows of a native table come from: the JSON of each committed folder of a kind.

    Attributes:
        kind: of `storage.damage`; "encoders" are no records, but a file in a folder of segments.
        key: the columns that hold the folder's name, one a level.
        tables: Parquet files of the folder under views, which must be readable, if they are there -> the view.
        rows: the content of the file -> rows, by column; what is no column is left out. `record` is that content.
    """

    table: str
    kind: str
    key: Name
    tables: Mapping[str, str] = field(default_factory=dict)
    rows: Callable[[Row], list[Row]] = lambda document: [document]

    def folders(self, store: Store) -> dict[Name, Path]:
        """Key -> folder."""
        if self.kind == "encoders":  # a folder is there before its description is
            paths = [store.path("vectors", name) for name in store.committed("vectors")]
            folders = [path for path in paths if path.joinpath("encoder.json").exists()]
        else:
            folders = list(KINDS[self.kind].folders(store))
        return {folder.parts[-len(self.key) :]: folder for folder in folders}

    def read(self, folder: Path) -> Row:
        """The JSON of a folder.

        Raises:
            StoreDamaged: it is damaged, or a file under a view is.
        """
        if self.kind == "encoders":
            document = read_json(folder / "encoder.json")
            if not isinstance(document, dict) or not isinstance(document.get("spec"), dict):
                raise StoreDamaged(f"{folder / 'encoder.json'} is not the description that was written")
            return document
        document = read_record(self.kind, folder)
        for file, view in self.tables.items():
            if file in KINDS[self.kind].needs or has_table(folder, file):
                _check_table(folder, file, view)
        return document


def _snapshot(document: Row) -> list[Row]:
    # Two snapshots within a second: the exact time says which is the later.
    created_at = datetime.fromtimestamp(document["created_ns"] / 1e9, UTC).isoformat()
    row = {"ingests": len(document["ingests"]), "examples": document["rows"], "created_at": created_at}
    return [document | row]


def _encoder(document: Row) -> list[Row]:
    # What a language model says of rows lies in segments as well, without vectors.
    if "columns" in document:
        return []
    spec = document["spec"]
    models = [spec.get("model"), *(checkpoint.get("model") for checkpoint in spec.get("checkpoints", ()))]
    row = {"models": [model for model in models if model is not None], "options": spec}
    # Hidden states were the only kind when the first descriptions were written.
    return [{"kind": "hidden_states" if "pooling" in spec else None} | spec | document | row]


def _check_table(folder: Path, file: str, view: str) -> None:
    """Raise `StoreDamaged` for a Parquet file that a view cannot read; its rows are not looked at."""
    names = table_columns(folder, file)
    wanted = set(schema.PARQUET_COLUMNS[view]) - {schema.FROM_FOLDER.get(view)}
    if view not in _OF_ANY_AGE and (missing := sorted(wanted - set(names))):
        raise StoreDamaged(f"{folder / file} lacks the columns {', '.join(missing)}")


def _snapshot_files(document: Row) -> list[Row]:
    files = document["files"]
    return [counts | {"ingest": ingest, "file": files[ingest]} for ingest, counts in document["counts"].items()]


def _with(document: Row, key: str) -> list[Row]:
    """The entries of a list in a document, each with the keys of the document that it does not have."""
    return [document | entry for entry in document[key]]


def _scores(document: Row) -> list[Row]:
    lower = document.get("lower", [])
    return [
        document | {"seed": scores["seed"], "name": name, "value": value, "lower_is_better": name in lower}
        for scores in document["scores"]
        for name, value in scores.items()
        if name != "seed"
    ]


def _round(document: Row) -> list[Row]:
    advice = document.get("advice") or {}
    row = {"model_id": document.get("model"), "stop": advice.get("stop"), "reasons": advice.get("reasons")}
    return [document | row]


def _entries(document: Row) -> list[Row]:
    """The entries of a comparison, each with what the whole comparison says."""
    rows = []
    for number, entry in enumerate(document["selections"], 1):
        metrics, draws = entry["metrics"], entry["draws"]
        means = {name: metric["mean"] for name, metric in metrics.items()}
        deviations = {f"{name}_std": metric["std"] for name, metric in metrics.items()}
        of_draws = {"draws": len(draws), "selection_id": draws[0]["selection"] if len(draws) == 1 else None}
        rows.append(document | entry | means | deviations | of_draws | {"number": number})
    return rows


def _similarities(document: Row) -> list[Row]:
    return [
        target | {"name": entry["name"], "similarity": metric["mean"], "similarity_std": metric["std"]}
        for entry in document["selections"]
        for target in document["targets"]
        if (metric := entry["metrics"].get(f"similarity_{target['target_set']}")) is not None
    ]


def _overlaps(document: Row) -> list[Row]:
    names = [entry["name"] for entry in document["selections"]]
    return [
        {"name": name, "other": other, "jaccard": jaccard, "rank_biased_overlap": rank_biased}
        for name, line, ranked in zip(names, document["overlap"], document["rank_biased_overlap"], strict=True)
        for other, jaccard, rank_biased in zip(names, line, ranked, strict=True)
        if jaccard is not None
    ]


def _sources(document: Row) -> list[Row]:
    names = [entry["name"] for entry in document["selections"]]
    return [
        {"name": name, "source": line["source"], "share": share, "share_of_pool": line["pool"]}
        for line in document["mix"]
        for name, share in zip(names, line["shares"], strict=True)
    ]


_REPORTS = {
    "items.parquet": "selection_items",
    "dropped.parquet": "selection_drops",
    "found.parquet": "selection_finds",
}
_SOURCES = (
    _Source("ingests", "pool", ("ingest",), {"part-00000.parquet": "pool_rows"}),
    _Source(
        "snapshots",
        "snapshots",
        ("snapshot",),
        {"duplicates.parquet": "duplicates", "tombstones.parquet": "tombstones"},
        _snapshot,
    ),
    _Source("snapshot_files", "snapshots", ("snapshot",), rows=_snapshot_files),
    _Source("encoders", "encoders", ("encoder",), rows=_encoder),
    _Source(
        "embeddings",
        "segments",
        ("encoder", "segment"),
        {ROWS: "token_scores", NORMS: "gradient_norms"},
        rows=lambda d: [d] if d["dimension"] else [],
    ),
    _Source("indexes", "indexes", ("index",)),
    _Source(
        "representation_health",
        "health_measurements",
        ("health_measurement_id",),
        {"groups.parquet": "representation_groups"},
        lambda d: [d["measures"] | d],
    ),
    _Source("selections", "selections", ("selection_id",), _REPORTS),
    _Source(
        "metrics",
        "metrics",
        ("metrics_id",),
        rows=lambda d: [d | {"name": name, "value": value} for name, value in d["values"].items()],
    ),
    _Source("runs", "runs", ("run_id",)),
    _Source(
        "label_imports",
        "labels",
        ("import",),
        {"labels.parquet": "label_events", "quarantine.parquet": "label_quarantine"},
    ),
    _Source("round_records", "rounds", ("round_id",), {"items.parquet": "round_items"}, _round),
    _Source("models", "models", ("model_id",), {"consensus.parquet": "consensus"}),
    _Source(
        "classifiers",
        "classifiers",
        ("classifier_id",),
        {"examples.parquet": "classifier_examples"},
        lambda d: [d | {name: d["metrics"].get(name) for name in ("examples", "held_out", "accuracy", "auc")}],
    ),
    _Source("trial_records", "trials", ("trial_id", "part")),
    _Source("trial_cells", "trial_cells", ("trial_id", "cell")),
    _Source("trial_detectable", "trial_detectable", ("trial_id", "part"), rows=lambda d: _with(d, "detectable")),
    _Source("trial_effects", "trial_effects", ("trial_id", "part"), rows=lambda d: _with(d, "effects")),
    _Source("trial_verdicts", "trial_effects", ("trial_id", "part")),
    _Source("results", "results", ("result_id",), rows=_scores),
    _Source(
        "result_judgements", "results", ("result_id",), rows=lambda d: _with(d, "effects") if "effects" in d else []
    ),
    _Source("reports", "reports", ("invocation",), {"changes.parquet": "change_causes"}, lambda d: [d | d["verdict"]]),
    _Source("comparisons", "comparisons", ("comparison_id",), rows=_entries),
    _Source("comparison_targets", "comparisons", ("comparison_id",), rows=_similarities),
    _Source("comparison_overlaps", "comparisons", ("comparison_id",), rows=_overlaps),
    _Source("comparison_sources", "comparisons", ("comparison_id",), rows=_sources),
)


def create_tables(connection: DuckDBPyConnection) -> None:
    """Make the native tables in the connection's current database."""
    for step in schema.STEPS:
        connection.execute(step)
    connection.execute("INSERT INTO schema_version VALUES (?)", [len(schema.STEPS)])


def fill(store: Store, connection: DuckDBPyConnection) -> None:
    """Bring the native tables up to date: rows of records that are gone go, those of new records come.

    Cost: what is new, plus listing the records' folders.
    """
    for folder, damage in list(store.damaged.items()):
        set_aside(store, folder, damage)
    for source in _SOURCES:
        folders = source.folders(store)
        present = _present(connection, source)
        if gone := present - folders.keys():
            _delete(connection, source, gone)
        if new := folders.keys() - present:
            _read(store, connection, source, {name: folders[name] for name in folders if name in new})


def _present(connection: DuckDBPyConnection, source: _Source) -> set[Name]:
    """The keys of a table."""
    return set(connection.execute(f"SELECT DISTINCT {_listed(source.key)} FROM {source.table}").fetchall())  # noqa: S608


def _delete(connection: DuckDBPyConnection, source: _Source, names: Iterable[Name]) -> None:
    """Write a table anew without some keys: DuckDB keeps deleted rows in a file until there are a hundred thousand."""
    columns = [list(column) for column in zip(*names, strict=True)]
    lists = ", ".join("unnest(?::VARCHAR[])" for _ in source.key)
    connection.execute(
        f"CREATE TEMP TABLE kept AS FROM {source.table} WHERE ({_listed(source.key)}) NOT IN (SELECT ({lists}))",
        columns,
    )
    of_table = f"SELECT sql FROM duckdb_tables() WHERE {_OURS} AND table_name = ?"  # noqa: S608
    (definition,) = _column(connection, of_table, [source.table])
    connection.execute(f"DROP TABLE {source.table}; {definition} INSERT INTO {source.table} FROM kept; DROP TABLE kept")


def _read(store: Store, connection: DuckDBPyConnection, source: _Source, folders: Mapping[Name, Path]) -> None:
    """Insert the rows of records; one that the table cannot hold is put aside."""
    types = {column: kind for column, kind, *_ in connection.execute(f"DESCRIBE {source.table}").fetchall()}
    rows: dict[Name, list[Row]] = {}
    for name, folder in folders.items():
        try:
            document = source.read(folder)
            own = {"record": document, **dict(zip(source.key, name, strict=True))}
            rows[name] = [{column: (row | own).get(column) for column in types} for row in source.rows(document)]
        except (StoreDamaged, NotInStore) as error:
            _leave_out(store, source, folder, str(error))
        except _WRONG_VALUES as error:
            _leave_out(store, source, folder, f"{_described(source, folder)} cannot be used: {error}")
    # A statement that fails would end the transaction: try on a connection beside it.
    if not _can_hold(connection.cursor(), rows.values(), types):
        for name in list(rows):
            if not _can_hold(connection.cursor(), [rows[name]], types):
                _leave_out(
                    store, source, folders[name], f"{_described(source, folders[name])} has a value of a wrong type"
                )
                del rows[name]
    if rows:
        connection.execute(f"INSERT INTO {source.table} BY NAME {_FROM_JSON}", _as_json(rows.values(), types))


# What code that reads a document of wrong values raises.
_WRONG_VALUES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError)
_FROM_JSON = "SELECT unnest(from_json_strict(?, ?), max_depth := 2)"


def _as_json(rows: Iterable[list[Row]], types: Mapping[str, str]) -> list[str]:
    return [json.dumps([row for some in rows for row in some]), json.dumps([types])]


def _can_hold(connection: DuckDBPyConnection, rows: Iterable[list[Row]], types: Mapping[str, str]) -> bool:
    """Whether a table of these types can hold the rows."""
    try:
        connection.execute(_FROM_JSON, _as_json(rows, types)).fetchall()
    except (DuckDBError, ValueError):
        return False
    return True


def _described(source: _Source, folder: Path) -> Path:
    """The JSON file of a folder."""
    return folder / ("encoder.json" if source.kind == "encoders" else KINDS[source.kind].file or "")


def _leave_out(store: Store, source: _Source, folder: Path, damage: str) -> None:
    set_aside(store, folder / "encoder.json" if source.kind == "encoders" else folder, damage)


def create_views(store: Store, connection: DuckDBPyConnection) -> None:
    """Make the views and macros, those that are there anew."""
    _drop_views(connection)
    latest = _latest_snapshot(connection)
    live = _column(connection, "SELECT ingest FROM snapshot_files WHERE snapshot = ? ORDER BY ingest", [latest or ""])
    refusing = set(_column(connection, "SELECT ingest FROM ingests WHERE quarantined > 0"))
    ingests = _column(connection, "SELECT ingest FROM ingests ORDER BY ingest")
    folder = store.path("records", "snapshots", latest) if latest else None
    searches, measured = _latest_search(store, connection), _measured(store)
    reports = _column(connection, "SELECT invocation FROM reports ORDER BY invocation")
    segments = list(KINDS["segments"].folders(store))
    files: dict[str, Iterable[Path]] = {
        "duplicates": [folder / "duplicates.parquet"] if folder else [],
        "tombstones": _of_records(store, "snapshots", "tombstones.parquet"),
        "quarantine": [
            path
            for name in live
            if name in refusing and (path := store.path("quarantine", name, "rows.parquet")).exists()
        ],
        "targets": _of_records(store, "targets", "items.parquet"),
        "selection_items": _of_records(store, "selections", "items.parquet"),
        "selection_drops": [path for path in _of_records(store, "selections", "dropped.parquet") if path.exists()],
        "selection_finds": [path for path in _of_records(store, "selections", "found.parquet") if path.exists()],
        "contamination": _of_records(store, "contaminations", "matches.parquet", searches),
        "contamination_recall": _of_records(store, "contaminations", "recall.parquet", searches),
        "contamination_embedding_recall": _of_records(
            store, "embedding_recalls", "recall.parquet", [name for name in searches if name in measured]
        ),
        "embedding_recall": _of_records(
            store,
            "embedding_recalls",
            "recall.parquet",
            [name for name in measured if not store.has("records", "contaminations", name)],
        ),
        "representation_groups": _of_records(store, "health_measurements", "groups.parquet"),
        "token_scores": [path for segment in segments if (path := segment / ROWS).exists()],
        "gradient_norms": [path for segment in segments if (path := segment / NORMS).exists()],
        "label_events": _of_imports(store, connection, "labels.parquet", "new > 0"),
        "label_quarantine": _of_imports(store, connection, "quarantine.parquet", f"{_IS_LAST} AND quarantined > 0"),
        "round_items": _of_records(store, "rounds", "items.parquet"),
        "classifier_examples": _of_records(store, "classifiers", "examples.parquet"),
        "consensus": _of_records(store, "models", "consensus.parquet", _latest_models(connection)),
        "change_causes": [path for path in _of_records(store, "reports", "changes.parquet", reports) if path.exists()],
    }
    for view, paths in files.items():
        connection.execute(f"CREATE VIEW {view} AS {_select(view, paths)}")
    imported = _imported_columns(store, connection, latest)
    columns = _named(imported, _extra_fields(connection, latest))
    for view, names in (("pool_rows", ingests), ("examples", live)):
        rows = _rows(_pool_rows(store, names), columns, imported)
        once = " ANTI JOIN duplicates d ON r.ingest = d.ingest AND r.line = d.line" if view == "examples" else ""
        connection.execute(f"CREATE VIEW {view} AS SELECT r.* FROM ({rows}) r{once}")  # noqa: S608
    taken = {"id", *schema.PARQUET_COLUMNS["selection_items"]}
    clashing = [name for name in columns if name.lower() in taken]
    connection.execute(
        schema.VIEWS.format(
            latest=literal(latest or ""),
            past=_rows(_pool_rows(store, sorted({*ingests} - {*live})), columns, imported),
            without=_listed(["id", *clashing]),
            renamed="".join(
                f", e.{quoted(name)} AS {quoted(free_name(name, taken | set(columns)))}" for name in clashing
            ),
        )
    )
    connection.execute(schema.LABEL_VIEWS)


def _drop_views(connection: DuckDBPyConnection) -> None:
    views = _column(connection, f"SELECT view_name FROM duckdb_views() WHERE {_OURS}")  # noqa: S608
    macros = connection.execute(
        f"SELECT DISTINCT function_name, function_type FROM duckdb_functions() WHERE {_OURS}"  # noqa: S608
    ).fetchall()
    drops = [f"DROP VIEW {view}" for view in views]
    drops += [f"DROP {'MACRO' if kind == 'macro' else 'MACRO TABLE'} {name}" for name, kind in macros]
    connection.execute(";".join(drops))


def comment(connection: DuckDBPyConnection) -> None:
    """Put a comment on every table, view, macro and column that has another one, or none."""
    kinds: dict[str, str] = {}
    present: dict[str, str] = {}
    for kind in ("TABLE", "VIEW"):
        listed = f"duckdb_{kind.lower()}s()"
        for name, text in connection.execute(f"SELECT {kind}_name, comment FROM {listed} WHERE {_OURS}").fetchall():  # noqa: S608
            kinds[name], present[name] = kind, text
    statements = []
    for name, text in schema.RELATION_COMMENTS.items():
        macro = "MACRO" if name in schema.SCALAR_MACROS else "MACRO TABLE"
        if present.get(name) != text:
            statements.append(f"COMMENT ON {kinds.get(name, macro)} {name} IS {literal(text)}")
    columns = f"SELECT table_name, column_name, comment FROM duckdb_columns() WHERE {_OURS}"  # noqa: S608
    for relation, column, before in connection.execute(columns).fetchall():
        text = schema.column_comment(relation, column)
        if before != text:
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
    """A file of each record of a kind, or of those of some names; of records in a pack, that of the pack."""
    packed, folder = store.packs.places(kind), store.path("records", kind)
    chosen = store.records(kind) if names is None else names
    places = dict.fromkeys(packed[name].parent if name in packed else folder / name for name in chosen)
    return [place / file for place in places]


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


def _latest_search(store: Store, connection: DuckDBPyConnection) -> list[str]:
    """The last search for evaluation texts, also one whose recall is too low."""
    subjects = _column(
        connection,
        "SELECT subject FROM runs WHERE stage = 'decontaminate' AND subject IS NOT NULL ORDER BY run_id DESC",
    )
    return [name for name in dict.fromkeys(subjects) if committed_whole(store, "contaminations", name)][:1]


def _measured(store: Store) -> list[str]:
    """The selections, and searches of the pool, whose rule on vectors was measured."""
    names = store.committed(*KINDS["embedding_recalls"].root)
    return [name for name in names if readable(store, "embedding_recalls", name, whole=True)]


def _select(view: str, paths: Iterable[Path]) -> str:
    """The select behind a view over Parquet files; of no files, no rows of the right types."""
    columns = schema.PARQUET_COLUMNS[view]
    paths = list(paths)
    if not paths:
        typed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in columns.items())
        return f"SELECT {typed} WHERE false"
    in_packs = [path for path in paths if is_packed(path)]
    of_records = [path for path in paths if not is_packed(path)]
    sources = ((in_packs, quoted(NAME)), (of_records, "split_part(filename, '/', -2)"))
    return " UNION ALL ".join(_select_files(view, files, record) for files, record in sources if files)


def _select_files(view: str, paths: Iterable[Path], record: str) -> str:
    """The select over some files of a view; `record` gives the name of a row's record."""
    columns = schema.PARQUET_COLUMNS[view]
    files = ", ".join(literal(_as_pattern(path)) for path in paths)
    folder = schema.FROM_FOLDER.get(view)
    selected = ", ".join(f"{record} AS {quoted(name)}" if name == folder else quoted(name) for name in columns)
    source = f"read_parquet([{files}], filename = true)"
    if view in _OF_ANY_AGE:
        inside = {name: kind for name, kind in columns.items() if name != folder} | (
            {"filename": "VARCHAR"} if folder else {}
        )
        typed = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in inside.items())
        of_any_age = f"FROM read_parquet([{files}], union_by_name = true{', filename = true' if folder else ''})"
        source = f"(SELECT {typed} WHERE false UNION ALL BY NAME {of_any_age})"
    return f"SELECT {selected} FROM {source}"  # noqa: S608


def _as_pattern(path: Path) -> str:
    """A path as DuckDB reads it: its own glob signs in brackets."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path))


def _pool_rows(store: Store, ingests: Sequence[str]) -> str:
    """The select over the rows of some ingests: over packs where these have copies, else over their own files."""
    copied = store.packs.places(COPIES)
    in_packs: dict[Path, set[str]] = {}
    for name in ingests:
        if name in copied:
            in_packs.setdefault(copied[name].parent, set()).add(name)
    files = [part for name in ingests if name not in copied for part in parts(store, name)]
    selects = [_select("pool_rows", files)] if files or not in_packs else []
    for folder, names in in_packs.items():
        select = _select("pool_rows", [folder / PACKED_ROWS])
        all_of_it = len(names) == len(Pack(folder).names)
        selects.append(select if all_of_it else f"{select} WHERE ingest IN ({', '.join(map(literal, sorted(names)))})")
    return " UNION ALL ".join(selects)


def _rows(select: str, columns: Mapping[str, str], imported: Mapping[Path, Sequence[str]]) -> str:
    """The select over rows of the pool, with the user's columns and the extra fields at the end."""
    joins = "".join(
        f" LEFT JOIN read_parquet([{literal(_as_pattern(path))}]) c{number} ON c{number}.id = p.id"
        for number, path in enumerate(imported)
    )
    extra = "".join(f", {value} AS {quoted(name)}" for name, value in columns.items())
    return f"SELECT p.*{extra} FROM ({select}) p{joins}"  # noqa: S608


def _imported_columns(store: Store, connection: DuckDBPyConnection, latest: str | None) -> dict[Path, Sequence[str]]:
    """File of the latest snapshot -> the user's columns in it."""
    digests = _column(connection, "SELECT unnest(columns::VARCHAR[]) FROM snapshots WHERE snapshot = ?", [latest or ""])
    folder = store.path("records", "snapshots", latest or "", "column_rows")
    whole = [digest for digest in digests if readable(store, "columns", digest)]
    return {folder / f"{digest}.parquet": sorted(read_columns(store, digest).types) for digest in whole}


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
    for _, name, types in fields:
        kinds.setdefault(name, sql_type(common_type(types)) or "VARCHAR")
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
