"""The rows of a snapshot in any order, in blocks: the pool is read once, in its own order, and sorted on disk.

Each row goes into the scratch file of its block; a block is then read back and ordered in memory. So memory holds a
block and a row group, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.exports.conversation import Conversation, stored_conversation
from pipelines.exports.exact_json import loads
from storage.ids import Ids, from_arrow, rows_of, to_arrow, to_text
from storage.pool.record_formats import MESSAGES
from storage.pool.snapshot import Snapshot

BLOCK_ROWS = 8192
# Scratch files that are open at once.
MAX_BLOCKS = 256
_COLUMNS = ("prompt", "response", "messages", "content_json", "source", "given_id", "extra", "ingest", "file", "line")
_EARLY_KEYS = {"role", "from", "content", "value", "text"}


@dataclass(frozen=True)
class ExportRow:
    """A row on its way out.

    Attributes:
        place: in the order asked for, from 0.
        id: winnow's, as text.
        stored: the columns of the pool.
        incomplete: why the store does not have all of it; None if it has.
    """

    place: int
    id: str
    stored: dict[str, Any]
    incomplete: str | None

    @property
    def names(self) -> dict[str, Any]:
        """Winnow's id, the one of the user's file, and the source."""
        return {"id": self.id, "given_id": self.stored["given_id"], "source": self.stored["source"]}

    @cached_property
    def conversation(self) -> Conversation:
        """Its content."""
        stored = self.stored
        return stored_conversation(stored["prompt"], stored["response"], stored["messages"], stored["content_json"])

    @cached_property
    def extra(self) -> dict[str, Any]:
        """The fields of the user's file that winnow has no name for."""
        extra: dict[str, Any] = {} if self.stored["extra"] is None else loads(self.stored["extra"])
        return extra


class OrderedRows:
    """The rows of some ids, in their order; `blocks` may be read again and again.

    Args:
        ids: (b,) of the snapshot, each once.
        scratch: an empty folder, which takes the stored columns of the rows, uncompressed.
        block_rows: rows of a block; more where there would be too many blocks.

    Raises:
        NotInStore: an id is not of the snapshot.

    Cost: reads the row groups of the pool that hold a row, once.
    """

    def __init__(self, snapshot: Snapshot, ids: Ids, scratch: Path, block_rows: int = BLOCK_ROWS) -> None:
        self._scratch, self._early = scratch, snapshot.early_ingests
        size = max(block_rows, -(-len(ids) // MAX_BLOCKS))
        self._count = -(-len(ids) // size)
        order = np.argsort(ids, kind="stable")
        ascending = ids[order]
        with ExitStack() as opened:
            writers: dict[int, pa.RecordBatchStreamWriter] = {}
            for batch, table in snapshot.tables(ids, _COLUMNS):
                places = order[rows_of(batch, ascending)]
                placed = table.append_column("place", pa.array(places)).append_column("id", to_arrow(batch))
                blocks = places // size
                for number in np.unique(blocks).tolist():
                    if number not in writers:
                        writers[number] = pa.ipc.new_stream(str(self._file(number)), placed.schema)
                        opened.enter_context(writers[number])
                    writers[number].write_table(placed.filter(pa.array(blocks == number)))

    def blocks(self) -> Iterator[list[ExportRow]]:
        """Yield the rows in their order, a block at a time."""
        for number in range(self._count):
            with pa.ipc.open_stream(str(self._file(number))) as reader:
                table = reader.read_all().sort_by("place")
            names = to_text(from_arrow(table["id"]))
            places = table["place"].to_pylist()
            columns = [table[name].to_pylist() for name in _COLUMNS]
            stored = [dict(zip(_COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]
            yield [
                ExportRow(place, name, row, self._incomplete(row))
                for place, name, row in zip(places, names, stored, strict=True)
            ]

    def _file(self, number: int) -> Path:
        return self._scratch / f"{number:05d}.arrow"

    def _incomplete(self, row: dict[str, Any]) -> str | None:
        """Files that an earlier version read kept tool calls and the like beside the turns, among the extra fields."""
        if row["ingest"] not in self._early or row["extra"] is None:
            return None
        extra = loads(row["extra"])
        for name in MESSAGES:
            messages = extra.get(name)
            if isinstance(messages, list) and any(isinstance(m, dict) and m.keys() - _EARLY_KEYS for m in messages):
                return "its file was read by an earlier version, which kept only role and text: `winnow run --reread`"
        return None
