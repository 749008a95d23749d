"""Packs: many small records of one kind in few files, so that years of nights do not fill a disk with little folders.

    packs/<kind>/<number>-<hash>/
      records.jsonl    a line each: the CRC-32 of the rest of the line, then `name`, `modified`, `size_bytes`, `tables`, `record`
      index.json       name -> where its line begins; `replaces`: earlier packs whose records are in this one
      items.parquet    and whatever else the records had: all of their rows, behind a column `_record`, the name

A record in a pack is named by a path that is no folder, `packs/<kind>/<pack>/<name>`: what takes the folder of a record
takes that too. Each line, and each page of a table, has a checksum of its own: damage costs the records that it hit.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from storage.checksums import verified
from storage.errors import StoreDamaged

ROOT, RECORDS, INDEX = "packs", "records.jsonl", "index.json"
NAME = "_record"
# A kind of pack whose records are ingests, and whose only table is a copy of their rows.
COPIES, ROWS = "pool_rows", "part-00000.parquet"


@dataclass(frozen=True)
class PackedRecord:
    """A line of a pack.

    Attributes:
        name: of the record.
        modified: when it was committed, in seconds since the epoch.
        size_bytes: of the folder that it was.
        tables: file -> rows.
        record: the content of its JSON file.
    """

    name: str
    modified: float
    size_bytes: int
    tables: Mapping[str, int]
    record: dict[str, Any]

    def line(self) -> bytes:
        """As it is written."""
        text = json.dumps(self.__dict__, ensure_ascii=False, allow_nan=False).encode()
        return b"%08x %b\n" % (zlib.crc32(text), text)


class Pack:
    """A committed pack, read only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def number(self) -> int:
        """The newest catalog when it was written: every later one names this pack."""
        return int(self.folder.name.partition("-")[0])

    @cached_property
    def _index(self) -> dict[str, Any]:
        try:
            index: dict[str, Any] = json.loads(verified(self.folder / INDEX).read_text("utf-8"))
        except (StoreDamaged, ValueError, OSError):  # the lines say it as well
            return {"begins": {record.name: at for at, record in self._lines()}, "replaces": []}
        return index

    @property
    def names(self) -> Collection[str]:
        """Of its records."""
        begins: dict[str, int] = self._index["begins"]
        return begins.keys()

    @property
    def replaces(self) -> Iterable[str]:
        """Names of earlier packs whose records are in this one, or were removed."""
        replaced: list[str] = self._index["replaces"]
        return replaced

    def record(self, name: str) -> PackedRecord:
        """One of its records.

        Raises:
            StoreDamaged: its line is not what was committed.
        """
        begins: int = self._index["begins"][name]
        try:
            with (self.folder / RECORDS).open("rb") as file:
                file.seek(begins)
                record = _parsed(file.readline())
        except OSError as error:
            raise StoreDamaged(f"{self.folder / RECORDS} cannot be read: {error}") from error
        if record is None or record.name != name:
            raise StoreDamaged(f"{self.folder / RECORDS}: the record {name} is not what was committed")
        return record

    def _lines(self) -> Iterator[tuple[int, PackedRecord]]:
        """Where each line begins, and the record; damaged lines are left out."""
        begins = 0
        with suppress(OSError), (self.folder / RECORDS).open("rb") as file:
            for line in file:
                if (record := _parsed(line)) is not None:
                    yield begins, record
                begins += len(line)

    def table(self, name: str, file: str, columns: Iterable[str] | None = None) -> pa.Table:
        """The rows that a record has in a table, as they stood in its own file.

        Raises:
            StoreDamaged: they are not what was committed.

        Cost: reads the row groups that hold them.
        """
        path = self.folder / file
        wanted = [NAME, *columns] if columns is not None else None
        try:
            table = pq.read_table(
                path, columns=wanted, filters=[(NAME, "==", name)], page_checksum_verification=True, use_threads=False
            )
        except (OSError, pa.ArrowException) as error:
            raise StoreDamaged(f"{path} cannot be read: {error}") from error
        rows = self.record(name).tables.get(file)
        if len(table) != rows:
            raise StoreDamaged(f"{path} has {len(table)} rows of {name}, {rows} were committed")
        return table.drop_columns(NAME)

    def whole_table(self, file: str) -> pa.Table:
        """The rows of all records, those of each together, with the column of the names.

        Raises:
            StoreDamaged: they are not what was committed.
        """
        try:
            return pq.read_table(self.folder / file, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise StoreDamaged(f"{self.folder / file} cannot be read: {error}") from error

    def schema(self, file: str) -> pa.Schema:
        """The columns of a table, without that of the names.

        Raises:
            StoreDamaged: it cannot be read.
        """
        path = self.folder / file
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            raise StoreDamaged(f"{path} cannot be read: {error}") from error
        return schema.remove(schema.get_field_index(NAME))


class Packs:
    """The packs of a store; sees new ones as soon as they are committed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._places: dict[str, tuple[int, dict[str, Path]]] = {}

    def of(self, kind: str, *, replaced: bool = False) -> list[Pack]:
        """The packs of a kind that count, in the order of their names; or those that another one replaces."""
        packs = self._all(kind)
        gone = {name for pack in packs for name in pack.replaces}
        return [pack for pack in packs if (pack.folder.name in gone) == replaced]

    def counts(self, pack: Pack) -> bool:
        """Whether a pack is there, and no other one replaces it."""
        return pack.folder in [other.folder for other in self.of(pack.folder.parent.name)]

    def places(self, kind: str) -> Mapping[str, Path]:
        """Name -> path of each record that lies in a pack."""
        try:
            state = self._root.joinpath(kind).stat().st_mtime_ns
        except FileNotFoundError:
            return {}
        known = self._places.get(kind)
        if known is None or known[0] != state:
            places = {name: pack.folder / name for pack in self.of(kind) for name in pack.names}
            self._places[kind] = known = (state, places)
        return known[1]

    def _all(self, kind: str) -> list[Pack]:
        folder = self._root / kind
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        return [_pack(folder / name) for name in names]


def is_packed(path: Path) -> bool:
    """Whether a path is that of a record in a pack, or of a pack's table."""
    return path.parent.parent.parent.name == ROOT and (path.parent / RECORDS).exists()


def pack_of(folder: Path) -> Pack | None:
    """The pack in which a record lies; None for one that has a folder of its own."""
    return _pack(folder.parent) if is_packed(folder) else None


@lru_cache(maxsize=256)
def _pack(folder: Path) -> Pack:
    """A pack, whose index is read once: it never changes."""
    return Pack(folder)


def has_table(folder: Path, file: str) -> bool:
    """Whether a record has a table."""
    pack = pack_of(folder)
    return (folder / file).exists() if pack is None else file in pack.record(folder.name).tables


def table_columns(folder: Path, file: str) -> list[str]:
    """The columns of a record's table.

    Raises:
        StoreDamaged: it cannot be read.
    """
    pack = pack_of(folder)
    if pack is not None:
        return list(pack.schema(file).names)
    try:
        return list(pq.read_schema(folder / file).names)
    except FileNotFoundError:
        raise StoreDamaged(f"{folder / file} is missing") from None
    except (OSError, pa.ArrowException) as error:
        raise StoreDamaged(f"{folder / file} cannot be read: {error}") from error


def read_table(folder: Path, file: str, columns: Iterable[str] | None = None) -> pa.Table:
    """A record's table, verified.

    Raises:
        StoreDamaged: it is not what was committed.
    """
    pack = pack_of(folder)
    if pack is not None:
        return pack.table(folder.name, file, columns)
    try:
        return pq.read_table(verified(folder / file), columns=None if columns is None else [*columns])
    except (OSError, pa.ArrowException) as error:
        raise StoreDamaged(f"{folder / file} cannot be read: {error}") from error


def _parsed(line: bytes) -> PackedRecord | None:
    """The record of a line; None if the line is damaged."""
    crc, _, text = line.rstrip(b"\n").partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return None
    return PackedRecord(**json.loads(text))
