"""Every relation of the schema exists in an empty catalog and is commented."""

from __future__ import annotations

from typing import Any

from storage.catalog import schema
from storage.catalog.publish import publish_catalog
from storage.store import Store
from tests.storage.catalog.conftest import everything, rows

LISTED = [
    "pools",
    "ingests",
    "snapshots",
    "snapshot_files",
    "encoders",
    "embeddings",
    "indexes",
    "targets",
    "examples",
    "duplicates",
    "tombstones",
    "quarantine",
    "selections",
    "selection_items",
    "selected_examples",
    "latest_selections",
    "labels",
    "annotators",
    "label_conflicts",
    "adjudication",
    "label_quarantine",
    "label_imports",
    "label_events",
    "consensus",
    "models",
    "rounds",
    "round_items",
    "round_records",
    "metrics",
    "runs",
    "schema_version",
]


def test_publish__empty_store_has_every_relation_with_no_rows(store: Store) -> None:
    publish_catalog(store)
    held = everything(store)
    assert set(LISTED) <= set(held)
    assert [name for name, contents in held.items() if contents and name not in ("", "schema_version")] == []
    assert held["schema_version"] == [(len(schema.STEPS),)]


def test_publish__every_relation_column_and_macro_has_a_comment(full_store: Any) -> None:
    publish_catalog(full_store)
    bare = rows(
        full_store,
        "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL UNION ALL "
        "SELECT view_name FROM duckdb_views() WHERE comment IS NULL AND NOT internal UNION ALL "
        "SELECT table_name || '.' || column_name FROM duckdb_columns() WHERE comment IS NULL AND NOT internal UNION ALL "
        "SELECT function_name FROM duckdb_functions() WHERE comment IS NULL AND NOT internal",
    )
    assert bare == []


def test_publish__only_the_users_own_fields_have_the_general_comment(full_store: Any) -> None:
    publish_catalog(full_store)
    general = rows(
        full_store, "SELECT DISTINCT column_name FROM duckdb_columns() WHERE comment LIKE 'A field of the pool%'"
    )
    assert general == [("year",)]
