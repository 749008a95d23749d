"""Columns that a user brings for rows of the pool: scores, tags, difficulties, keyed by id.

They lie beside the pool and never change a row or its id. A key is a winnow id (UUID text) or the id that the row had
in its file; keys meet rows when a snapshot is taken.

    records/columns/<digest>/   columns.json, columns.parquet (key, then one column each)
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage import ids as ids_
from storage.errors import BadInput, NotInStore
from storage.files.user_files import file_digest, opened
from storage.ids import Ids
from storage.pool.ingest import POOL_SCHEMA
from storage.records import digest_of
from storage.store import Store, read_json, utc_now, write_json

_UUID_CHARS = 36
_EXAMPLES = 5


@dataclass(frozen=True)
class Columns:
    """Committed columns.

    Attributes:
        types: column -> "number", "boolean" or "text".
        url: the file they came from.
    """

    path: Path
    types: dict[str, str]
    url: str

    def read(self, name: str) -> pa.ChunkedArray:
        """One column, in the order of the keys."""
        return pq.read_table(self.path, columns=[name])[name]

    def table(self) -> pa.Table:
        """All columns, without the keys."""
        return pq.read_table(self.path, columns=list(self.types))

    def match(
        self, ids: Ids, given: pa.ChunkedArray, rows: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], dict[str, Any]]:
        """The row of each key, -1 for none, and a report of the keys that met no row.

        Args:
            ids: (n,) the snapshot's ids.
            given: (occurrences,) the id each occurrence had in its file.
            rows: (occurrences,) its row.

        A key that names two rows, or two keys that name one, are ambiguous and set nothing.
        """
        keys = pq.read_table(self.path, columns=["key"])["key"].to_pylist()
        found, ambiguous = match_keys(keys, ids, given, rows)
        unknown = (found < 0) & ~ambiguous
        taken, times = np.unique(found[found >= 0], return_counts=True)
        ambiguous |= np.isin(found, taken[times > 1]) & (found >= 0)
        found[ambiguous] = -1
        return found, {
            "matched": int((found >= 0).sum()),
            "unknown": int(unknown.sum()),
            "unknown_examples": [keys[i] for i in np.flatnonzero(unknown)[:_EXAMPLES].tolist()],
            "ambiguous": int(ambiguous.sum()),
            "ambiguous_examples": [keys[i] for i in np.flatnonzero(ambiguous)[:_EXAMPLES].tolist()],
        }


def ingest_columns(store: Store, url: str, id_field: str = "id") -> str:
    """Take a user's columns into the store; the digest names them.

    Args:
        url: a Parquet file, or a .npy file holding a structured array; path or fsspec URL.
        id_field: its column of keys: UUID, text or integer. Every other column must be a number, a boolean or text.

    Raises:
        BadInput: the file cannot be read, lacks the keys, repeats one, or has a column of another type.
    """
    digest = columns_id(store, url, id_field)
    if store.has("records", "columns", digest):
        return digest
    with opened(store, url) as file:
        try:
            table = _from_npy(file) if url.endswith(".npy") else pq.read_table(file)
        except (pa.ArrowInvalid, ValueError, OSError) as error:
            raise BadInput(f"columns: {url} is not a Parquet file or a structured .npy array: {error}") from error
    keys = _keys(table, id_field, url)
    types = {name: _type(table.schema.field(name), url) for name in table.schema.names if name != id_field}
    reserved = sorted(set(types) & {*POOL_SCHEMA.names, "key"})
    if reserved or not types:
        what = f"{reserved[0]!r} is a column of the pool" if reserved else f"there is no column beside {id_field!r}"
        raise BadInput(f"columns: {url}: {what}; not allowed are {', '.join(POOL_SCHEMA.names)}, key")
    kept = [keys, *(_plain(table[name], kind) for name, kind in types.items())]
    with store.committing("records", "columns", digest) as folder:
        pq.write_table(pa.table(kept, names=["key", *types]), folder / "columns.parquet", compression="zstd")
        facts = {"digest": digest, "url": url, "id_field": id_field, "types": types, "rows": len(table)}
        write_json(folder / "columns.json", {**facts, "created_at": utc_now()})
    return digest


def columns_id(store: Store, url: str, id_field: str = "id") -> str:
    """What the columns of the file as it is now are or would be called; costs a digest pass."""
    with opened(store, url) as file:
        depends_on = {"digest": file_digest(file), "id_field": id_field}
    return digest_of(depends_on)


def read_columns(store: Store, digest: str) -> Columns:
    """Columns that were taken in.

    Raises:
        NotInStore: there are none of this digest.
    """
    if not store.has("records", "columns", digest):
        raise NotInStore(f"no columns {digest!r} in {store.root}")
    facts = read_json(store.path("records", "columns", digest, "columns.json"))
    return Columns(store.path("records", "columns", digest, "columns.parquet"), facts["types"], facts["url"])


def match_keys(
    keys: list[str], ids: Ids, given: pa.ChunkedArray, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The row of each key, -1 for none, and which keys name several rows.

    Args:
        keys: winnow ids as text, or ids that rows had in their files; the former first.
        ids: (n,) ascending.
        given: (occurrences,) the id each occurrence had in its file, null for none.
        rows: (occurrences,) its row.
    """
    found = np.full(len(keys), -1, np.int64)
    as_id = [i for i, key in enumerate(keys) if _is_uuid(key)]
    found[as_id] = ids_.rows_of(ids_.from_text(keys[i] for i in as_id), ids)
    ambiguous = np.zeros(len(keys), bool)
    missing = np.flatnonzero(found < 0)
    if len(missing):
        found[missing], ambiguous[missing] = _match_given([keys[i] for i in missing.tolist()], given, rows)
    return found, ambiguous


def key_texts(column: pa.ChunkedArray, id_field: str, where: str) -> pa.Array:
    """A column of keys as text; UUIDs as they are printed.

    Args:
        where: the beginning of a message.

    Raises:
        BadInput: a row has no key, or the column is neither UUID, text nor integer.
    """
    column = column.combine_chunks()
    kind = column.type
    if column.null_count:
        raise BadInput(f"{where}: {column.null_count} rows have no {id_field!r}")
    if kind == pa.uuid() or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary(kind):
        try:
            return pa.array(ids_.to_text(ids_.from_arrow(column)), pa.string())
        except pa.ArrowInvalid:
            raise BadInput(f"{where}: {id_field!r} is binary, but not of the 16 bytes of a winnow id") from None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    raise BadInput(f"{where}: {id_field!r} must be UUID, text or integer, got {kind}")


def _match_given(
    keys: list[str], given: pa.ChunkedArray, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    import polars as pl

    pool = pl.DataFrame({"key": pl.Series(given, dtype=pl.String), "row": rows}).drop_nulls()
    by_key = pool.group_by("key").agg(pl.col("row").min(), (pl.col("row").n_unique() > 1).alias("several"))
    met = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)}).join(
        by_key, on="key", how="left", maintain_order="left"
    )
    several = met["several"].fill_null(value=False).to_numpy()
    return np.where(several, -1, met["row"].fill_null(-1).to_numpy()), several


def _is_uuid(key: str) -> bool:
    if len(key) != _UUID_CHARS:
        return False
    try:
        uuid.UUID(key)
    except ValueError:
        return False
    return True


def _from_npy(file: Any) -> pa.Table:
    array = np.load(file, allow_pickle=False)
    if array.dtype.names is None:
        raise ValueError("its array has no named fields")
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


def _type(field: pa.Field, url: str) -> str:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    raise BadInput(f"columns: {url}: {field.name!r} must be a number, a boolean or text, got {kind}")


def _plain(column: pa.ChunkedArray, kind: str) -> pa.ChunkedArray:
    return column.cast({"number": pa.float64(), "boolean": pa.bool_(), "text": pa.string()}[kind])
