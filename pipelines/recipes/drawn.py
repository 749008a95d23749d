"""A committed selection with all that a report or an answer asks of it, each part read once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.pool_view import PoolView
from pipelines.recipes.spec import SelectionSpec
from selection import Pool
from selection.constraints import Quota
from selection.sticky import NAME as STICKY
from selection.types import Array, Input, Rows
from storage.ids import Ids, from_arrow, rows_of
from storage.packs import has_table, read_table
from storage.pool.content import text_of
from storage.pool.snapshot import Snapshot
from storage.records import read_selection, record_folder
from storage.store import Store
from storage.vectors.segments import StoredVectors


class StickyLine(NamedTuple):
    """What a sticky draw did with a row.

    Attributes:
        kind: "stays", "kept", "replaces" or "fills"; "replaced", "no_place" or "held_back".
        ref: the id that it replaces or that replaced it, or the constraint that has no place.
        value: its place in the last selection, or of a row that is held back in the fresh draw.
    """

    kind: str
    ref: str | None
    value: float | None


class Drawn:
    """A committed selection on the snapshot that it was drawn from.

    Attributes:
        header, items: its record.
        ids: (b,) in pick order.
        spec, snapshot: what it was drawn from.

    Raises:
        NotInStore, StoreDamaged: it, or its snapshot, is not there or not whole.
    """

    def __init__(self, view: PoolView, selection_id: str) -> None:
        self.view, self.selection_id = view, selection_id
        self.header, self.items = read_selection(view.store, selection_id)
        self.ids: Ids = from_arrow(self.items["id"])
        self.spec = SelectionSpec.from_record(self.header)
        self.snapshot: Snapshot = view.snapshot_of(self.header["snapshot"])

    @property
    def store(self) -> Store:
        return self.view.store

    @property
    def folder(self) -> Path:
        """Its record."""
        return record_folder(self.store, "selection", self.selection_id)

    @cached_property
    def rows(self) -> Rows:
        """(b,) the rows of the snapshot."""
        return rows_of(self.ids, self.snapshot.ids)

    def item(self, place: int) -> dict[str, Any]:
        """The record of a pick."""
        item: dict[str, Any] = self.items.slice(place, 1).to_pylist()[0]
        return item

    @cached_property
    def dropped(self) -> dict[str, Ids]:
        """Filter -> the ids that it left out, of the filters that say so."""
        if not has_table(self.folder, "dropped.parquet"):
            return {}
        table = read_table(self.folder, "dropped.parquet", ["id", "step"])
        steps, ids = np.asarray(table["step"].to_pylist(), object), from_arrow(table["id"])
        return {str(step): np.sort(ids[steps == step]) for step in dict.fromkeys(steps.tolist()) if step != STICKY}

    @cached_property
    def sticky(self) -> dict[bytes, StickyLine]:
        """Id -> what `mode: sticky` did with the row; empty for other modes."""
        lines: dict[bytes, StickyLine] = {}
        for name in ("found", "dropped"):
            if self.spec.max_churn is None or not has_table(self.folder, f"{name}.parquet"):
                continue
            table = read_table(self.folder, f"{name}.parquet")
            table = table.filter(pc.equal(table["step"], STICKY))
            columns = (table[column].to_pylist() for column in ("kind", "ref", "value"))
            lines |= {
                id_: StickyLine(*line) for id_, *line in zip(from_arrow(table["id"]).tolist(), *columns, strict=True)
            }
        return lines

    def vectors(self, encoder: str) -> StoredVectors:
        """The vectors of the snapshot's rows."""
        return self.view.vectors(encoder, self.snapshot)

    def target_text(self, ref: str) -> str | None:
        """The text of the example of a target set that a reason names; None if no set of the recipe has it."""
        for targets_id in self.spec.targets.values():
            target_set = self.view.target_set_of(targets_id)
            for name, conversation in zip(target_set.example_names, target_set.conversations, strict=True):
                if ref in (name, f"{target_set.name}/{name}"):
                    return text_of(conversation)
        return None

    @cached_property
    def target_texts(self) -> dict[str, str]:
        """Set and name of each example of the target sets, as a reason names it -> its text."""
        sets = [self.view.target_set_of(targets_id) for targets_id in self.spec.targets.values()]
        return {
            f"{target_set.name}/{name}": text_of(conversation)
            for target_set in sets
            for name, conversation in zip(target_set.example_names, target_set.conversations, strict=True)
        }

    @property
    def sees_targets(self) -> bool:
        """Whether its steps saw targets as vectors."""
        return Input.TARGETS in self.spec.inputs


def column_codes(view: PoolView, snapshot: Snapshot, column: str) -> tuple[Rows, Array]:
    """(n,) the number of each row's value in a column, and the distinct values; read once.

    Raises:
        BadInput: there is no such column.
    """

    def read() -> tuple[Rows, Array]:
        values = snapshot.column(column)
        # Arrow numbers texts and missing values ten times as fast as a dict does.
        encoded = pa.array(values, from_pandas=True).dictionary_encode(null_encoding="encode")
        distinct = np.empty(len(encoded.dictionary), values.dtype)
        distinct[:] = [
            np.nan if value is None and values.dtype.kind == "f" else value for value in encoded.dictionary.to_pylist()
        ]
        return encoded.indices.to_numpy().astype(np.int64), distinct

    return view.once("codes", f"{snapshot.id} {column}", read)


def quota_groups(view: PoolView, drawn: Drawn, quota: Quota) -> tuple[Rows, tuple[str, ...]]:
    """(n,) the group of each row of the snapshot, -1 where the quota says nothing of it, and the groups' names.

    Raises:
        BadInput: the quota's column is none of the snapshot's own.
    """
    codes, values = column_codes(view, drawn.snapshot, quota.by)
    group, names = quota.groups(Pool(columns={quota.by: values}))
    return group[codes], names


def unit(vectors: Array) -> Array:
    """(n, d) float32 of norm 1; a vector of zeros stays so.

    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    wide = np.asarray(vectors, np.float32)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(norms > 0, norms, 1), np.float32)
