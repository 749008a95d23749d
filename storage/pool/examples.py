"""The rows of a snapshot as columns and as SQL: the pool's columns, the extra fields, the user's columns.

DuckDB reads the snapshot's Parquet files on a connection of its own, with access to anything else switched off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage import duck
from storage.duck import json_pointer, literal, quoted
from storage.ids import Ids, from_arrow, to_arrow
from storage.pool.columns import Columns

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
    """An Arrow column as float64 with NaN, or as str objects with None; equal texts share one object."""
    if kind in ("number", "boolean"):
        return np.asarray(column.cast(pa.float64()).to_numpy())
    coded = pc.dictionary_encode(column.cast(pa.string())).unify_dictionaries().combine_chunks()
    texts = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    return np.asarray(texts[coded.indices.fill_null(len(texts) - 1).to_numpy()])


def by_row(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """(count,) each value at its row; NaN or None at the rows without one."""
    column = np.full(count, np.nan) if values.dtype == np.float64 else np.full(count, None, object)
    column[rows] = values
    return column


def expression(name: str, kind: str) -> str:
    """SQL for a column of the pool or a field of `extra`."""
    if name in POOL_COLUMNS:
        return quoted(name)
    value = f"(extra ->> {literal(json_pointer(name))})"
    sql_type = {"number": "DOUBLE", "boolean": "BOOLEAN"}.get(kind)
    return f"TRY_CAST({value} AS {sql_type})" if sql_type else value


@dataclass(frozen=True)
class ImportedColumns:
    """A user's columns and the rows of a snapshot that they describe: `rows` (k,) int64, -1 for a key of no row."""

    columns: Columns
    rows: npt.NDArray[np.int64]

    def values(self, name: str, count: int) -> npt.NDArray[Any]:
        """One column by row, (count,)."""
        matched = self.rows >= 0
        column = self.columns.read(name).filter(pa.array(matched))
        return by_row(values(column, self.columns.types[name]), self.rows[matched], count)

    def table(self, ids: Ids, id_name: str) -> pa.Table:
        """All columns, for the keys that name a row, behind the id of that row as `id_name`."""
        matched = self.rows >= 0
        return self.columns.table().filter(pa.array(matched)).add_column(0, id_name, to_arrow(ids[self.rows[matched]]))


class Examples:
    """A DuckDB connection that sees the rows of one snapshot and nothing else."""

    def __init__(self, parts: Sequence[Path], duplicates: Path) -> None:
        self.duplicates = literal(str(duplicates))
        listed = ", ".join(literal(str(path)) for path in parts)
        self.connection = duck.connect()
        self.connection.execute(f"SET allowed_paths = [{listed}, {self.duplicates}]")
        for setting, value in _LOCKED.items():
            self.connection.execute(f"SET {setting} = {literal(value)}")
        self.connection.execute(f"CREATE VIEW occurrences AS SELECT * FROM read_parquet([{listed}])")  # noqa: S608

    def every(self, name: str, kind: str) -> npt.NDArray[Any]:
        """One column, a value per occurrence, in storage order, which DuckDB keeps for a plain projection."""
        query = f"SELECT {expression(name, kind)} AS v FROM occurrences"  # noqa: S608 - a quoted name
        return values(self.connection.sql(query).to_arrow_table()["v"], kind)

    def where(self, condition: str, known: Mapping[str, str], imported: Sequence[ImportedColumns], ids: Ids) -> Ids:
        """The ids of the examples that satisfy one boolean expression over the known columns."""
        import duckdb

        self._create_examples(known, imported, ids)
        # SQLExpression parses exactly one expression: no second statement, no clause behind it.
        matches = self.connection.sql("FROM examples").filter(duckdb.SQLExpression(condition)).select("id")
        return from_arrow(matches.to_arrow_table()["id"])

    def _create_examples(self, known: Mapping[str, str], imported: Sequence[ImportedColumns], ids: Ids) -> None:
        owner: dict[str, str] = {}
        joins = []
        for number, columns in enumerate(imported):
            self.connection.register(f"columns_{number}", columns.table(ids, "row_id"))
            owner |= {name: f"columns_{number}.{quoted(name)}" for name in columns.columns.types}
            joins.append(f"LEFT JOIN columns_{number} ON columns_{number}.row_id = o.id")
        # SQL names ignore case: extra fields that differ only in case are left out, so that neither is taken for the
        # other.
        selected = ["o.id", "o.prompt", "o.response", "o.messages"]
        taken = Counter(["id", "prompt", "response", "messages", *(name.lower() for name in known)])
        first = {name.lower() for name in (*POOL_COLUMNS, *owner)}
        for name, kind in known.items():
            is_first = name in owner or name in POOL_COLUMNS
            if name and (is_first or (taken[name.lower()] == 1 and name.lower() not in first)):
                selected.append(f"{owner.get(name) or expression(name, kind)} AS {quoted(name)}")
        self.connection.execute(  # names are quoted, nothing else is a user's
            f"CREATE VIEW examples AS SELECT {', '.join(selected)} FROM occurrences o {' '.join(joins)}"  # noqa: S608
            f" ANTI JOIN (SELECT ingest, line FROM read_parquet({self.duplicates})) d"
            " ON d.ingest = o.ingest AND d.line = o.line"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()


# The order matters: what locks the others comes last. Without external access neither files nor Python variables are
# seen.
_LOCKED = {
    "arrow_lossless_conversion": "true",
    "temp_directory": "",
    "enable_external_access": "false",
    "lock_configuration": "true",
}
