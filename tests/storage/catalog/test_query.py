"""A catalog is read from any folder, and errors say what to do."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog, query_catalog
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.store import Store
from tests.storage.catalog.conftest import rows


def test_connect__nothing_published_says_what_to_do(store: Store) -> None:
    with pytest.raises(NotInStore, match="winnow run"):
        open_catalog(store)


def test_connect__a_damaged_file_says_what_to_do(full_store: Any) -> None:
    path = publish_catalog(full_store)
    path.chmod(0o644)
    path.write_text("no database")
    with pytest.raises(StoreDamaged, match=r"not a valid DuckDB .*\n.*winnow catalog rebuild"):
        query_catalog(full_store, "SELECT 1")
    rebuild_catalog(full_store)
    assert rows(full_store, "SELECT count(*) FROM examples") == [(5,)]


def test_connect__is_read_only(full_store: Any) -> None:
    publish_catalog(full_store)
    with open_catalog(full_store) as connection, pytest.raises(duckdb.Error, match="read-only"):
        connection.execute("CREATE TABLE mine AS SELECT 1")


def test_connect__from_any_working_folder(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_catalog(full_store)
    monkeypatch.chdir("/")
    assert rows(full_store, "SELECT count(*) FROM examples") == [(5,)]


def test_query__gives_arrow_with_ids_as_printed(full_store: Any) -> None:
    publish_catalog(full_store)
    table = query_catalog(
        full_store, "SELECT id, rank FROM selection_items WHERE selection_id = ? ORDER BY rank", ["s1"]
    )
    assert isinstance(table, pa.Table)
    assert table.num_rows == 3
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", table["id"][0].as_py())


def test_query__named_values(full_store: Any) -> None:
    publish_catalog(full_store)
    assert query_catalog(full_store, "SELECT $a + 1 AS x", {"a": 1}).to_pylist() == [{"x": 2}]


def test_query__unknown_table_lists_the_known_ones(full_store: Any) -> None:
    publish_catalog(full_store)
    with pytest.raises(BadInput, match=r"nope[^$]*The catalog has: .*examples.*selections"):
        query_catalog(full_store, "FROM nope")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT nope FROM runs", "nope"),
        ("SELECT 'x'::INT", "Could not convert"),
        ("", ""),
    ],
)
def test_query__duckdbs_error_is_the_users(full_store: Any, sql: str, message: str) -> None:
    publish_catalog(full_store)
    if message:
        with pytest.raises(BadInput, match=message):
            query_catalog(full_store, sql)
    else:
        assert query_catalog(full_store, sql).num_rows == 0


def test_connect__a_long_query_draws_no_bar_into_the_output(full_store: Any) -> None:
    publish_catalog(full_store)
    with open_catalog(full_store) as connection:
        assert connection.execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_query__a_file_that_is_gone_or_may_not_be_read(full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_catalog(full_store)
    for path in full_store.path("records", "selections").glob("*/items.parquet"):
        path.unlink()
    with pytest.raises(BadInput, match="If the store was moved"):
        query_catalog(full_store, "FROM selection_items")

    class Refused:
        def sql(self, *_: Any, **__: Any) -> Any:
            raise duckdb.IOException('IO Error: Cannot open file "items.parquet": Permission denied')

    monkeypatch.setattr("storage.catalog.query.open_catalog", lambda _: nullcontext(Refused()))
    with pytest.raises(BadInput, match="may not read the file") as refused:
        query_catalog(full_store, "FROM selection_items")
    assert "moved" not in str(refused.value)
