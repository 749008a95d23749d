"""Reading the catalog: a read-only connection to the newest published file, and the result of one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import duck
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.store import Store

LINK = "winnow.duckdb"
JSON_FIELD = {b"holds": b"json"}


def open_catalog(store: Store) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the newest catalog; it keeps its snapshot while others are published.

    Raises:
        NotInStore: nothing is published yet.
        StoreDamaged: the file is no catalog.
    """
    while True:
        path = published_file(store)
        if path is None:
            raise NotInStore(f"no catalog is published in {store.root} yet: `winnow run` makes one")
        try:
            # By the file, not by the link: a second connection in this process would else share the older one's
            # snapshot.
            return duck.connect(path, read_only=True)
        except duckdb.Error as error:
            if path == published_file(store):  # else another was published in the meantime, and this one dropped
                raise StoreDamaged(f"{error}\nIf it is damaged, `winnow catalog rebuild` makes it anew.") from error


def query_catalog(store: Store, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
    """The result of one SQL statement on the newest catalog; ids are printed as UUIDs.

    Columns of JSON are texts, whose fields have the metadata `JSON_FIELD`.

    Raises:
        BadInput: there are several statements, or DuckDB refuses it; for an unknown table, the message lists the known
            ones.
        StoreDamaged: a file under a view is damaged; names it.
    """
    with open_catalog(store) as connection:
        try:
            if len(duckdb.extract_statements(sql)) > 1:
                raise BadInput("these are several statements, of which only one is answered; give one at a time")
            result = connection.sql(sql, params=params)
            return pa.table({}) if result is None else _with_json(result.to_arrow_table(), result.types)
        except duckdb.CatalogException as error:
            known = ", ".join(name for (name,) in connection.execute("SHOW TABLES").fetchall())
            raise BadInput(f"{error}\nThe catalog has: {known}") from error
        except duckdb.IOException as error:
            raise BadInput(f"{error}\n{_hint(str(error))}") from error
        except _OF_THE_STATEMENT as error:
            raise BadInput(str(error)) from error
        except duckdb.Error as error:
            from storage.damage import first_damage  # most queries go well, and `winnow sql` starts sooner

            damage = first_damage(store)
            raise (
                StoreDamaged(f"{damage}; `winnow run` mends what it can") if damage else BadInput(str(error))
            ) from error


def _with_json(table: pa.Table, types: Sequence[Any]) -> pa.Table:
    """The table, with fields that say which texts are JSON: Arrow has no type for it."""
    fields = [
        field.with_metadata(JSON_FIELD) if str(kind) == "JSON" else field
        for field, kind in zip(table.schema, types, strict=True)
    ]
    return table.cast(pa.schema(fields))


def _hint(message: str) -> str:
    """What to do about a file under a view that cannot be opened."""
    if "Permission denied" in message:
        return "Whoever runs this command may not read the file: its permissions, or those of a folder above it, forbid it."
    return "If the store was moved, `winnow catalog rebuild` mends its paths."


# What is wrong with the statement or its values, not with a file.
_OF_THE_STATEMENT = (
    duckdb.BinderException,
    duckdb.ConstraintException,
    duckdb.ConversionException,
    duckdb.NotImplementedException,
    duckdb.OutOfMemoryException,
    duckdb.OutOfRangeException,
    duckdb.ParserException,
    duckdb.PermissionException,
    duckdb.SyntaxException,
)


def published_file(store: Store) -> Path | None:
    """The newest published catalog, None if nothing is published yet."""
    link = store.path(LINK)
    return link.resolve() if link.exists() else None
