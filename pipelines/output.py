"""A query's result as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq


def write_csv(table: pa.Table, stream: TextIO) -> None:
    """Write a header and a line a row; a list or struct is written as JSON, NULL as nothing."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches():
        for row in batch.to_pylist():
            writer.writerow("" if value is None else _plain(value) for value in row.values())


def write_json_lines(table: pa.Table, stream: TextIO) -> None:
    """Write one JSON object a line."""
    for batch in table.to_batches():
        stream.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in batch.to_pylist())


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    pq.write_table(table, path, compression="zstd")


def _plain(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value
