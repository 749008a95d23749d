"""Compaction: small records that lie about go into packs, small packs into larger ones.

A record is packed long before its folder goes: a folder, or a pack, whose records are in a newer pack stays until every
catalog that is kept was made after that pack, so that an analyst's open session finds the files that it knows.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.checksums import FILE as CHECKSUMS
from storage.checksums import verified
from storage.damage import KINDS, damage_of, read_record
from storage.errors import StoreDamaged
from storage.packing import Source, records_of, undamaged_records, write_pack
from storage.packs import COPIES, INDEX, ROOT, ROWS, Pack, PackedRecord, pack_of, read_table
from storage.store import Store, sync_path, write_json
from storage.upkeep.items import size_of

# Kinds of which every night adds some, and which keep for good what they say.
PACKED = ("runs", "metrics", "health_measurements", "selections", "reports")
# Folders of a kind that may lie about before they are packed, packs of like size before they become one.
FOLDERS, PACKS = 128, 8
# A pack is not made larger than this.
MOST_BYTES = 64 << 20

# Copies for SQL of the rows of small files of the pool: a view over a thousand files opens each of them, and one of a
# few packs does not. Whatever else reads the pool reads the files.
SMALL_BYTES = 1 << 20

Schemas = dict[str, pa.Schema]


def compact(store: Store) -> None:
    """Pack what many nights have left, and remove what was packed some nights ago.

    Cost: lists the records; where something is due, reads and writes it once. A record is written about once for each
        factor of `PACKS` in the number of all.
    """
    with store.lock("compact", "packing small records"):
        drop_replaced(store, before=min(store.catalog_numbers(), default=0))
        for kind in PACKED:
            _mend(store, kind)
            _pack_folders(store, kind)
            _merge_packs(store, kind)
        _drop_damaged_copies(store)
        _copy_rows(store)
        _merge_packs(store, COPIES)


def drop_replaced(store: Store, before: int | None = None) -> None:
    """Remove folders and packs whose records are in a pack that counts.

    Args:
        before: only those of packs that were there before the catalog of this number was made; all by default.
    """
    for kind in (*PACKED, COPIES):
        packs = [pack for pack in store.packs.of(kind) if before is None or pack.number < before]
        names = {name for pack in packs for name in pack.names}
        replaced = {name for pack in packs for name in pack.replaces}
        own = store.path("records", kind)
        folders = [Path(entry) for entry in os.scandir(own) if entry.name in names] if own.is_dir() else []
        # The oldest packs first: one that others replace, which are replaced in turn, must not count again.
        folders += [store.path(ROOT, kind, name) for name in sorted(replaced)]
        folders += [pack.folder for pack in packs if not pack.names]
        for folder in folders:
            if folder.is_dir():
                _remove(store, folder)


def without(store: Store, kind: str, names: Collection[str]) -> None:
    """Pack the packs of a kind anew that hold some records, without these.

    Raises:
        StoreDamaged: another record of the pack is damaged.
    """
    for pack in store.packs.of(kind):
        if not set(names).isdisjoint(pack.names):
            write_pack(store, kind, records_of(pack, [name for name in pack.names if name not in names]), [pack])


def unpack(store: Store, pack: Pack) -> None:
    """Give the records of a pack folders of their own again; the pack counts no more.

    Raises:
        StoreDamaged: one of them is damaged.
    """
    kind = pack.folder.parent.name
    for record, read in records_of(pack, pack.names):
        folder = store.path("records", kind, record.name)
        if not folder.is_dir():
            with store.committing("records", kind, record.name) as new:
                _write(new, kind, record, read)
            os.utime(folder, (record.modified, record.modified))
    write_pack(store, kind, (), [pack])


def retire_copies(store: Store) -> None:
    """Let copies of rows for SQL count no more; a later night makes them again."""
    if packs := store.packs.of(COPIES):
        write_pack(store, COPIES, (), packs)


@contextmanager
def in_folder(store: Store, folder: Path) -> Iterator[Path]:
    """A record as a folder of files, to read; of one in a pack a copy that is there until the block ends."""
    pack = pack_of(folder)
    if pack is None:
        yield folder
        return
    with store.scratch(folder.name) as copy:
        _write(copy, folder.parent.parent.name, pack.record(folder.name), partial(pack.table, folder.name))
        yield copy


def _write(new: Path, kind: str, record: PackedRecord, read: Callable[[str], pa.Table]) -> None:
    write_json(new / str(KINDS[kind].file), record.record)
    for file in record.tables:
        pq.write_table(read(file), new / file, compression="zstd")


def _remove(store: Store, folder: Path) -> None:
    with store.scratch(folder.name) as away:
        folder.rename(away / "removed")
        sync_path(folder.parent)


def _mend(store: Store, kind: str) -> None:
    """Pack a pack anew whose index is damaged; its lines say the same."""
    for pack in store.packs.of(kind):
        try:
            verified(pack.folder / INDEX)
        except StoreDamaged as error:
            write_pack(store, kind, undamaged_records(pack), [pack])
            store.notice(f"{error}; its records were packed anew")


def _drop_damaged_copies(store: Store) -> None:
    for pack in store.packs.of(COPIES):
        try:
            for path in pack.folder.iterdir():
                verified(path)
        except StoreDamaged:
            write_pack(store, COPIES, (), [pack])


def _copy_rows(store: Store) -> None:
    copied = store.packs.places(COPIES)
    files = {name: store.path("pool", name, ROWS) for name in store.committed("pool") if name not in copied}
    small = {name: path for name, path in files.items() if _is_small(path)}
    if len(small) < FOLDERS:
        return
    sources: list[Source] = []
    schemas: Schemas = {}
    for name, path in small.items():
        more = _schemas(path.parent, [ROWS])
        if damage_of("pool", path.parent) is None and _fits(schemas, more):
            schemas |= more
            rows = pq.read_metadata(path).num_rows
            record = PackedRecord(name, path.stat().st_mtime, path.stat().st_size, {ROWS: rows}, {})
            sources.append((record, partial(read_table, path.parent)))
    write_pack(store, COPIES, sources)


def _is_small(path: Path) -> bool:
    """Whether an ingest has one small part."""
    return path.is_file() and path.stat().st_size <= SMALL_BYTES and not path.with_name("part-00001.parquet").exists()


def _pack_folders(store: Store, kind: str) -> None:
    packed = store.packs.places(kind)
    folders = [store.path("records", kind, name) for name in store.records(kind) if name not in packed]
    if len(folders) < FOLDERS:
        return
    sources: list[Source] = []
    schemas: Schemas = {}
    for folder in folders:
        if (record := _described(kind, folder)) is not None and _fits(schemas, _schemas(folder, record.tables)):
            schemas |= _schemas(folder, record.tables)
            sources.append((record, partial(read_table, folder)))
    write_pack(store, kind, sources)


def _described(kind: str, folder: Path) -> PackedRecord | None:
    """A record to be packed; None for one that is damaged, or has files that no pack can hold."""
    file = KINDS[kind].file
    names = {path.name for path in folder.iterdir()} - {CHECKSUMS, file}
    if any(not name.endswith(".parquet") for name in names) or damage_of(kind, folder) is not None:
        return None
    tables = {name: pq.read_metadata(folder / name).num_rows for name in sorted(names)}
    return PackedRecord(folder.name, folder.stat().st_mtime, size_of(folder), tables, read_record(kind, folder))


def _schemas(folder: Path, files: Collection[str]) -> Schemas:
    return {file: pq.read_schema(folder / file).remove_metadata() for file in files}


def _fits(schemas: Schemas, others: Schemas) -> bool:
    """Whether tables can stand in one file: those of earlier versions lack columns."""
    return all(schemas.get(file, schema).equals(schema) for file, schema in others.items())


def _merge_packs(store: Store, kind: str) -> None:
    """Make one pack of packs of like size, once there are enough."""
    levels: dict[int, list[Pack]] = defaultdict(list)
    for pack in store.packs.of(kind):
        levels[round(math.log(max(len(pack.names), 1), PACKS))].append(pack)
    for packs in levels.values():
        chosen, schemas, size = [], Schemas(), 0
        for pack in packs:
            files = [path.name for path in pack.folder.glob("*.parquet")]
            more, of_pack = _schemas(pack.folder, files), size_of(pack.folder)
            if _fits(schemas, more) and size + of_pack <= MOST_BYTES:
                chosen.append(pack)
                schemas, size = schemas | more, size + of_pack
        if len(chosen) >= PACKS:
            write_pack(store, kind, (source for pack in chosen for source in records_of(pack, pack.names)), chosen)
