"""Which row a name means: the one rule, for labels, lists of ids, columns, vectors and probabilities.

A name is winnow's id of a row (a UUID, in any spelling), or else the id that the row had in its own file. Winnow's id
goes first: it is printed as that row's name and is the same for ever, so a row that was exported with it, edited and
put back as a new row does not take it over. An own id that several rows have names none of them. In a field that is
called `winnow_id`, a name is winnow's id and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from selection.types import Mask, Rows
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, from_bytes, id_of_text, rows_of, to_text, unique_ids

# The field of winnow's own files that holds winnow's id.
WINNOW_ID = "winnow_id"
# As printed, without dashes, in braces, and as an URN.
_UUID_LENGTHS = frozenset({32, 36, 38, 45})


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
        counts: (k,) int64, how many rows each key names.
        shadowed: (k,) bool, keys that are winnow's id of one row, which they name, and the own id of another.
    """

    keys: list[str]
    rows: Rows
    counts: Rows
    shadowed: Mask

    @property
    def ambiguous(self) -> Mask:
        """(k,) bool, keys that name several rows."""
        return np.asarray(self.counts > 1)

    @property
    def unknown(self) -> Mask:
        """(k,) bool, keys that name no row."""
        return np.asarray(self.counts == 0)

    def first(self) -> tuple[Rows, Rows]:
        """The rows that keys name, ascending, each once; and the position of the first key of each."""
        named = np.flatnonzero(self.rows >= 0)
        rows, first = np.unique(self.rows[named], return_index=True)
        return rows, named[first]

    def examples(self, chosen: Mask, count: int) -> list[str]:
        """The first few of the chosen keys."""
        return [self.keys[i] for i in np.flatnonzero(chosen)[:count].tolist()]


def match_keys(
    keys: list[str], ids: Ids, given_ids: pa.ChunkedArray, rows: Rows, *, only_winnow: Mask | bool = False
) -> KeyMatch:
    """The row that each key names.

    Args:
        keys: winnow ids as text, or ids that rows had in their files; the former first.
        ids: (n,) ascending.
        given_ids: (occurrences,) the id that each occurrence had in its file, null for none.
        rows: (occurrences,) its row.
        only_winnow: (k,) or of all, the keys that own ids do not count for: those of a field called `WINNOW_ID`.

    Cost: one pass over the rows' own ids.
    """
    by_id = winnow_rows(keys, ids)
    own, counts = _match_given(keys, given_ids, rows)
    own, counts = np.where(only_winnow, -1, own), np.where(only_winnow, 0, counts)
    is_id = by_id >= 0
    shadowed = is_id & (counts > 0) & (own != by_id)
    return KeyMatch(keys, np.where(is_id, by_id, own), np.where(is_id, 1, counts), shadowed)


def match_source(keys: list[str], source: KeyedRows, *, only_winnow: Mask | bool = False) -> KeyMatch:
    """The row that each key names, as its position among the source's unique ids in ascending order."""
    ids = unique_ids(source.ids)
    occurrences, given_ids = source.occurrence_keys()
    return match_keys(keys, ids, given_ids, rows_of(occurrences, ids), only_winnow=only_winnow)


def winnow_rows(keys: Sequence[str], ids: Ids) -> Rows:
    """(k,) the row of which each key is winnow's id, -1 for none; own ids do not count."""
    as_id = {i: id_ for i, key in enumerate(keys) if len(key) in _UUID_LENGTHS and (id_ := id_of_text(key))}
    rows = np.full(len(keys), -1, np.int64)
    rows[list(as_id)] = rows_of(from_bytes(as_id.values()), ids)
    return rows


def key_texts(column: pa.ChunkedArray, id_field: str, where: str) -> pa.Array:
    """A column of keys as text; UUIDs as they are printed.

    Args:
        where: the beginning of a message.

    Raises:
        BadInput: a row has no key, or the column is neither UUID, text nor integer.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = column.combine_chunks()
    kind = column.type
    if column.null_count:
        raise BadInput(f"{where}: {column.null_count} rows have no {id_field!r}")
    if kind == pa.uuid() or pa.types.is_fixed_size_binary(kind) or kind in (pa.binary(), pa.large_binary()):
        try:
            return pa.array(to_text(from_arrow(column)), pa.string())
        except pa.ArrowInvalid:
            raise BadInput(f"{where}: {id_field!r} is binary, but not of the 16 bytes of a winnow id") from None
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{where}: {id_field!r} holds what is not UTF-8 text: {error}") from None
    if pa.types.is_integer(kind) or kind in (pa.string(), pa.large_string(), pa.string_view()):
        return column.cast(pa.string())
    raise BadInput(f"{where}: {id_field!r} must be UUID, text or integer, got {kind}")


def _match_given(keys: Sequence[str], given_ids: pa.ChunkedArray, rows: Rows) -> tuple[Rows, Rows]:
    """The row that has each key as its own id, -1 for none or several; and how many rows have it."""
    import polars as pl

    wanted = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String)})
    pool = pl.DataFrame({"key": pl.Series(given_ids, dtype=pl.String), "row": rows}).drop_nulls()
    by_key = (
        pool.join(wanted.unique(), on="key", how="semi")
        .group_by("key")
        .agg(pl.col("row").min(), pl.col("row").n_unique().cast(pl.Int64).alias("count"))
    )
    joined = wanted.join(by_key, on="key", how="left", maintain_order="left")
    counts = joined["count"].fill_null(0).to_numpy()
    return np.where(counts == 1, joined["row"].fill_null(-1).to_numpy(), -1), counts
