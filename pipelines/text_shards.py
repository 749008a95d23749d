"""Work on the texts of a pool by shards of row groups: what each process finds goes through a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.types import Rows
from storage.ids import rows_of
from storage.pool.content import text_of
from storage.pool.snapshot import RowGroups, Snapshot, open_snapshot
from storage.shards import Map, Report, so_far
from storage.store import Store, read_array

SHARD_ROWS = 2**15

Work = Callable[[list[str]], list[bytes]]


@dataclass(frozen=True)
class SnapshotTexts:
    """The texts of a snapshot, for processes; see `selection.types.TextMap`.

    Attributes:
        parallel: where the shards are worked on.
        on_rows: called with the number of rows done so far and of all that are asked for.
    """

    snapshot: Snapshot
    parallel: Map
    on_rows: Callable[[int, int], object]

    def __call__(self, work: Work, rows: Rows) -> Iterable[bytes]:
        """See `TextMap`. Memory: what the work gives for all rows."""
        store = self.snapshot.store
        with store.scratch("texts") as folder:
            is_wanted = np.zeros(len(self.snapshot), np.bool_)
            is_wanted[rows] = True
            np.save(folder / "wanted.npy", is_wanted)
            shards = [
                TextShard(
                    store.root, self.snapshot.id, work, groups, folder / "wanted.npy", folder / f"{number}.parquet"
                )
                for number, groups in enumerate(self.snapshot.shards(SHARD_ROWS))
            ]
            for _ in self.parallel(work_on_texts, shards, so_far(self.on_rows, len(rows))):
                pass
            table = pa.concat_tables([_SCHEMA.empty_table(), *(pq.read_table(shard.file) for shard in shards)])
        place = np.full(len(self.snapshot), -1, np.int64)
        place[table["row"].to_numpy()] = np.arange(len(table))
        values = table["value"].combine_chunks()
        return (values[at].as_py() for at in place[rows].tolist())


_SCHEMA = pa.schema([("row", pa.int64()), ("value", pa.large_binary())])


@dataclass(frozen=True)
class TextShard:
    """Texts that any process can read.

    Attributes:
        root: of the store.
        wanted: an array with a mask of the snapshot's rows.
        file: where the work's values go.
    """

    root: Path
    snapshot: str
    work: Work
    groups: RowGroups
    wanted: Path
    file: Path

    def __str__(self) -> str:
        return str(self.groups)


def work_on_texts(shard: TextShard, report: Report) -> int:
    """Write the values of a shard's texts; gives how many."""
    snapshot, is_wanted = open_snapshot(Store(shard.root), shard.snapshot), read_array(shard.wanted)
    count = 0
    with pq.ParquetWriter(shard.file, _SCHEMA) as writer:
        for ids, turns in snapshot.turns_in(shard.groups):
            rows = rows_of(ids, snapshot.ids)
            chosen = np.flatnonzero(is_wanted[rows])
            if len(chosen):
                values = shard.work([text_of(turns[place]) for place in chosen.tolist()])
                writer.write_table(pa.table([pa.array(rows[chosen]), pa.array(values, pa.large_binary())], _SCHEMA))
                count += len(chosen)
                report(len(chosen))
    return count
