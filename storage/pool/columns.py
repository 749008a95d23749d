"""Columns of a user's file for rows of the pool: scores, tags, difficulties, keyed by id (see `keys`).

They lie beside the pool and never change a row or its id. Keys are matched to rows when a snapshot is taken.

    records/columns/<digest>/   columns.json, columns.parquet (key, then one column each)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection.types import Rows
from storage.checksums import verified
from storage.damage import committed_whole, read_record
from storage.errors import BadInput, NotInStore
from storage.files.tables import mapped, read_parquet
from storage.files.user_files import file_digest, unchanged
from storage.ids import Ids
from storage.pool.extra import common_type, type_of
from storage.pool.ingest import POOL_SCHEMA
from storage.pool.keys import WINNOW_ID, key_texts, match_keys
from storage.records import digest_of
from storage.store import Store, utc_now, write_json

_EXAMPLES = 5


@dataclass(frozen=True)
class Columns:
    """Committed columns.

    Attributes:
        types: column -> its type, see `extra`.
        url: the file they came from.
        id_field: the name of its keys.
    """

    path: Path
    types: dict[str, str]
    url: str
    id_field: str

    def read(self, name: str) -> pa.ChunkedArray:
        """One column, in the order of the keys."""
        return pq.read_table(verified(self.path), columns=[name])[name]

    def table(self) -> pa.Table:
        """All columns, without the keys."""
        return pq.read_table(verified(self.path), columns=list(self.types))

    def match(self, ids: Ids, given_ids: pa.ChunkedArray, rows: Rows) -> tuple[Rows, dict[str, Any]]:
        """The row of each key, -1 for none, and a report of the keys that name no row or are ambiguous.

        Args:
            ids: (n,) the snapshot's ids.
            given_ids: (occurrences,) the id each occurrence had in its file.
            rows: (occurrences,) its row.

        A key that names two rows, or two keys that name one, are ambiguous and set nothing.
        """
        keys = pq.read_table(verified(self.path), columns=["key"])["key"].to_pylist()
        match = match_keys(keys, ids, given_ids, rows, only_winnow=self.id_field == WINNOW_ID)
        unknown = match.unknown
        named, times = np.unique(match.rows[match.rows >= 0], return_counts=True)
        ambiguous = match.ambiguous | np.isin(match.rows, named[times > 1])
        matches = np.where(ambiguous, -1, match.rows)
        return matches, {
            "matched": int((matches >= 0).sum()),
            "unknown": int(unknown.sum()),
            "unknown_examples": match.examples(unknown, _EXAMPLES),
            "ambiguous": int(ambiguous.sum()),
            "ambiguous_examples": match.examples(ambiguous, _EXAMPLES),
            **({"shadowed_examples": match.examples(match.shadowed, _EXAMPLES)} if match.shadowed.any() else {}),
        }


def ingest_columns(store: Store, url: str, id_field: str = "id") -> str:
    """Take a user's columns into the store; the digest names them.

    Args:
        url: a Parquet file, or a .npy file holding a structured array; path or fsspec URL.
        id_field: its column of keys: UUID, text or integer. Every other column must be a number, a boolean or text.

    Raises:
        BadInput: the file cannot be read, lacks the keys, repeats one, or has a column of another type.
    """
    with unchanged(store, url) as (file, _):
        digest = _digest_of(file, id_field)
        if committed_whole(store, "columns", digest):
            return digest
        try:
            table = _from_npy(file) if url.endswith(".npy") else read_parquet(file)
        except ValueError as error:
            raise BadInput(f"columns: {url} {error}") from error
    keys = _keys(table, id_field, url)
    types = {name: _type(name, table[name], url) for name in table.schema.names if name != id_field}
    reserved = sorted(set(types) & {*POOL_SCHEMA.names, "key"})
    if reserved or not types:
        problem = f"{reserved[0]!r} is a column of the pool" if reserved else f"there is no column beside {id_field!r}"
        raise BadInput(f"columns: {url}: {problem}; not allowed are {', '.join(POOL_SCHEMA.names)}, key")
    kept = [keys, *(_stored(table[name], kind) for name, kind in types.items())]
    with store.committing("records", "columns", digest) as folder:
        pq.write_table(pa.table(kept, names=["key", *types]), folder / "columns.parquet", compression="zstd")
        header = {"digest": digest, "url": url, "id_field": id_field, "types": types, "rows": len(table)}
        write_json(folder / "columns.json", {**header, "created_at": utc_now()})
    return digest


def columns_id(store: Store, url: str, id_field: str = "id") -> str:
    """The digest that names the columns of the file's present content, committed or not; costs a digest pass."""
    with unchanged(store, url) as (file, _):
        return _digest_of(file, id_field)


def _digest_of(file: BinaryIO, id_field: str) -> str:
    return digest_of({"digest": file_digest(file), "id_field": id_field})


def read_columns(store: Store, digest: str) -> Columns:
    """Committed columns.

    Raises:
        NotInStore: there are none of this digest.
    """
    if not store.has("records", "columns", digest):
        raise NotInStore(f"no columns {digest!r} in {store.root}")
    header = read_record("columns", store.path("records", "columns", digest))
    path = store.path("records", "columns", digest, "columns.parquet")
    return Columns(path, header["types"], header["url"], header["id_field"])


def _from_npy(file: Any) -> pa.Table:
    try:
        array = mapped(file)
    except ValueError as error:
        raise ValueError(f"is not an .npy array: {error}") from error
    if array.dtype.names is None:
        raise ValueError("is an array without named fields")
    return pa.table({name: np.ascontiguousarray(array[name]) for name in array.dtype.names})


def _keys(table: pa.Table, id_field: str, url: str) -> pa.Array:
    if id_field not in table.schema.names:
        raise BadInput(f"columns: {url} has no column {id_field!r} to key by; it has {', '.join(table.schema.names)}")
    column = key_texts(table[id_field], id_field, f"columns: {url}")
    counts = column.value_counts()
    if len(counts) < len(column):
        twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise BadInput(f"columns: {url}: key {twice!r} stands there more than once")
    return column


def _type(name: str, column: pa.ChunkedArray, url: str) -> str:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        ends = pc.min_max(column.cast(kind)).as_py().values()
        return common_type("integer" if end is None else type_of(end) for end in ends)
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.scale})" if kind.precision <= 15 and kind.scale >= 0 else "text"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    raise BadInput(f"columns: {url}: {name!r} must be a number, a boolean or text, got {kind}")


_STORED = {
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "text": pa.string(),
    "integer": pa.int64(),
    "bigint": pa.int64(),
    "hugeint": pa.decimal128(38, 0),
}


def _stored(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    return column if kind.startswith("decimal(") else column.cast(_STORED[kind])
