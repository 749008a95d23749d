"""A query's result as CSV, JSON lines or Parquet."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq


def write_csv(table: pa.Table, stream: TextIO) -> None:
    """Write a header and a line for each row; lists and structs as JSON, NULL as an empty cell."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    for batch in table.to_batches():
        # By column, not as dicts: two columns of a query may have the same name.
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            writer.writerow("" if value is None else _plain(value) for value in row)


def write_json_lines(table: pa.Table, stream: TextIO) -> None:
    """Write a JSON object on each line; NaN and infinities, which JSON lacks, become null."""
    for batch in table.to_batches():
        stream.writelines(_json(row) + "\n" for row in batch.to_pylist())


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    pq.write_table(table, path, compression="zstd")


def _plain(value: Any) -> Any:
    return _json(value) if isinstance(value, list | dict) else value


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, default=str, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
