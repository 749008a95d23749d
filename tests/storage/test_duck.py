from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import duck
from storage.duck import json_pointer, literal, quoted


def test_connect__draws_no_progress_bar() -> None:
    with duck.connect() as connection:
        assert connection.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]


def test_connect__a_file_for_reading_is_not_written(tmp_path: Path) -> None:
    with duck.connect(tmp_path / "a.duckdb") as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS x")
    with duck.connect(tmp_path / "a.duckdb", read_only=True) as connection:
        assert connection.sql("FROM t").fetchall() == [(1,)]
        with pytest.raises(duckdb.InvalidInputException, match="read-only"):
            connection.execute("CREATE TABLE u AS SELECT 1 AS x")


# DuckDB ends a text of SQL at a zero byte, and refuses half of a surrogate pair.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(texts, texts)
def test_names_and_texts__come_back_whatever_they_hold(name: str, text: str) -> None:
    with duck.connect() as connection:
        result = connection.sql(f"SELECT {literal(text)} AS {quoted(name)}")
        assert result.fetchall() == [(text,)]
        assert result.columns == [name]


@pytest.mark.parametrize("field", ["a", "a/b", "a~b", "~1", "a.b", "$", "", "it's"])
def test_json_pointer__names_any_field(field: str) -> None:
    with duck.connect() as connection:
        value = connection.execute("SELECT json_object(?, 1) ->> ?", [field, json_pointer(field)]).fetchall()
    assert value == [("1",)]
