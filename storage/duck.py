"""DuckDB as a part of a program rather than a shell."""

from __future__ import annotations

from pathlib import Path

import duckdb


def connect(path: Path | str = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection that prints nothing: a statement of more than two seconds would draw a bar in a command's output.

    Raises:
        duckdb.Error: the file cannot be opened.
    """
    connection = duckdb.connect(str(path), read_only=read_only)
    connection.execute("SET enable_progress_bar = false")
    return connection
