"""The 16-byte id of a candidate, as arrays.

In memory an id is numpy `S16`: numpy compares it as 16 bytes, so sorting and searching are exact (both sides are padded
to 16, so that numpy's dropping of trailing zero bytes never makes two ids equal). In Parquet and DuckDB it is a UUID.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ids = npt.NDArray[np.bytes_]

ID_BYTES = 16
_DTYPE = np.dtype("S16")


def from_bytes(values: Iterable[bytes]) -> Ids:
    """Ids from 16-byte strings."""
    return np.frombuffer(b"".join(values), dtype=_DTYPE)


def to_bytes(ids: Ids) -> list[bytes]:
    """The 16-byte strings of ids. Not `ids.tolist()`: numpy drops zero bytes at the end.

    >>> to_bytes(from_bytes([bytes(16)])) == [bytes(16)]
    True
    """
    raw = np.ascontiguousarray(ids, dtype=_DTYPE).tobytes()
    return [raw[i : i + ID_BYTES] for i in range(0, len(raw), ID_BYTES)]


def from_arrow(column: pa.Array | pa.ChunkedArray) -> Ids:
    """Ids from an Arrow column of 16-byte values: UUID, fixed-size binary or binary; nulls are not allowed.

    >>> from_arrow(pa.array([b"0123456789abcdef"], pa.binary(16)))
    array([b'0123456789abcdef'], dtype='|S16')
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    fixed = column.cast(pa.binary(ID_BYTES))
    return np.frombuffer(fixed.buffers()[1], dtype=_DTYPE)[fixed.offset : fixed.offset + len(fixed)]


def to_arrow(ids: Ids) -> pa.Array:
    """Ids as an Arrow UUID column, which Parquet and DuckDB keep as UUID; no copy."""
    data = pa.py_buffer(np.ascontiguousarray(ids, dtype=_DTYPE))
    storage = pa.Array.from_buffers(pa.binary(ID_BYTES), len(ids), [None, data])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def to_text(ids: Ids) -> list[str]:
    """Ids as DuckDB prints them.

    >>> to_text(from_bytes([bytes(16)]))
    ['00000000-0000-0000-0000-000000000000']
    """
    return [str(uuid.UUID(bytes=value)) for value in to_bytes(ids)]


def from_text(values: Iterable[str]) -> Ids:
    """Ids from their printed form.

    Raises:
        ValueError: a value is not a UUID.
    """
    return from_bytes(uuid.UUID(value).bytes for value in values)


def id_of_text(text: str) -> bytes | None:
    """The 16 bytes of one printed id; None for a text that is no UUID."""
    try:
        return uuid.UUID(text).bytes
    except ValueError:
        return None


def hash_keys(ids: Ids) -> npt.NDArray[np.uint64]:
    """(n,) uint64, the first eight bytes of each id: what feeds hash noise."""
    return np.ascontiguousarray(ids, dtype=_DTYPE).view(">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def unique_ids(ids: Ids) -> Ids:
    """The ids in ascending order, each once; the array itself if it is that already.

    Cost: a comparison of neighbours, or a sort; `np.unique` hashes, which takes ten times as long.

    >>> unique_ids(from_bytes([b"b" * 16, b"a" * 16, b"b" * 16]))
    array([b'aaaaaaaaaaaaaaaa', b'bbbbbbbbbbbbbbbb'], dtype='|S16')
    """
    if not (ids[:-1] < ids[1:]).all():
        ids = np.sort(ids)
        ids = ids[np.concatenate([[True], ids[:-1] < ids[1:]])]
    return ids


def rows_of(ids: Ids, sorted_ids: Ids) -> npt.NDArray[np.int64]:
    """The row of each id in a sorted array of unique ids; -1 where it is not there.

    Cost: len(ids) * log(len(sorted_ids)) comparisons; 0.2 s for a million among a million.
    """
    if len(sorted_ids) == 0:
        return np.full(len(ids), -1, np.int64)
    # In ascending order the places that a search looks at are still in a cache from the one before.
    order = np.argsort(hash_keys(ids))
    rows = np.empty(len(ids), np.int64)
    rows[order] = np.searchsorted(sorted_ids, ids[order])
    rows[rows == len(sorted_ids)] = 0
    return np.where(sorted_ids[rows] == ids, rows, -1)
