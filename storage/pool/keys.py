"""Keys of a user's file -> rows: a key is a winnow id (UUID text) or the id that a row had in its own file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from selection.types import Mask, Rows
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, from_bytes, id_of_text, rows_of, to_text

_UUID_CHARS = 36


class KeyedRows(Protocol):
    """Rows that keys may name: a snapshot of the pool, a target set."""

    @property
    def name(self) -> str: ...

    @property
    def ids(self) -> Ids: ...

    def occurrence_keys(self) -> tuple[Ids, pa.ChunkedArray]:
        """The id of every occurrence, and the id that it had in its file, null for none."""
        ...


@dataclass(frozen=True)
class KeyMatch:
    """How keys meet rows.

    Attributes:
        keys: (k,) in the order of the file.
        rows: (k,) int64, the row that each key names; -1 for a key that names none or several.
        ambiguous: (k,) bool, keys that name several rows.
    """

    keys: list[str]
    rows: Rows
    ambiguous: Mask

    @property
    def unknown(self) -> Mask:
        """(k,) bool, keys that name no row."""
        return (self.rows < 0) & ~self.ambiguous

    def first(self) -> tuple[Rows, Rows]:
        """The rows that keys name, ascending, each once; and the position of the first key of each."""
        named = np.flatnonzero(self.rows >= 0)
        rows, first = np.unique(self.rows[named], return_index=True)
        return rows, named[first]

    def examples(self, chosen: Mask, count: int) -> list[str]:
        """The first few of the chosen keys."""
        return [self.keys[i] for i in np.flatnonzero(chosen)[:count].tolist()]


def match_keys(keys: list[str], ids: Ids, given_ids: pa.ChunkedArray, rows: Rows) -> KeyMatch:
    """The row that each key names.

    Args:
        keys: winnow ids as text, or ids that rows had in their files; the former first.
        ids: (n,) ascending.
        given_ids: (occurrences,) the id that each occurrence had in its file, null for none.
        rows: (occurrences,) its row.
    """
    matches = np.full(len(keys), -1, np.int64)
    as_id = {i: id_ for i, key in enumerate(keys) if len(key) == _UUID_CHARS and (id_ := id_of_text(key))}
    matches[list(as_id)] = rows_of(from_bytes(as_id.values()), ids)
    ambiguous = np.zeros(len(keys), bool)
    missing = np.flatnonzero(matches < 0)
    if len(missing):
        matches[missing], ambiguous[missing] = _match_given([keys[i] for i in missing.tolist()], given_ids, rows)
    return KeyMatch(keys, matches, ambiguous)


def match_source(keys: list[str], source: KeyedRows) -> KeyMatch:
    """The row that each key names, as its position among the source's unique ids in ascending order."""
    ids = np.unique(source.ids)
    occurrences, given_ids = source.occurrence_keys()
    return match_keys(keys, ids, given_ids, rows_of(occurrences, ids))


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
            return pa.array(to_text(from_arrow(column)), pa.string())
        except pa.ArrowInvalid:
            raise BadInput(f"{where}: {id_field!r} is binary, but not of the 16 bytes of a winnow id") from None
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string())
    raise BadInput(f"{where}: {id_field!r} must be UUID, text or integer, got {kind}")


def _match_given(keys: Sequence[str], given_ids: pa.ChunkedArray, rows: Rows) -> tuple[Rows, Mask]:
    import polars as pl

    pool = pl.DataFrame({"key": pl.Series(given_ids, dtype=pl.String), "row": rows}).drop_nulls()
    by_key = pool.group_by("key").agg(pl.col("row").min(), (pl.col("row").n_unique() > 1).alias("several"))
    joined = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)}).join(
        by_key, on="key", how="left", maintain_order="left"
    )
    several = joined["several"].fill_null(value=False).to_numpy()
    return np.where(several, -1, joined["row"].fill_null(-1).to_numpy()), several
