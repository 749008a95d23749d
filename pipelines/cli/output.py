"""A query's result as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.terminal import Writable
from storage.catalog.query import JSON_FIELD
from storage.labels.batches import no_formula


def write_csv(table: pa.Table, stream: Writable, *, spreadsheet: bool = False) -> None:
    """Write a header and a line for each row; lists and structs as JSON, NULL as an empty cell.

    Args:
        spreadsheet: put an apostrophe before a text that a spreadsheet would take for a formula.
    """
    writer = csv.writer(_Lines(stream), lineterminator="\r\n")
    cell: Callable[[Any], Any] = no_formula if spreadsheet else lambda value: value
    writer.writerow(map(cell, table.column_names))
    for batch in table.to_batches():
        # By column, not as dicts: two columns of a query may have the same name.
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            writer.writerow("" if value is None else cell(_plain(value)) for value in row)


def write_json_lines(table: pa.Table, stream: Writable) -> None:
    """Write a JSON object on each line; JSON columns as what they hold. NaN and infinities, which JSON lacks, become null."""
    nested = [field.name for field in table.schema if field.metadata == JSON_FIELD]
    for batch in table.to_batches():
        for row in batch.to_pylist():
            row |= {name: json.loads(row[name]) for name in nested if row[name] is not None}
            stream.write(json_text(row) + "\n")


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    pq.write_table(table, path, compression="zstd")


def _plain(value: Any) -> Any:
    return json_text(value) if isinstance(value, list | dict) else value


class _Lines:
    r"""Ends lines in `\n`. The writer quotes a cell that holds a part of its line ending, so it must have `\r` in it."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def write(self, line: str, /) -> int:
        return self._stream.write(line.removesuffix("\r\n") + "\n")


def json_text(value: Any) -> str:
    """A value as JSON in one line; NaN and infinities, which JSON lacks, become null."""
    return json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
