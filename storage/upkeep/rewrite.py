"""Committed records without some rows: for each kind of record folder, how it is written anew.

A record is written beside its place and takes it at once, under its old name: what names it still finds it. Whoever
rewrites holds the store alone, since a snapshot and its files fit each other only when all of it is done. Doing it
again changes nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection.types import Array, Mask
from storage.checksums import FILE as CHECKSUMS
from storage.damage import KINDS, read_record
from storage.ids import Ids, from_arrow, rows_of, to_text
from storage.packs import RECORDS, Pack, is_packed
from storage.pool.ingest import FORGOTTEN, parts, read_ingest, table_writer
from storage.store import Store, read_array, read_json, write_json
from storage.upkeep.compact import in_folder
from storage.vectors.index_parts import PARTS
from storage.vectors.segments import ARRAYS, array_checksum

GONE = "(forgotten)"
# Columns in which a record quotes a row or what was said of it.
_QUOTING = frozenset({"excerpt", "cause", "reason", "text", "comment", "key"})

Write = Callable[[Path], object]
# Name -> how it is written; of no file, nothing changes; None, the record is removed.
Files = Mapping[str, Write] | None


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that go.

    Attributes:
        ids: (n,) ascending.
        beginnings: how their texts begin: a quote that holds one is removed, also if it is of another row.
        given_ids: the ids that they had in their own files.
    """

    ids: Ids
    beginnings: tuple[str, ...] = ()
    given_ids: frozenset[str] = frozenset()

    def are(self, ids: Ids) -> Mask:
        """(m,) which of some ids are among the rows."""
        return np.asarray(rows_of(np.asarray(ids), self.ids) >= 0)

    @cached_property
    def names(self) -> frozenset[str]:
        """Their ids as they are printed."""
        return frozenset(to_text(self.ids))

    @cached_property
    def quotes(self) -> list[str]:
        """What no quote may hold: ids as printed, beginnings of texts, also as JSON writes them."""
        return [*self.names, *dict.fromkeys(form for text in self.beginnings for form in json_forms(text))]

    def quoted_in(self, texts: list[str] | pa.ChunkedArray | pa.Array) -> Mask:
        """(m,) which of some texts quote one."""
        return contains(texts, self.quotes)


def contains(texts: list[str] | pa.ChunkedArray | pa.Array, patterns: list[str]) -> Mask:
    """(m,) which texts hold one of the patterns, letter for letter; null holds none."""
    series = pl.Series(texts, dtype=pl.String)
    if not patterns or not len(series):
        return np.zeros(len(series), np.bool_)
    return series.str.contains_any(patterns).fill_null(value=False).to_numpy()


def json_forms(text: str) -> list[str]:
    """A text, and how it stands within JSON: with and without escapes of what is not ASCII."""
    forms = [text, *(json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))]
    return list(dict.fromkeys(forms))


def records_with(store: Store, rows: Rows) -> Iterator[tuple[str, Path]]:
    """Kind and folder of each committed record that holds a row, or quotes one.

    Cost: reads all records.
    """
    # The lines of rows are read from the pool, so what needs them comes first.
    for kind in ("quarantine", *(kind for kind in KINDS if kind != "quarantine")):
        holding = {pack.folder for pack in store.packs.of(kind) if _in_pack(pack, rows)}
        for folder in KINDS[kind].folders(store):
            if is_packed(folder) and folder.parent not in holding:
                continue
            with in_folder(store, folder) as readable:
                holds = _files(store, kind, readable, rows) != {}
            if holds:
                yield kind, folder


def packs_with(store: Store, rows: Rows) -> Iterator[Pack]:
    """The packs of which a record holds a row, or quotes one.

    Cost: reads them.
    """
    return (pack for kind in KINDS for pack in store.packs.of(kind) if _in_pack(pack, rows))


def _in_pack(pack: Pack, rows: Rows) -> bool:
    """Whether a record of a pack holds a row, or quotes one."""
    text = pack.folder.joinpath(RECORDS).read_text("utf-8")
    return bool(_tables(pack.folder, rows)) or bool(rows.quoted_in([text]).any())


def rewrite(store: Store, kind: str, folder: Path, rows: Rows) -> None:
    """Write one committed record, which has a folder of its own, without some rows; one that can be made again is removed."""
    files = _files(store, kind, folder, rows)
    if files is None:
        with store.scratch(folder.name) as away:
            folder.rename(away / "removed")
        return
    with store.replacing(*folder.relative_to(store.root).parts) as new:
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            if path.is_dir():
                (new / name).mkdir()
            elif name not in files and path.name != CHECKSUMS:
                shutil.copy2(path, new / name)
        for name, write in files.items():
            write(new / name)


def _files(store: Store, kind: str, folder: Path, rows: Rows) -> Files:
    return _SPECIAL.get(kind, _plain)(store, folder, rows)


# ---- the files of a record that change


def _plain(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001 - as the others
    """Tables without the rows, and JSON without quotes of them."""
    return {**_tables(folder, rows), **_documents(folder, rows, {})}


def _tables(folder: Path, rows: Rows) -> dict[str, Write]:
    files: dict[str, Write] = {}
    for path in sorted(folder.rglob("*.parquet")):
        table = pq.read_table(path)
        without = _without(table, rows)
        if without is not table:
            files[str(path.relative_to(folder))] = _as_table(without)
    return files


def _as_table(table: pa.Table) -> Write:
    return lambda path: pq.write_table(table, path, compression="zstd")


def _as_array(array: Array) -> Write:
    return lambda path: np.save(path, array, allow_pickle=False)


def _as_json(document: Any) -> Write:
    return lambda path: write_json(path, document)


def _without(table: pa.Table, rows: Rows) -> pa.Table:
    """A table without the rows, and with null for what quotes one; the same table if it holds none."""
    going = np.zeros(len(table), np.bool_)
    for name in table.column_names:
        if is_id(table.schema.field(name).type):
            going |= rows.are(ids_of(table[name]))
    if going.any():
        table = table.filter(pa.array(~going))
        if "rank" in table.column_names:
            ranks = pa.array(np.arange(1, len(table) + 1), table.schema.field("rank").type)
            table = table.set_column(table.column_names.index("rank"), table.schema.field("rank"), ranks)
    for number, field in enumerate(table.schema):
        if field.type == pa.string():
            patterns = rows.quotes if field.name in _QUOTING else [*rows.names]
            quoting = contains(table[field.name], patterns)
            if quoting.any():
                nothing = "" if field.name in ("excerpt", "key") else None
                table = table.set_column(
                    number, field, pc.if_else(pa.array(quoting), pa.scalar(nothing, pa.string()), table[field.name])
                )
    return table


def ids_of(column: pa.ChunkedArray) -> Ids:
    """The ids of a column; zeros for null."""
    array = column.combine_chunks()
    storage = (array.storage if isinstance(array, pa.ExtensionArray) else array).cast(pa.binary(16))
    return from_arrow(pc.coalesce(storage, pa.scalar(bytes(16), pa.binary(16))))


def is_id(kind: pa.DataType) -> bool:
    return bool(kind == pa.uuid() or kind == pa.binary(16))


def _documents(folder: Path, rows: Rows, more: Mapping[str, Any]) -> dict[str, Write]:
    """The JSON files of a folder without quotes of the rows, and with further keys in those named."""
    files: dict[str, Write] = {}
    for path in sorted(folder.glob("*.json")):
        if path.name == CHECKSUMS:
            continue
        document = read_json(path) if rows.quoted_in([path.read_text("utf-8")]).any() or path.name in more else None
        if document is not None:
            scrubbed = _scrubbed(document, rows)
            files[path.name] = _as_json(scrubbed | more[path.name] if path.name in more else scrubbed)
    return files


def _scrubbed(value: Any, rows: Rows) -> Any:
    """A JSON value without the ids of rows, and with `GONE` in the place of texts that quote them."""
    if isinstance(value, str):
        return GONE if rows.quoted_in([value]).any() else value
    if isinstance(value, list):
        return [_scrubbed(each, rows) for each in value if not (isinstance(each, str) and each in rows.names)]
    if isinstance(value, dict):
        return {key: _scrubbed(each, rows) for key, each in value.items() if key not in rows.names}
    return value


def _counted(file: str, key: str, table: str) -> Callable[[Store, Path, Rows], Files]:
    """Of records whose JSON says how many rows a table has."""

    def files(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001
        changed = _tables(folder, rows)
        document = read_json(folder / file)
        gone = int(rows.are(from_arrow(pq.read_table(folder / table, columns=["id"])["id"])).sum())
        more = {key: document[key] - gone, "forgotten": document.get("forgotten", 0) + gone} if gone else None
        return {**changed, **_documents(folder, rows, {file: more} if more else {})}

    return files


def _quarantine(store: Store, folder: Path, rows: Rows) -> Files:
    """The rows become ones that are refused: their lines without their text."""
    table = _without(pq.read_table(folder / "rows.parquet"), rows)
    known = set(table.filter(pc.equal(table["cause"], FORGOTTEN))["line"].to_pylist())
    lines: dict[int, str] = {}
    for path in parts(store, folder.name):
        pool = pq.read_table(path, columns=["id", "line", "file"])
        pool = pool.filter(pa.array(rows.are(from_arrow(pool["id"]))))
        lines |= dict(zip(pool["line"].to_pylist(), pool["file"].to_pylist(), strict=True))
    lines = {line: file for line, file in lines.items() if line not in known}
    new = [
        {"ingest": folder.name, "file": file, "line": line, "cause": FORGOTTEN, "excerpt": ""}
        for line, file in lines.items()
    ]
    if new:
        table = pa.concat_tables([table, pa.Table.from_pylist(new, table.schema)]).sort_by("line")
    elif table.equals(pq.read_table(folder / "rows.parquet")):
        return {}

    def write(path: Path) -> None:
        with table_writer(path, table.schema) as writer:
            writer.write_table(table)

    return {"rows.parquet": write}


def _pool(store: Store, folder: Path, rows: Rows) -> Files:
    gone = empty = 0
    files: dict[str, Write] = {}
    for path in parts(store, folder.name):
        table = pq.read_table(path, columns=["id", "empty_response"])
        going = rows.are(from_arrow(table["id"]))
        if going.any():
            gone += int(going.sum())
            empty += int(np.asarray(table["empty_response"].to_numpy(), np.bool_)[going].sum())
            files[path.name] = _pool_part(path, rows)
    if not files:
        return {}
    ingest = read_ingest(store, folder.name)
    changed = {
        "readable": ingest.readable - gone,
        "quarantined": ingest.quarantined + gone,
        "empty_responses": ingest.empty_responses - empty,
        "forgotten": ingest.forgotten + gone,
    }
    document = read_json(folder / "ingest.json") | changed
    return {**files, "ingest.json": _as_json(_scrubbed(document, rows))}


def _pool_part(source: Path, rows: Rows) -> Write:
    def write(path: Path) -> None:
        with pq.ParquetFile(source) as file, table_writer(path, file.schema_arrow) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                table = table.filter(pa.array(~rows.are(from_arrow(table["id"]))))
                if len(table):
                    writer.write_table(table, row_group_size=len(table))

    return write


def _snapshot(store: Store, folder: Path, rows: Rows) -> Files:
    files = _tables(folder, rows)
    ids, occurrences = read_array(folder / "ids.npy"), read_array(folder / "rows.npy")
    going = rows.are(ids)
    if not going.any():
        return files
    new_row = np.cumsum(~going) - 1
    row = np.where(occurrences < 0, ~occurrences, occurrences)
    stays = ~going[row]
    kept = new_row[row[stays]]
    files["ids.npy"] = _as_array(ids[~going])
    files["rows.npy"] = _as_array(np.where(occurrences[stays] < 0, ~kept, kept))
    for path in sorted(folder.glob("column_rows/*.npy")):
        matches = read_array(path)
        has_row = (matches >= 0) & ~going[np.maximum(matches, 0)]
        files[f"column_rows/{path.name}"] = _as_array(np.where(has_row, new_row[np.maximum(matches, 0)], -1))
    document = read_json(folder / "snapshot.json")
    counts, end = {name: dict(counts) for name, counts in document["counts"].items()}, 0
    for name in document["ingests"]:
        start, end = end, end + counts[name]["kept"] + counts[name]["duplicate"]
        gone = occurrences[start:end][~stays[start:end]]
        counts[name]["kept"] -= int((gone >= 0).sum())
        counts[name]["duplicate"] -= int((gone < 0).sum())
        counts[name]["quarantined"] += len(gone)
        if store.has("pool", name):  # rewritten before
            counts[name]["empty_responses"] = read_ingest(store, name).empty_responses
    changed = {
        "counts": counts,
        "rows": int((~going).sum()),
        "duplicates": document["duplicates"] - int(((occurrences < 0) & ~stays).sum()),
        "forgotten": document.get("forgotten", 0) + int(going.sum()),
    }
    return {**files, "snapshot.json": _as_json(document | changed)}


def _columns(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001
    """A user's columns keep a line for each key, since snapshots count them: without the key and its values."""
    table = pq.read_table(folder / "columns.parquet")
    named = pa.array([key in rows.given_ids or key.lower() in rows.names for key in table["key"].to_pylist()])
    if not pc.any(named).as_py():
        return {}
    for number, field in enumerate(table.schema):
        nothing = pa.scalar("" if field.name == "key" else None, field.type)
        table = table.set_column(number, field, pc.if_else(named, nothing, table[field.name]))
    return {"columns.parquet": _as_table(table)}


def _segment(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001
    arrays = {name: read_array(folder / name) for name in ARRAYS}
    going, lost = rows.are(arrays["keys.npy"]), rows.are(arrays["failed.npy"])
    if not going.any() and not lost.any():
        return {}
    if going.all() and lost.all():
        return None
    stays = {"vectors.npy": ~going, "keys.npy": ~going, "failed.npy": ~lost}
    kept = {name: np.ascontiguousarray(array[stays[name]]) for name, array in arrays.items()}
    changed = {
        "n_rows": len(kept["keys.npy"]),
        "n_failed": len(kept["failed.npy"]),
        "checksums": {name: array_checksum(array) for name, array in kept.items()},
    }
    document = _documents(folder, rows, {"segment.json": changed})
    return {**_tables(folder, rows), **{name: _as_array(array) for name, array in kept.items()}, **document}


def _keyed(*beside: str) -> Callable[[Store, Path, Rows], Files]:
    """Of records with an array of ids, the first, and arrays beside it, in the same order."""

    def files(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001
        going = rows.are(read_array(folder / beside[0]))
        if not going.any():
            return {}
        return {name: _as_array(read_array(folder / name)[~going]) for name in beside}

    return files


def _made_again(*ids: str) -> Callable[[Store, Path, Rows], Files]:
    """Of records that the next run makes again, or that can be: removed where they hold a row."""

    def files(store: Store, folder: Path, rows: Rows) -> Files:  # noqa: ARG001
        holds = any(rows.are(read_array(folder / name)).any() for name in ids)
        quotes = (path.read_text("utf-8") for path in folder.iterdir() if path.suffix in (".json", ".html"))
        return None if holds or _tables(folder, rows) or rows.quoted_in(list(quotes)).any() else {}

    return files


def _index(store: Store, folder: Path, rows: Rows) -> Files:
    """An index goes with any of its parts."""
    parts = read_record("indexes", folder).get("parts", [])
    if any(_gone(store.path(PARTS, part), rows) for part in parts):
        return None
    return _made_again(*(() if parts else ("keys.npy",)))(store, folder, rows)


def _gone(part: Path, rows: Rows) -> bool:
    return not part.is_dir() or bool(rows.are(read_array(part / "keys.npy")).any())


def _trial_plan(store: Store, folder: Path, rows: Rows) -> Files:
    """A trial that is not finished begins anew: its models would be measured on other examples."""
    files = _plain(store, folder, rows)
    return files if folder.with_name("effects").is_dir() or not files else None


def _trial_part(store: Store, folder: Path, rows: Rows) -> Files:
    return _plain(store, folder, rows) if folder.with_name("plan").is_dir() else None


_SPECIAL: Mapping[str, Callable[[Store, Path, Rows], Files]] = {
    "quarantine": _quarantine,
    "pool": _pool,
    "snapshots": _snapshot,
    "columns": _columns,
    "targets": _counted("targets.json", "rows", "items.parquet"),
    "selections": _counted("selection.json", "n_items", "items.parquet"),
    "rounds": _counted("round.json", "n_items", "items.parquet"),
    "segments": _segment,
    "tokens": _keyed("keys.npy", "counts.npy"),
    "shared": _keyed("keys.npy", "sources.npy"),
    "fits": _keyed("ids.npy"),
    "plans": _made_again("ids.npy"),
    "indexes": _index,
    PARTS: _made_again("keys.npy"),
    "reports": _made_again(),
    "trials": _trial_plan,
    **dict.fromkeys(("trial_cells", "trial_detectable"), _trial_part),
}
