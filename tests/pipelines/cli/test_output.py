"""Results as CSV, JSON lines and Parquet."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import uuid
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.cli.output import write_csv, write_json_lines, write_parquet


def table(query: str) -> pa.Table:
    with duckdb.connect() as connection:
        return connection.sql(query).to_arrow_table()


def as_csv(found: pa.Table) -> list[list[str]]:
    stream = io.StringIO()
    write_csv(found, stream)
    return list(csv.reader(io.StringIO(stream.getvalue(), newline="")))


def as_objects(found: pa.Table) -> list[dict]:
    stream = io.StringIO()
    write_json_lines(found, stream)
    # What JSON has not, as NaN, is refused.
    return [json.loads(line, parse_constant=lambda name: 1 / 0) for line in stream.getvalue().splitlines()]


def test_write_csv__texts_lists_nulls_and_dates() -> None:
    found = table(
        "SELECT 'a,\"b\"\nc' AS t, [1, NULL] AS l, {'k': 'ü'} AS s, NULL AS n, DATE '2024-01-02' AS d, "
        "'00000000-0000-0000-0000-00000000000a'::UUID AS u, 0.5::FLOAT AS f"
    )
    assert as_csv(found) == [
        ["t", "l", "s", "n", "d", "u", "f"],
        ['a,"b"\nc', "[1, null]", '{"k": "ü"}', "", "2024-01-02", str(uuid.UUID(int=10)), "0.5"],
    ]


def test_write_csv__a_carriage_return_does_not_end_a_line() -> None:
    assert as_csv(table("SELECT 'a' || chr(13) || 'b' AS t, chr(13) AS r")) == [["t", "r"], ["a\rb", "\r"]]


def test_write_csv__two_columns_of_one_name_are_both_there() -> None:
    assert as_csv(table("SELECT 1 AS a, 2 AS a")) == [["a", "a"], ["1", "2"]]


def test_write_csv__no_rows_is_the_header() -> None:
    assert as_csv(table("SELECT 1 AS a WHERE false")) == [["a"]]


def test_write_json_lines__is_json_whatever_the_values() -> None:
    found = table(
        "SELECT 'nan'::DOUBLE AS x, [1.5, '-inf'::DOUBLE] AS l, {'k': 'nan'::FLOAT} AS s, TIMESTAMP '2024-01-02' AS t, "
        "'00000000-0000-0000-0000-00000000000a'::UUID AS u, 'ü' AS text"
    )
    assert as_objects(found) == [
        {
            "x": None,
            "l": [1.5, None],
            "s": {"k": None},
            "t": str(dt.datetime(2024, 1, 2)),  # noqa: DTZ001 - as the database gives it
            "u": str(uuid.UUID(int=10)),
            "text": "ü",
        }
    ]


def test_write_parquet__is_the_table(tmp_path: Path) -> None:
    found = table("SELECT range AS n, range::VARCHAR AS t FROM range(5)")
    write_parquet(found, tmp_path / "o.parquet")
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == found.to_pylist()
