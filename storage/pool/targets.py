"""Target sets: the examples of a task that a selection is to match.

records/targets/<id>/   targets.json, items.parquet (`ITEMS_SCHEMA`): rows in file order, exact repeats once

Where a part of the examples only measures, items.parquet has `measures` too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from storage.checksums import verified
from storage.damage import committed_whole, read_record
from storage.errors import BadInput, NotInStore
from storage.files.readers import extension
from storage.files.user_files import opened_as, url_digest
from storage.ids import Ids, from_arrow, from_bytes, to_bytes
from storage.pool.content import TURN_COLUMNS, Turns, turns_from_table
from storage.pool.forgotten import Forgotten
from storage.pool.ingest import FileCounts, FileSpec, read_rows
from storage.pool.record_formats import check_fields
from storage.records import digest_of
from storage.store import Store, utc_now, write_json

_TEXT = pa.string()
ITEMS_SCHEMA = pa.schema(
    [
        ("id", pa.uuid()),
        ("target_set", _TEXT),
        ("given_id", _TEXT),
        ("prompt", _TEXT),
        ("response", _TEXT),
        ("messages", _TEXT),
        ("file", _TEXT),
        ("line", pa.int64()),
    ]
)
MEASURES = pa.field("measures", pa.bool_())
_BATCH = 4096


class TargetSet:
    """A committed target set.

    Attributes:
        id, name: of the record; the user's name for it.
        header: the content of targets.json.
        ids: (m,) S16, in file order, unique.
        given_ids: (m,) the id each had in its file, None where there was none.
        conversations: (m,) the turns of each.
        measures: (m,) bool, the examples that only measure; None where all select.
    """

    def __init__(self, store: Store, targets_id: str) -> None:
        folder = store.path("records", "targets", targets_id)
        self.id = targets_id
        self.header = read_record("targets", folder)
        self.name: str = self.header["name"]
        self._items = pq.read_table(verified(folder / "items.parquet"))
        self.ids: Ids = from_arrow(self._items["id"]) if len(self._items) else np.empty(0, "S16")
        self.given_ids: list[str | None] = self._items["given_id"].to_pylist()
        self.conversations: list[Turns] = turns_from_table(self._items)
        measures = self._items.column_names
        self.measures = np.asarray(self._items[MEASURES.name]) if MEASURES.name in measures else None

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def example_names(self) -> list[str]:
        """(m,) what a person calls each example: the id in its file, else its place."""
        return [name or str(place) for place, name in enumerate(self.given_ids, start=1)]

    @property
    def selecting(self) -> npt.NDArray[np.int64]:
        """The places of the examples that steps see."""
        return np.arange(len(self)) if self.measures is None else np.flatnonzero(~self.measures)

    @property
    def measuring(self) -> npt.NDArray[np.int64]:
        """The places of the examples that only measure."""
        return np.empty(0, np.int64) if self.measures is None else np.flatnonzero(self.measures)

    def occurrence_keys(self) -> tuple[Ids, pa.ChunkedArray]:
        """The targets' ids, and those they had in their files, null for none."""
        return self.ids, self._items["given_id"]

    def turns(self, wanted: Ids) -> Iterator[tuple[Ids, list[Turns]]]:
        """The turns of some of the targets, in file order, in batches.

        Raises:
            NotInStore: an id is not of this set.
        """
        is_wanted = np.isin(self.ids, wanted)
        if is_wanted.sum() < len(np.unique(wanted)):
            raise NotInStore(f"target set {self.name!r} does not hold all of the ids asked for")
        positions = np.flatnonzero(is_wanted)
        for start in range(0, len(positions), _BATCH):
            part = positions[start : start + _BATCH]
            yield self.ids[part], turns_from_table(self._items.select(TURN_COLUMNS).take(part))


def ingest_targets(
    store: Store, name: str, specs: Sequence[FileSpec], measure: float | Sequence[str] | None = None
) -> TargetSet:
    """Commit a target set, unless the store has it.

    Target sets are small and every row pulls candidates, so a row that cannot be read is an error, not a statistic.

    Args:
        measure: which examples only measure: a share, drawn by hash of their ids, so that an example stays what it is
            when others come; or the URLs of some of the files. An example that is in another file too only measures.

    Raises:
        BadInput: a file cannot be read, a row of it cannot, or there is no row at all; or none is left to select or
            measure.
    """
    digests = []
    for spec in specs:
        if spec.fields is not None:
            check_fields(spec.fields, f"targets {name!r}: {spec.url}")
        fields = dict(spec.fields or {})
        digests.append([url_digest(store, spec.url), spec.encoding, fields, extension(spec.url), spec.source])
    depends_on: dict[str, Any] = {"name": name, "files": digests}
    if measure is not None:
        of_files = None if isinstance(measure, float) else [spec.url in measure for spec in specs]
        depends_on["measure"] = measure if of_files is None else of_files
    targets_id = digest_of(depends_on)
    if not committed_whole(store, "targets", targets_id):
        items, files, counts = _read(store, name, specs, [str(digest) for digest, *_ in digests])
        if measure is not None:
            items = _with_measures(name, items, files, measure)
        with store.committing("records", "targets", targets_id) as folder:
            pq.write_table(items, folder / "items.parquet", compression="zstd")
            header = {
                "targets": targets_id,
                "name": name,
                "files": [spec.url for spec in specs],
                "read": counts.read,
                "rows": len(items),
                "empty_responses": counts.empty_responses,
                "shapes": dict(counts.formats),
                "created_at": utc_now(),
            }
            if measure is not None:
                header["measure"] = measure if isinstance(measure, float) else list(measure)
            write_json(folder / "targets.json", header)
    return TargetSet(store, targets_id)


def open_targets(store: Store, targets_id: str) -> TargetSet:
    """A committed target set.

    Raises:
        NotInStore: there is none of this id.
    """
    if not store.has("records", "targets", targets_id):
        raise NotInStore(f"no targets {targets_id!r} in {store.root}")
    return TargetSet(store, targets_id)


def _with_measures(
    name: str, items: pa.Table, files: Mapping[bytes, set[str]], measure: float | Sequence[str]
) -> pa.Table:
    """The items with the column `measures`."""
    ids = to_bytes(from_arrow(items["id"]))
    if isinstance(measure, float):
        measures = [_uniform(id_) < measure for id_ in ids]
    else:
        measures = [not files[id_].isdisjoint(measure) for id_ in ids]
    if all(measures) or not any(measures):
        left = "to select by" if all(measures) else "that only measures"
        raise BadInput(f"targets {name!r}: `measure` of {len(ids)} examples leaves none {left}")
    return items.append_column(MEASURES, pa.array(measures))


def _uniform(id_: bytes) -> float:
    """A number in [0, 1) that depends on an id alone."""
    return int.from_bytes(hashlib.blake2b(id_, digest_size=8, person=b"measure").digest(), "big") / 2**64


def _read(
    store: Store, name: str, specs: Sequence[FileSpec], digests: Sequence[str]
) -> tuple[pa.Table, dict[bytes, set[str]], FileCounts]:
    """The items, the files that each is in, and counts."""
    files: dict[bytes, set[str]] = {}
    items: dict[bytes, dict[str, Any]] = {}
    total, refused = FileCounts(), Forgotten(store)
    for spec, digest in zip(specs, digests, strict=True):
        counts = FileCounts()
        with opened_as(store, spec.url, digest) as (file, _):
            for rows in read_rows(file, spec, counts):
                for bad in rows.bad:
                    raise BadInput(f"targets {name!r}: {spec.url} line {bad.line}: {bad.cause}: {bad.excerpt[:80]}")
                is_refused = refused.has(from_bytes(rows.id))
                for i, id_ in enumerate(rows.id):
                    if is_refused[i]:
                        continue
                    files.setdefault(id_, set()).add(spec.url)
                    if id_ not in items:
                        fields = {field: getattr(rows, field)[i] for field in ("given_id", *TURN_COLUMNS, "line")}
                        items[id_] = {"id": id_, "target_set": name, "file": spec.url, **fields}
        total.readable += counts.readable
        total.empty_responses += counts.empty_responses
        total.formats.update(counts.formats)
    if not items:
        raise BadInput(f"targets {name!r}: no rows in {', '.join(spec.url for spec in specs) or 'no files'}")
    return pa.Table.from_pylist(list(items.values()), ITEMS_SCHEMA), files, total
