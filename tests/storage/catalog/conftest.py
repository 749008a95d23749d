from __future__ import annotations

from typing import Any

from storage.catalog.query import open_catalog
from storage.store import Store


def rows(store: Store, sql: str, params: Any = None) -> list[tuple[Any, ...]]:
    with open_catalog(store) as connection:
        return connection.execute(sql, params).fetchall()


def everything(store: Store) -> dict[str, list[Any]]:
    """All rows of all relations, and all definitions and comments."""
    with open_catalog(store) as connection:
        relations = connection.execute(
            "SELECT table_name FROM duckdb_tables() UNION ALL SELECT view_name FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        held = {name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for (name,) in relations}
        held[""] = connection.execute(
            "SELECT view_name, sql, comment FROM duckdb_views() WHERE NOT internal UNION ALL "
            "SELECT table_name || '.' || column_name, data_type, comment FROM duckdb_columns() WHERE NOT internal "
            "ORDER BY ALL"
        ).fetchall()
    return held
