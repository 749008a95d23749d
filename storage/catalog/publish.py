"""The catalog: one DuckDB file over all committed records, replaced as a whole, so that nobody ever waits for it.

`publish_catalog` copies the last file, takes what is gone out of the copy and adds the records that it lacks, and then
moves the symlink `winnow.duckdb` to it. The records are the truth: a crash between a commit and a publish heals itself
at the next publish, and `rebuild_catalog` makes the same catalog from the records alone. A reader opens a file that
nobody will ever write to.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb

from storage import checksums, duck
from storage.catalog import content, schema
from storage.catalog.query import LINK, published_file
from storage.disk import disk_full
from storage.duck import literal
from storage.errors import StorageError, StoreDamaged
from storage.store import Store, sync_path, sync_tree

# Readers that opened an older file keep it through an unlink; the ones kept are for people who want to look back.
KEPT_FILES = 5
# The oldest storage format that holds all we need: DuckDB 1.1 and later can open the file (docs/sql.md).
STORAGE_VERSION = "v1.0.0"

_NEXT = "next"


def publish_catalog(store: Store) -> Path:
    """Make every committed record visible; gives the new catalog file.

    Cost: what is new, plus listing the records' folders; a crash or a full disk on the way leaves the published one as
        it is.
    """
    return _publish(store, afresh=False)


def rebuild_catalog(store: Store) -> Path:
    """Make the catalog from the records alone, for example after the store's folder was moved.

    Raises:
        OSError: there is no room for it; the published one stays as it was.
    """
    try:
        return _publish(store, afresh=True)
    except duckdb.Error as error:
        raise disk_full(error, store.root) or OSError(str(error)) from error


def _publish(store: Store, *, afresh: bool) -> Path:
    with store.lock("catalog", "publishing the catalog"):
        with store.scratch("catalog") as folder:
            file = folder / "next.duckdb"
            try:
                _build(store, file, None if afresh else published_file(store))
            except duckdb.Error:
                if afresh:
                    raise
                # The last catalog, or a record that it carries on, is damaged: from the records alone, all are looked
                # at.
                for path in folder.iterdir():
                    path.unlink()
                _build(store, file, None)
            if (folder / "next.duckdb.wal").exists():
                raise StorageError(f"DuckDB left a log beside {file}; the catalog is not published")
            file.chmod(0o444)
            sync_tree(folder)
            catalog = store.path("catalog")
            catalog.mkdir(exist_ok=True)
            target = catalog / f"{max(store.catalog_numbers(), default=0) + 1:04d}.duckdb"
            file.rename(target)
            sums = folder / checksums.FILE
            sums.write_text(checksums.seal_with(catalog, target), "utf-8")
            sync_path(sums)
            sums.replace(catalog / checksums.FILE)
            sync_path(catalog)
            link = folder / LINK
            link.symlink_to(target.relative_to(store.root))
            link.replace(store.path(LINK))
            sync_path(store.root)
        _drop_old(store)
        store.sweep()
        return target


def _drop_old(store: Store) -> None:
    for number in sorted(store.catalog_numbers())[:-KEPT_FILES]:
        for path in store.path("catalog").glob(f"{number:04d}.duckdb*"):
            path.unlink(missing_ok=True)


def _build(store: Store, file: Path, previous: Path | None) -> None:
    with duck.connect() as connection:
        carried = previous is not None and _carry(store, connection, previous, file)
        if not carried:
            _attach(connection, file)
        connection.execute("BEGIN")
        if not carried:
            content.create_tables(connection)
        content.fill(store, connection)
        content.create_views(store, connection)
        content.comment(connection)
        connection.execute("COMMIT")
        connection.execute(f"CHECKPOINT {_NEXT}")
        _detach(connection)


def _carry(store: Store, connection: duckdb.DuckDBPyConnection, previous: Path, file: Path) -> bool:
    """Copy the last catalog and attach the copy; False if it cannot serve: then everything comes from the records."""
    if previous.with_name(f"{previous.name}.wal").exists():
        return False
    try:
        shutil.copyfile(checksums.verified(previous), file)
    except (StoreDamaged, OSError) as error:
        store.notice(f"{error}; the catalog is made anew from the records")
        file.unlink(missing_ok=True)
        return False
    try:
        _attach(connection, file)
        if connection.execute("SELECT version FROM schema_version").fetchone() == (len(schema.STEPS),):
            return True
    except duckdb.Error:  # damaged, or no catalog of ours
        pass
    _detach(connection)
    file.unlink()
    return False


def _attach(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    connection.execute(f"ATTACH {literal(str(file))} AS {_NEXT} (STORAGE_VERSION '{STORAGE_VERSION}')")
    connection.execute(f"USE {_NEXT}")


def _detach(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("USE memory")
    connection.execute(f"DETACH DATABASE IF EXISTS {_NEXT}")
