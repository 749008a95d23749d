"""Parquet and .npy files of users: opened, with what later work would trip over refused in words."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.types import Array

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def parquet_file(file: BinaryIO) -> pq.ParquetFile:
    """An open Parquet file whose columns each have a name of their own.

    Raises:
        ValueError: it is none; the message is the cause.
    """
    try:
        parquet = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"is not a Parquet file: {error}") from error
    names = parquet.schema_arrow.names
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"has several columns called {', '.join(map(repr, twice))}; a name must stand for one")
    if "" in names:
        raise ValueError("has a column without a name")
    return parquet


def read_parquet(file: BinaryIO) -> pa.Table:
    """A Parquet file in memory, all text in it UTF-8.

    Raises:
        ValueError: it is none; the message is the cause.
    """
    try:
        table = parquet_file(file).read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot be read: {error}") from error
    for name, column in zip(table.column_names, table.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{name!r}{_first_undecodable(column)}: {error}") from None
    return table


def mapped(file: BinaryIO) -> Array:
    """The array of an open .npy file, memory-mapped; it holds no Python objects.

    Raises:
        ValueError: it is none; the message is the cause.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"its format is version {version}")
        shape, fortran, kind = _HEADERS[version](file)
        if kind.hasobject:
            raise ValueError("it holds Python objects")
        if not all(type(length) is int and length >= 0 for length in shape):
            raise ValueError(f"its header says that its shape is {shape}")
        if 0 in shape:
            return np.empty(shape, kind)
        return np.memmap(file, kind, "r", file.tell(), shape, "F" if fortran else "C")
    except (OSError, EOFError, OverflowError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def _first_undecodable(column: pa.ChunkedArray) -> str:
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return ""
    binary = pa.large_binary() if pa.types.is_large_string(kind) else pa.binary()
    for row, value in enumerate((v for chunk in column.chunks for v in chunk.view(binary).to_pylist()), start=1):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            return f" of row {row:,} is not UTF-8 text ({value[:20]!r})"
    return ""
