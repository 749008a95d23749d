from __future__ import annotations

import time

import duckdb
import pytest

from storage.pool.condition import not_of_the_row

OF_THE_ROW = [
    "source = 'wiki' and length(prompt) < 4000",
    "crawled::date between date '2026-01-01' and date '2026-02-01'",
    "extract(year from crawled::date) = 2026",
    "date_trunc('day', crawled::timestamptz) > '2026-01-01'",
    "crawled::timestamp + interval '3 days' > '2026-01-01'",
    "age(crawled::timestamp, changed::timestamp) < interval '1 day'",
    "date_add(crawled::date, interval 1 day) > '2026-01-01'",
    "strftime(crawled::timestamptz, '%Y') = '2026'",
    "hash(id) % 10 = 0 and md5(prompt) < '8'",
    "pi() > 3 and [] = tags and map() is not null",
    "score > (select avg(score) from examples)",
    "source in (with few as (select 'a' s) select s from few)",
    "exists (from examples e where e.prompt = response)",
    "source in (select unnest(['a', 'b']))",
    "contains(prompt, 'today') or prompt = 'now' or note = 'current_date'",
    "list_contains(string_split(tags, ','), 'b')",
    "e.user = 'anna' and user = 'anna' and \"current_date\" = 'x'",
    "now > 1 and random = 2 and today is null",
    "score > 1 -- now()",
    "(select count(*) from range(3)) = 3",
    "no_such_function(prompt)",
    " OR ".join(f"source = '{i}'" for i in range(2000)),
]

CHANGING = [
    ("crawled < current_date", "current_date"),
    ("é = 'ü' and crawled < CURRENT_TIMESTAMP", "CURRENT_TIMESTAMP"),
    ("localtime > '10:00'", "localtime"),
    ("current_user = 'anna'", "current_user"),
    ("now()::date > crawled::date", "now()"),
    ("today() > crawled::date", "today()"),
    ("RANDOM() < 0.5", "random()"),
    ("main.random() < 0.5", "random()"),
    ("score.random() < 0.5", "random()"),
    ("uuid() < id", "uuid()"),
    ("nextval('s') < 3", "nextval()"),
    ("getvariable('x') = 1", "getvariable()"),
    ("current_setting('TimeZone') = 'UTC'", "current_setting()"),
    ("txid_current() > 3", "txid_current()"),
    ("version() > 'v1'", "version()"),
    ("user() = 'anna'", "user()"),
    ("age(crawled::timestamp) < interval '3 days'", "age()"),
    ("ago(interval 3 days) < crawled::timestamptz", "ago()"),
    ("pg_postmaster_start_time() > crawled", "pg_postmaster_start_time()"),
    ("crawled::timestamp < 'now'::timestamp", "'now'"),
    ("crawled::date = date ' Today '", "' Today '"),
    ("crawled::date > try_cast('yesterday' as date)", "'yesterday'"),
    ("case when ok then coalesce(score, random()) end > 1", "random()"),
    ("list_filter([1], lambda y: y > random()) = [1]", "random()"),
    ("id in (select id from examples order by random() limit 3)", "random()"),
    ("id in (select id from examples using sample 5)", "a sample of rows"),
    ("id in (select id from examples tablesample 10%)", "a sample of rows"),
    ("exists (from duckdb_settings() where value = 'UTC')", "duckdb_settings()"),
    ("exists (from pg_catalog.pg_tables)", "the table pg_tables"),
    ("exists (from information_schema.tables)", "the table tables"),
    ("exists (from (describe examples))", "a description of tables"),
    ("score > $limit", "the parameter limit"),
    ("(select reservoir_quantile(score, 0.5) from examples) > 1", "reservoir_quantile()"),
]


@pytest.mark.parametrize("condition", OF_THE_ROW, ids=[condition[:60] for condition in OF_THE_ROW])
def test_not_of_the_row__a_function_of_the_row_passes(condition: str):
    duckdb.SQLExpression(condition)
    assert not_of_the_row(condition) is None


@pytest.mark.parametrize(("condition", "suspect"), CHANGING, ids=[condition for condition, _ in CHANGING])
def test_not_of_the_row__what_changes_without_the_row_is_named(condition: str, suspect: str):
    duckdb.SQLExpression(condition)
    assert not_of_the_row(condition) == suspect


def test_not_of_the_row__no_function_that_duckdb_calls_volatile_passes():
    query = """
        SELECT DISTINCT function_name, len(parameters) FROM duckdb_functions()
        WHERE stability = 'VOLATILE' OR stability = 'CONSISTENT_WITHIN_QUERY' AND len(parameters) = 0
    """
    with duckdb.connect() as connection:
        functions = connection.execute(query).fetchall()
    assert len(functions) > 20
    for name, count in functions:
        assert not_of_the_row(f"{name}({', '.join(['x'] * count)}) = 1") == f"{name}()"


def test_not_of_the_row__user_is_a_field_or_who_runs_this():
    assert not_of_the_row("user = 'anna'", ["User", "score"]) is None
    assert not_of_the_row("user = 'anna'", ["score"]) == "user"
    assert not_of_the_row('"current_date" = 1', ["current_date"]) is None
    assert not_of_the_row('"current_date" = 1', []) == "current_date"


def test_not_of_the_row__deep_nesting_ends_in_words():
    started = time.monotonic()
    assert not_of_the_row("+".join(["score"] * 900) + " > 1") == "deeper nesting than can be checked"
    assert not_of_the_row("+".join(["score"] * 50) + " > 1") is None
    assert time.monotonic() - started < 5
