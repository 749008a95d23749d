"""The rows of a snapshot as columns and as SQL: the pool's columns, the extra fields, the user's columns.

DuckDB reads the snapshot's Parquet files on a connection of its own, with access to anything else switched off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage import duck
from storage.duck import json_pointer, literal, quoted
from storage.ids import Ids, from_arrow, to_arrow
from storage.pool.columns import Columns
from storage.pool.evaluation import matching_examples, values_of_examples
from storage.pool.extra import is_numeric, sql_type
from storage.pool.ingest import POOL_SCHEMA

# Columns of the pool that a recipe may use by name, and their types.
POOL_COLUMNS = {
    "source": "text",
    "given_id": "text",
    "file": "text",
    "ingest": "text",
    "line": "number",
    "empty_response": "boolean",
}


def values(column: pa.ChunkedArray, kind: str) -> npt.NDArray[Any]:
    """An Arrow column as float64 with NaN, as int64, or as str objects with None; equal texts share one object.

    Integers beyond 2^53 are int64 where none is missing, else text: they never become the nearest double.
    """
    if is_numeric(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    if kind == "bigint" and not column.null_count:
        return np.asarray(column.cast(pa.int64()).to_numpy())
    coded = pc.dictionary_encode(column.cast(pa.string())).unify_dictionaries().combine_chunks()
    texts = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    return np.asarray(texts[coded.indices.fill_null(len(texts) - 1).to_numpy()])


def by_row(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """(count,) each value at its row; NaN or None at the rows without one."""
    if values.dtype == np.int64:
        if len(np.unique(rows)) == count:
            column = np.empty(count, np.int64)
            column[rows] = values
            return column
        values = values.astype(str).astype(object)
    column = np.full(count, np.nan) if values.dtype == np.float64 else np.full(count, None, object)
    column[rows] = values
    return column


@dataclass(frozen=True)
class Column:
    """A column of the examples: its type, see `extra`, and the SQL of its value."""

    kind: str
    sql: str


def columns_of(fields: Mapping[str, str], imported: Iterable[str], *, user_first: bool) -> dict[str, Column]:
    """Name -> column, for the pool's own columns and the fields of the user's files.

    Args:
        fields: field -> type.
        imported: names of the user's columns, which win over fields.
        user_first: whether a field that has the name of a column of the pool is meant by that name. With an underscore,
            as in SQL, it is always meant.
    """
    columns = {name: Column(kind, quoted(name)) for name, kind in POOL_COLUMNS.items()}
    for name, field in sql_names(imported, fields).items():
        columns[name] = field_column(field, fields[field])
        if field not in columns or (user_first and field in POOL_COLUMNS):
            columns[field] = columns[name]
    return columns


def field_column(field: str, kind: str) -> Column:
    """A field of `extra`."""
    value = f"(extra ->> {literal(json_pointer(field))})"
    return Column(kind, f"TRY_CAST({value} AS {sql})" if (sql := sql_type(kind)) else value)


def sql_names(imported: Iterable[str], fields: Iterable[str]) -> dict[str, str]:
    """The name in SQL of each field: a name that is taken gets underscores, also one that differs only in case."""
    names: dict[str, str] = {}
    for field in fields:
        names[free_name(field or "_", (*POOL_SCHEMA.names, *imported, *names))] = field
    return names


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, with underscores until it is none of those that are taken, whatever the case."""
    used = {other.lower() for other in taken}
    while name.lower() in used:
        name += "_"
    return name


@dataclass(frozen=True)
class ImportedColumns:
    """A user's columns and the rows of a snapshot that they describe: `rows` (k,) int64, -1 for a key of no row."""

    columns: Columns
    rows: npt.NDArray[np.int64]

    @property
    def types(self) -> dict[str, str]:
        """Column -> its type."""
        return self.columns.types

    def values(self, name: str, ids: Ids) -> npt.NDArray[Any]:
        """(n,) one column by row of the snapshot."""
        matched = self.rows >= 0
        column = self.columns.read(name).filter(pa.array(matched))
        return by_row(values(column, self.columns.types[name]), self.rows[matched], len(ids))

    def table(self, ids: Ids, id_name: str) -> pa.Table:
        """All columns, for the keys that name a row, behind the id of that row as `id_name`."""
        matched = self.rows >= 0
        return self.columns.table().filter(pa.array(matched)).add_column(0, id_name, to_arrow(ids[self.rows[matched]]))


class KeyedColumns(Protocol):
    """Columns that lie beside the pool's files."""

    @property
    def types(self) -> dict[str, str]:
        """Column -> its type, see `extra`."""
        ...

    def values(self, name: str, ids: Ids) -> npt.NDArray[Any]:
        """(n,) one column for the ids of a snapshot."""
        ...

    def table(self, ids: Ids, id_name: str) -> pa.Table:
        """All columns, behind the id of the row as `id_name`."""
        ...


class Examples:
    """DuckDB over the rows of one snapshot, which sees nothing else."""

    def __init__(self, parts: Sequence[Path], duplicates: Path, *, utc: bool = True) -> None:
        """Name the files.

        Args:
            utc: times without a zone are UTC; else of this machine, as in selections of earlier versions.
        """
        self.duplicates = literal(str(duplicates))
        listed = ", ".join(literal(str(path)) for path in parts)
        self.opening = [
            f"SET allowed_paths = [{listed}, {self.duplicates}]",
            *(["SET TimeZone = 'UTC'"] if utc else []),
            *(f"SET {setting} = {literal(value)}" for setting, value in _LOCKED.items()),
            f"CREATE VIEW occurrences AS SELECT * FROM read_parquet([{listed}])",  # noqa: S608 - literals
        ]

    def every(self, column: Column) -> npt.NDArray[Any]:
        """One column, a value per occurrence, in storage order, which DuckDB keeps for a plain projection."""
        query = f"SELECT {column.sql} AS v FROM occurrences"  # noqa: S608 - a quoted name
        with duck.connect() as connection:
            for statement in self.opening:
                connection.execute(statement)
            return values(connection.sql(query).to_arrow_table()["v"], column.kind)

    def where(self, condition: str, known: Mapping[str, Column], imported: Sequence[KeyedColumns], ids: Ids) -> Ids:
        """The ids of the examples that satisfy one boolean expression over the known columns.

        Raises:
            ConditionFailed: it fails, or needs more time or memory than it may have.
        """
        view = self._examples_view(known, imported)
        matches = matching_examples(self.opening, _tables(imported, ids), view, condition, rows=len(ids))
        return from_arrow(matches["id"])

    def values(
        self, expression: str, known: Mapping[str, Column], imported: Sequence[KeyedColumns], ids: Ids
    ) -> tuple[Ids, npt.NDArray[np.float64]]:
        """The ids of the examples, and the value of one expression over the known columns; NULL is NaN.

        Raises:
            ConditionFailed: see `where`.
        """
        view = self._examples_view(known, imported)
        answer = values_of_examples(self.opening, _tables(imported, ids), view, expression, rows=len(ids))
        return from_arrow(answer["id"]), np.asarray(answer["value"].to_numpy(), np.float64)

    def _examples_view(self, known: Mapping[str, Column], imported: Sequence[KeyedColumns]) -> str:
        selected = {name: f"o.{name}" for name in ("id", "prompt", "response", "messages")}
        joins = []
        for number, columns in enumerate(imported):
            selected |= {name: f"columns_{number}.{quoted(name)}" for name in columns.types}
            joins.append(f"LEFT JOIN columns_{number} ON columns_{number}.row_id = o.id")
        # SQL names ignore case: fields that differ only in case are left out, so that neither is taken for the other.
        taken = Counter(name.lower() for name in {*known, *selected})
        first = {name.lower() for name in (*POOL_COLUMNS, *selected)}
        for name, column in known.items():
            if name and (name in POOL_COLUMNS or (taken[name.lower()] == 1 and name.lower() not in first)):
                selected[name] = column.sql
        listed = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in selected.items())
        return (  # names are quoted, nothing else is a user's
            f"CREATE VIEW examples AS SELECT {listed} FROM occurrences o {' '.join(joins)}"  # noqa: S608
            f" ANTI JOIN (SELECT ingest, line FROM read_parquet({self.duplicates})) d"
            " ON d.ingest = o.ingest AND d.line = o.line"
        )


def _tables(imported: Sequence[KeyedColumns], ids: Ids) -> dict[str, pa.Table]:
    """What the view `examples` reads beside the files."""
    return {f"columns_{number}": columns.table(ids, "row_id") for number, columns in enumerate(imported)}


# The order matters: what locks the others comes last. Without external access neither files nor Python variables are
# seen.
_LOCKED = {
    "arrow_lossless_conversion": "true",
    "temp_directory": "",
    "enable_external_access": "false",
    "lock_configuration": "true",
}
