"""DuckDB as a part of a program rather than a shell: a quiet connection, and names and values in SQL text."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect(path: Path | str = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection that prints nothing: a statement of more than two seconds would draw a bar in a command's output.

    Raises:
        duckdb.Error: the file cannot be opened.
    """
    import duckdb  # 0.1 s, which a process that reads files has no use for

    connection = duckdb.connect(str(path), read_only=read_only)
    connection.execute("SET enable_progress_bar = false")
    return connection


def cursor() -> duckdb.DuckDBPyConnection:
    """A connection to a database that this process keeps in memory, for what leaves nothing behind in it.

    To open a database takes 25 ms.
    """
    return _kept(os.getpid()).cursor()


@cache
def _kept(_process: int) -> duckdb.DuckDBPyConnection:
    """A process that was forked has its own, since it has none of the threads of the other."""
    return connect()


def quoted(name: str) -> str:
    """A name as an SQL identifier.

    >>> print(quoted('5" disk'))
    "5"" disk"
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL literal, where SQL takes no bound value: a path, the definition of a view.

    >>> print(literal("it's"))
    'it''s'
    """
    return "'" + text.replace("'", "''") + "'"


def json_pointer(field: str) -> str:
    """A JSON pointer, which unlike a JSON path can name any field.

    >>> json_pointer("a/b~c")
    '/a~1b~0c'
    """
    return "/" + field.replace("~", "~0").replace("/", "~1")
