"""Writes packs: see `storage.packs`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.errors import StoreDamaged
from storage.packs import INDEX, NAME, RECORDS, ROOT, Pack, PackedRecord
from storage.store import Store, write_json

# Rows of a table in memory at once; a record's rows are found among so many.
GROUP_ROWS = 1 << 16

Source = tuple[PackedRecord, Callable[[str], pa.Table]]
"""A record, and what reads a table of it."""


def write_pack(store: Store, kind: str, sources: Iterable[Source], replaces: Iterable[Pack] = ()) -> Path | None:
    """Commit a pack; gives its folder, None if there is nothing to pack.

    Args:
        sources: in the order of their names.
        replaces: packs that no longer count once this one is committed.

    Cost: one pass over the records; memory for a table's rows of `GROUP_ROWS`.
    """
    replaced = sorted({name for pack in replaces for name in (pack.folder.name, *pack.replaces)})
    with store.scratch(f"pack-{kind}") as folder:
        begins, content = _write(folder, sources)
        if not begins and not replaced:
            return None
        digest = hashlib.blake2b(f"{content} {replaced}".encode(), digest_size=8).hexdigest()
        name = f"{max(store.catalog_numbers(), default=0):06d}-{digest}"
        write_json(folder / INDEX, {"begins": begins, "replaces": replaced})
        with store.committing(ROOT, kind, name) as new:
            for path in folder.iterdir():
                path.rename(new / path.name)
    return store.path(ROOT, kind, name)


def records_of(pack: Pack, names: Iterable[str]) -> Iterator[Source]:
    """Some records of a pack, its tables read as a whole.

    Raises:
        StoreDamaged: one of them is not what was committed.
    """
    read = cache(lambda file: _by_record(pack.whole_table(file)))
    for name in names:
        yield pack.record(name), partial(_rows_of, read, name)


def _rows_of(read: Callable[[str], Callable[[str], pa.Table]], name: str, file: str) -> pa.Table:
    return read(file)(name)


def _by_record(table: pa.Table) -> Callable[[str], pa.Table]:
    """What gives the rows of a record, which stand together."""
    runs = pc.run_end_encode(table[NAME].combine_chunks())
    ends = [0, *runs.run_ends.to_pylist()]
    bounds = dict(zip(runs.values.to_pylist(), pairwise(ends), strict=True))
    rows = table.drop_columns(NAME)

    def of(name: str) -> pa.Table:
        start, stop = bounds.get(name, (0, 0))
        return rows.slice(start, stop - start)

    return of


def undamaged_records(pack: Pack) -> list[Source]:
    """The records of a pack that are as they were committed, also where others of it are not.

    Cost: reads it, record by record.
    """
    return [(pack.record(name), partial(pack.table, name)) for name in pack.names if _is_whole(pack, name)]


def _is_whole(pack: Pack, name: str) -> bool:
    try:
        for file in pack.record(name).tables:
            pack.table(name, file)
    except StoreDamaged:
        return False
    return True


def _write(folder: Path, sources: Iterable[Source]) -> tuple[dict[str, int], str]:
    """Write lines and tables; name -> where its line begins, and a digest of all lines."""
    begins: dict[str, int] = {}
    digest = hashlib.blake2b(digest_size=8)
    tables: dict[str, _Table] = {}
    with ExitStack() as stack, (folder / RECORDS).open("wb") as lines:
        for record, read in sources:
            if record.name in begins:  # of two packs, where the index that says which of them counts is damaged
                continue
            begins[record.name] = lines.tell()
            lines.write(line := record.line())
            digest.update(line)
            for file in record.tables:
                if file not in tables:
                    tables[file] = stack.enter_context(_Table(folder / file))
                tables[file].add(record.name, read(file))
    return begins, digest.hexdigest()


class _Table:
    """A table of many records, written in row groups."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[pa.Table] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, name: str, table: pa.Table) -> None:
        rows = table.add_column(0, NAME, pa.repeat(pa.scalar(name), len(table)))
        if self._writer is None:
            self._writer = _writer(self._path, rows.schema)
        self._waiting.append(rows.cast(self._writer.schema))
        if sum(map(len, self._waiting)) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is not None and self._waiting:
            table = pa.concat_tables(self._waiting)
            self._writer.write_table(table, row_group_size=max(len(table), 1))
            self._waiting = []


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if field.type == pa.string()]
    whole = {field.name: "DELTA_BINARY_PACKED" for field in schema if pa.types.is_integer(field.type)}
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        data_page_version="2.0",
        use_dictionary=texts,
        column_encoding=whole,
        write_page_checksum=True,
    )
