"""A recipe's rows among those of the pool, as a table that embedding-atlas opens: a map to search, filter and read in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.named import selection_of
from pipelines.recipes.drawn import Drawn, column_codes, unit
from pipelines.recipes.explain import why
from pipelines.report.maps import Map, located_targets, pool_map
from selection.types import Array, Rows
from storage.errors import NotInStore
from storage.ids import to_text
from storage.pool.content import text_of

PROGRAM = "embedding-atlas"
ROWS, SEED = 20_000, 20_251
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("what", pa.string()),
        ("source", pa.string()),
        ("text", pa.string()),
        ("rank", pa.int32()),
        ("why", pa.string()),
        ("gain", pa.float64()),
        ("value", pa.float64()),
        ("x", pa.float32()),
        ("y", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Exploration:
    """A table to explore.

    Attributes:
        path: a Parquet file, with a row for each target, each selected row and some other rows of the pool: `what` is
            `target`, `selected` or `pool`.
        rows: how many of each.
        command: opens it.
    """

    path: Path
    rows: dict[str, int]
    command: list[str]

    @property
    def program(self) -> str | None:
        """Where embedding-atlas is installed, beside this Python or on the PATH; None if it is not."""
        return shutil.which(PROGRAM, path=str(Path(sys.executable).parent)) or shutil.which(PROGRAM)


def explore(context: Context, name: str, path: Path, *, rows: int = ROWS) -> Exploration:
    """Write a selection's rows, its targets and a seeded sample of the other rows of its pool, with their place on the map.

    Args:
        name: a recipe, or what else `pipelines.named.selection_of` takes.
        path: the Parquet file to write; replaced if it is there.
        rows: of the pool, beside the selected ones.

    Raises:
        NotInStore: there is no such selection, or no encoder has vectors of its pool.

    Cost: reads the texts of the pool once; holds the vectors of the rows that are written in float32.
    """
    drawn = Drawn(context.pool, selection_of(context.store, name))
    plane = _map(context, drawn)
    selected = drawn.rows[drawn.rows >= 0]
    others = np.setdiff1d(np.arange(len(drawn.snapshot)), selected)
    others = np.sort(np.random.default_rng(SEED).choice(others, min(rows, len(others)), replace=False))
    counts = {"target": 0, "selected": len(selected), "pool": len(others)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for table in _targets(drawn, plane):
            counts["target"] += len(table)
            writer.write_table(table)
        for table in _rows(drawn, plane, np.sort(np.concatenate([selected, others]))):
            writer.write_table(table)
    return Exploration(path, counts, [PROGRAM, str(path), *["--text", "text", "--x", "x", "--y", "y"]])


def _map(context: Context, drawn: Drawn) -> Map:
    """The map of the encoder that the selection was drawn by, else of the first that has vectors of its pool."""
    of_recipe = [drawn.spec.encoder] if drawn.spec.encoder is not None else []
    for encoder in [*of_recipe, *map(context.pool.fingerprint, context.config.vector_names)]:
        if (plane := pool_map(drawn, encoder)) is not None:
            return plane
    raise NotInStore(
        f"no encoder has vectors of the pool that {drawn.selection_id} was drawn from, so there is no map of it: "
        "add a recipe that needs vectors, and run `winnow run`"
    )


def _targets(drawn: Drawn, plane: Map) -> Iterator[pa.Table]:
    """The examples that the selection was drawn for, where its vectors are those of the map."""
    for name, target_set, located in located_targets(plane, drawn):
        places = target_set.selecting.tolist()
        yield _table(
            located,
            id=[f"{name}/{target_set.example_names[place]}" for place in places],
            what=["target"] * len(places),
            source=[name] * len(places),
            text=[text_of(target_set.conversations[place]) for place in places],
        )


def _rows(drawn: Drawn, plane: Map, rows: Rows) -> Iterator[pa.Table]:
    """Some rows of the pool, ascending."""
    ids = drawn.snapshot.ids[rows]
    codes, sources = column_codes(drawn.view, drawn.snapshot, "source")
    picks = dict(zip(drawn.ids.tolist(), drawn.items.to_pylist(), strict=True))
    vectors = drawn.vectors(plane.encoder)
    row_of = dict(zip(ids.tolist(), rows.tolist(), strict=True))
    for batch, conversations in drawn.snapshot.turns(ids):
        places = np.array([row_of[id_] for id_ in batch.tolist()])
        items = [picks.get(id_) for id_ in batch.tolist()]
        yield _table(
            plane.plane.project(unit(vectors.take(places))),
            id=to_text(batch),
            what=["pool" if item is None else "selected" for item in items],
            source=[str(sources[code]) for code in codes[places].tolist()],
            text=[text_of(turns) for turns in conversations],
            rank=[None if item is None else item["rank"] for item in items],
            why=[None if item is None else why(item) for item in items],
            gain=[None if item is None else item["gain"] for item in items],
            value=[None if item is None else item["value"] for item in items],
        )


def _table(places: Array, **columns: Sequence[object]) -> pa.Table:
    x, y = places.T
    missing = [None] * len(places)
    return pa.table({key: columns.get(key, missing) for key in SCHEMA.names} | {"x": x, "y": y}, schema=SCHEMA)
