"""What became of a line of a file of the pool."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from storage.checksums import verified
from storage.ids import Ids, from_arrow
from storage.pool.ingest import parts
from storage.pool.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Line:
    """A row of a file, readable or not.

    Attributes:
        file, line: where it stands.
        id: (1,) of a readable row, that of a repeat included; None of another.
        cause, excerpt: why it could not be read, and how it begins; None of a readable row.
    """

    file: str
    line: int
    id: Ids | None
    cause: str | None = None
    excerpt: str | None = None


def find_lines(snapshot: Snapshot, file: str, line: int) -> list[Line]:
    """The rows at a line of the files of a snapshot that are called so.

    Args:
        file: as in the column `file` of `quarantine`, the end of it by whole folders, or a path that ends in it.
        line: as there, from 1.

    Cost: reads the column of line numbers.
    """
    lines = []
    for ingest in snapshot.ingests:
        for path in parts(snapshot.store, ingest):
            at = _at(pq.read_table(verified(path), columns=["id", "file", "line"], filters=[("line", "=", line)]), file)
            lines += [Line(at["file"][i].as_py(), line, from_arrow(at["id"])[i : i + 1]) for i in range(len(at))]
        bad = pq.read_table(
            verified(snapshot.store.path("quarantine", ingest, "rows.parquet")), filters=[("line", "=", line)]
        )
        lines += [Line(row["file"], line, None, row["cause"], row["excerpt"]) for row in _at(bad, file).to_pylist()]
    return lines


def _at(table: pa.Table, file: str) -> pa.Table:
    wanted = [f"/{name}".endswith(f"/{file}") or file.endswith(f"/{name}") for name in table["file"].to_pylist()]
    return table.filter(pa.array(wanted, pa.bool_()))
