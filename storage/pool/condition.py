"""Whether a SQL condition is a function of the row alone.

A selection's name holds the text of its `where`. If its value depends on the day, on chance or on the session, the same
name would stand for other rows. So such a condition is refused before anything is drawn. DuckDB's own catalogue says
which functions are meant; `TimeZone` is UTC wherever a condition is evaluated, so what depends on that alone is
allowed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import duckdb

from storage import duck
from storage.duck import literal, quoted

# Name -> numbers of arguments for which DuckDB's catalogue calls a function consistent though it is not: `age` of one
# time counts from today, two quantiles sample or merge by thread.
_MISSED = {"age": (1,), "version": (0,), "reservoir_quantile": (2, 3), "approx_quantile": (2,)}
# What a subquery may read: the rows, and functions that make rows from their arguments.
_TABLES = frozenset({"examples", "occurrences"})
_TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
# Words that SQL takes for a time when they are cast to one.
_TIMES = frozenset({"now", "today", "tomorrow", "yesterday"})
# A field may well have this name; whether it has is known once the pool is read.
_LIKELY_FIELD = "user"
_PREFIX = "SELECT "


@dataclass(frozen=True)
class _Overload:
    """One entry of DuckDB's catalogue of functions."""

    kind: str
    parameters: int
    varargs: bool
    stable: bool
    definition: str


def not_of_the_row(condition: str, columns: Collection[str] | None = None) -> str | None:
    """The first part of a condition whose value is not a function of the row, as a user knows it; None for none.

    Args:
        condition: one SQL expression that DuckDB can parse.
        columns: names that the rows have. None before the pool is read: then a name in double quotes is a column's.

    >>> not_of_the_row("year < date_part('year', current_date)"), not_of_the_row("score > 2")
    ('current_date', None)
    """
    known = None if columns is None else {name.lower() for name in columns}
    try:
        return next(_suspects(condition, known, frozenset()), None)
    except RecursionError:
        return "deeper nesting than can be checked"


def changeable(suspect: str) -> str:
    """The message about a part of a condition that `not_of_the_row` gives."""
    return (
        f"holds {suspect}, which is not a function of the row: the same recipe would draw other rows on another day or"
        " machine. Write the value itself, such as DATE '2026-11-28' (a column of that name goes in double quotes); the"
        " step `random` draws rows at random"
    )


def unknown_in(expression: str, columns: Collection[str]) -> str | None:
    """The first name in an expression that is neither a column nor a function; None for none.

    Names inside of subqueries and lambdas are left to DuckDB, which knows what they mean there.

    Args:
        columns: names that the rows have.

    >>> unknown_in("lenght(prompt) > 2", ["prompt"]), unknown_in("topc = 'a'", ["topic"])
    ('the function lenght', 'the column topc')
    """
    known = {name.lower() for name in columns}
    nodes = list(_nodes(_parsed(expression)))
    has_own_names = any(node.get("class") in {"SUBQUERY", "LAMBDA"} for node in nodes)
    for node in nodes:
        if node.get("type") == "FUNCTION":
            name = node["function_name"].lower()
            if name.isidentifier() and name not in _catalogue():
                return f"the function {node['function_name']}"
        if node.get("type") == "COLUMN_REF" and len(node["column_names"]) == 1 and not has_own_names:
            name = node["column_names"][0]
            if name.lower() not in known and not _has_value(name.lower()):
                return f"the column {name}"
    return None


def _suspects(condition: str, columns: Collection[str] | None, inside: frozenset[str]) -> Iterator[str]:
    """Args: inside: names of the macros that the condition is the definition of."""
    nodes = list(_nodes(_parsed(condition)))
    # What a subquery gives a name to is made of expressions that are checked themselves.
    tables = _TABLES | {
        str(entry["key"]).lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())
    }
    text = (_PREFIX + condition).encode()
    for node in nodes:
        kind = node.get("type")
        if node.get("sample"):
            yield "a sample of rows"
        if kind == "COLUMN_REF" and _is_session_value(node, text, columns):
            yield node["column_names"][0]
        elif kind == "VALUE_PARAMETER":
            yield f"the parameter {node['identifier']}"
        elif kind == "BASE_TABLE" and (node["qualified_name"]["path"][:-1] or node["table_name"].lower() not in tables):
            yield f"the table {node['table_name']}"
        elif kind == "SHOW_REF":
            yield "a description of tables"
        elif kind == "TABLE_FUNCTION" and node["function"]["function_name"].lower() not in _TABLE_FUNCTIONS:
            yield f"{node['function']['function_name']}()"
        elif kind == "OPERATOR_CAST" and _is_time_word(node["child"]):
            yield f"'{node['child']['literal']['text']}'"
        elif kind == "FUNCTION" and not _is_stable(node["function_name"], len(node.get("arguments") or ()), inside):
            yield f"{node['function_name']}()"


def _is_stable(name: str, arguments: int, inside: frozenset[str]) -> bool:
    name = name.lower()
    if arguments in _MISSED.get(name, ()):
        return False
    fitting = [
        overload
        for overload in _catalogue().get(name, ())
        if arguments == overload.parameters or overload.varargs or overload.kind == "macro"
    ]
    if not fitting or name in inside:
        return not fitting  # what DuckDB does not know, it refuses itself
    return any(
        overload.parameters > 0 and next(_suspects(overload.definition, None, inside | {name}), None) is None
        if overload.kind == "macro"
        else overload.stable
        for overload in fitting
    )


def _is_session_value(node: dict[str, Any], text: bytes, columns: Collection[str] | None) -> bool:
    """Whether a name without parentheses, such as `current_date`, is no column's but a value of the session."""
    names = node["column_names"]
    if len(names) > 1 or not _has_value(names[0].lower()):
        return False
    if columns is not None:
        return names[0].lower() not in columns
    return names[0].lower() != _LIKELY_FIELD and text[node["query_location"] :][:1] != b'"'


def _is_time_word(node: dict[str, Any]) -> bool:
    return node["type"] == "VALUE_CONSTANT" and str((node.get("literal") or {}).get("text")).strip().lower() in _TIMES


@lru_cache(maxsize=64)
def _parsed(condition: str) -> Any:
    with duck.cursor() as connection:
        # A literal, since DuckDB serializes constants only; a line of its own, since a comment may end the condition.
        query = f"SELECT json_serialize_sql({literal(_PREFIX + condition)}\n)"
        parsed = json.loads(connection.execute(query).fetchall()[0][0])
    return parsed.get("statements")  # none of what DuckDB cannot parse, which it says itself


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of a parsed statement, from the top."""
    waiting = [tree]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        if isinstance(value, dict | list):
            waiting.extend(reversed(value.values() if isinstance(value, dict) else value))


@cache
def _has_value(name: str) -> bool:
    """Whether a name stands for something without any table, as `current_date` does."""
    with duck.cursor() as connection:
        try:
            connection.execute(f"SELECT {quoted(name)}").fetchall()
        except duckdb.Error:
            return False
    return True


@cache
def _catalogue() -> dict[str, list[_Overload]]:
    """Every function that DuckDB has, by its name in lower case."""
    query = """
        SELECT lower(function_name), function_type, len(parameters), varargs IS NOT NULL,
               coalesce(stability = 'CONSISTENT', false)
               OR len(parameters) > 0
               AND regexp_matches(parameter_types::VARCHAR || return_type, 'TIME ZONE|TIMESTAMPTZ'),
               coalesce(macro_definition, '')
        FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'macro')
    """
    functions: dict[str, list[_Overload]] = {}
    with duck.cursor() as connection:
        for name, *entry in connection.execute(query).fetchall():
            functions.setdefault(name, []).append(_Overload(*entry))
    return functions
