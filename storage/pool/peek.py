"""The first rows of a file, and how many it has in all, roughly: for a plan made before anything is read."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.parquet as pq

from storage.files import readers
from storage.files.user_files import FileState, opened
from storage.pool.content import Turns, turns_from_columns
from storage.pool.ingest import FileCounts, FileSpec, read_rows
from storage.store import Store

PEEK_BYTES = 8 << 20


@dataclass(frozen=True)
class Peek:
    """A look at a file.

    Attributes:
        size_bytes: of the file as it lies there, compressed or not.
        rows: how many it has: exactly if it is short or Parquet, else by the bytes of the first ones.
        turns: of some of its first readable rows.
    """

    size_bytes: int
    rows: int
    turns: list[Turns]


def size_of(store: Store, url: str) -> int:
    """The bytes of a file as it lies there.

    Raises:
        BadInput: it cannot be opened.
    """
    with opened(store, url) as file:
        return FileState.of(file).size


def peek(store: Store, spec: FileSpec, *, wanted: int = 32) -> Peek:
    """Look at the beginning of a file.

    Args:
        wanted: turns of so many rows, spread over those that were read.

    Raises:
        BadInput: it cannot be opened or read.

    Cost: reads its first 8 MiB; a remote file is fetched whole.
    """
    with opened(store, spec.url) as file:
        size = FileState.of(file).size
        exact = pq.ParquetFile(file).metadata.num_rows if readers.extension(spec.url) == ".parquet" and size else None
        file.seek(0)
        counts, turns, at = FileCounts(), [], size
        for rows in read_rows(file, spec, counts):
            columns = zip(rows.prompt, rows.response, rows.messages, strict=True)
            turns += [turns_from_columns(*row) for row in columns]
            if file.tell() >= PEEK_BYTES:
                at = max(file.tell(), 1)
                break
    estimate = round(counts.read * max(size / at, 1)) if exact is None else exact
    return Peek(size, estimate, turns[:: max(len(turns) // wanted, 1)][:wanted])
