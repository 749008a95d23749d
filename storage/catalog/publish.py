"""The catalog: one DuckDB file over all committed records, replaced as a whole, so that nobody ever waits for it.

`publish` builds the next file beside the last one, from what that one held and the records it lacked, and then moves the
symlink `winnow.duckdb` to it. The records are the truth: a crash between a commit and a publish heals itself at the next
publish, and `rebuild` makes the same catalog from the records alone. A reader opens a file that nobody will ever write to.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from storage import duck
from storage.catalog import content, schema
from storage.catalog.schema import literal
from storage.errors import BadInput, NotInStore, StorageError, StoreDamaged
from storage.store import Store, sync_folder, sync_tree

LINK = "winnow.duckdb"
# Readers that opened an older file keep it through an unlink; the ones kept are for people who want to look back.
KEPT_FILES = 5
# The oldest storage format that holds all we need: DuckDB 1.1 and later can open the file (docs/sql.md).
STORAGE_VERSION = "v1.0.0"

_NEXT = "next"
_PREVIOUS = "previous"


def publish(store: Store) -> Path:
    """Make every committed record visible; gives the new catalog file.

    Cost: what is new, plus listing the records' folders; a crash or a full disk on the way leaves the published one as it is.
    """
    return _publish(store, afresh=False)


def rebuild(store: Store) -> Path:
    """Make the catalog from the records alone, for example after the store's folder was moved.

    Raises:
        OSError: there is no room for it; the published one stays as it was.
    """
    try:
        return _publish(store, afresh=True)
    except duckdb.IOException as error:
        raise OSError(str(error)) from error


def connect(store: Store) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the newest catalog; it keeps its snapshot while others are published.

    Raises:
        NotInStore: nothing is published yet.
        StoreDamaged: the file is no catalog.
    """
    while True:
        path = _published(store)
        if path is None:
            raise NotInStore(f"no catalog is published in {store.root} yet: `winnow run` makes one")
        try:
            # By the file, not by the link: a second connection in this process would else share the older one's snapshot.
            return duck.connect(path, read_only=True)
        except duckdb.IOException as error:
            if path == _published(store):  # else another was published in the meantime, and this one dropped
                raise StoreDamaged(f"{error}\nIf it is damaged, `winnow catalog rebuild` makes it anew.") from error


def query(store: Store, sql: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> pa.Table:
    """The result of one SQL statement on the newest catalog; ids are printed as UUIDs.

    Raises:
        BadInput: DuckDB refuses the statement; for an unknown table, the message lists the known ones.
    """
    with connect(store) as connection:
        try:
            result = connection.sql(sql, params=params)
            return pa.table({}) if result is None else result.to_arrow_table()
        except duckdb.CatalogException as error:
            known = connection.execute(
                "SELECT name FROM (SELECT table_name AS name FROM duckdb_tables() UNION ALL "
                "SELECT view_name FROM duckdb_views() WHERE NOT internal) ORDER BY name"
            ).fetchall()
            raise BadInput(f"{error}\nThe catalog has: {', '.join(name for (name,) in known)}") from error
        except duckdb.IOException as error:
            raise BadInput(f"{error}\nIf the store was moved, `winnow catalog rebuild` mends its paths.") from error
        except duckdb.Error as error:
            raise BadInput(str(error)) from error


def _published(store: Store) -> Path | None:
    link = store.path(LINK)
    return link.resolve() if link.exists() else None


def _publish(store: Store, *, afresh: bool) -> Path:
    with store.lock("catalog", "publishing the catalog"):
        folder = store.path("tmp", f"catalog.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        folder.mkdir(parents=True)
        try:
            file = folder / "next.duckdb"
            _build(store, file, None if afresh else _published(store))
            if (folder / "next.duckdb.wal").exists():
                raise StorageError(f"DuckDB left a log beside {file}; the catalog is not published")
            file.chmod(0o444)
            sync_tree(folder)
            catalog = store.path("catalog")
            catalog.mkdir(exist_ok=True)
            target = catalog / f"{max(_numbers(catalog), default=0) + 1:04d}.duckdb"
            file.rename(target)
            sync_folder(catalog)
            link = folder / LINK
            link.symlink_to(target.relative_to(store.root))
            link.replace(store.path(LINK))
            sync_folder(store.root)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        _drop_old(catalog)
        store.sweep_tmp()
        return target


def _numbers(catalog: Path) -> set[int]:
    """The numbers in use, also by a log that an analyst's killed session left: a new file must not lie beside it."""
    heads = (path.name.split(".")[0] for path in catalog.iterdir())
    return {int(head) for head in heads if head.isdigit()}


def _drop_old(catalog: Path) -> None:
    for number in sorted(_numbers(catalog))[:-KEPT_FILES]:
        for path in catalog.glob(f"{number:04d}.duckdb*"):
            path.unlink(missing_ok=True)


def _build(store: Store, file: Path, previous: Path | None) -> None:
    with duck.connect() as connection:
        connection.execute(f"ATTACH {literal(str(file))} AS {_NEXT} (STORAGE_VERSION '{STORAGE_VERSION}')")
        connection.execute(f"USE {_NEXT}")
        carried = previous is not None and _attach_previous(connection, previous)
        connection.execute("BEGIN")
        content.fill(store, connection, _PREVIOUS if carried else None)
        content.create_views(store, connection)
        content.comment(connection)
        connection.execute("COMMIT")
        connection.execute(f"CHECKPOINT {_NEXT}")
        connection.execute("USE memory")
        connection.execute(f"DETACH {_NEXT}")


def _attach_previous(connection: duckdb.DuckDBPyConnection, previous: Path) -> bool:
    """Attach the last catalog to copy from; False if it cannot serve, and then everything comes from the records."""
    if previous.with_name(f"{previous.name}.wal").exists():
        return False
    try:
        connection.execute(f"ATTACH {literal(str(previous))} AS {_PREVIOUS} (READ_ONLY)")
        made_by = connection.execute(f"SELECT version FROM {_PREVIOUS}.schema_version").fetchone()  # noqa: S608
    except duckdb.Error:
        # Open for writing elsewhere, damaged, or not a catalog of ours.
        return False
    return made_by == (len(schema.STEPS),)
