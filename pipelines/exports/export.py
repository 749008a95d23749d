"""A selection as files for a trainer: its rows in rank order or shuffled, in one shape, with a card.

PATH/
  README.md, provenance.json       the card
  data/train.jsonl, or train-00000-of-00004.jsonl ..., or .parquet
  dataset_info.json, ...           what the trainer reads beside the data
  left_out.jsonl                   rows that the shape cannot hold, each with its cause; only where there are any
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.context import Context
from pipelines.errors import BadExport, RowsLeftOut
from pipelines.exports.card import SourceCounts, Written, licence_columns, write_card
from pipelines.exports.exact_json import Number, dumps
from pipelines.exports.options import ExportOptions
from pipelines.exports.place import UrlFolder, check_place, place_of, writing
from pipelines.exports.rows import ExportRow, OrderedRows
from pipelines.exports.shapes import SHAPES, CannotHold, Record, record_of, whole_row
from pipelines.exports.trainers import TRAINERS, Trainer
from pipelines.exports.trainers import Written as Described
from pipelines.exports.writer import FieldKinds, JsonLines, Parquet, Writer
from pipelines.messages import counted, listed, nearest
from pipelines.named import selection_of
from selection.types import Rows
from storage.ids import Ids, from_arrow, to_bytes
from storage.pool.content import to_json, turns_from_columns
from storage.pool.examples import POOL_COLUMNS
from storage.pool.snapshot import Snapshot
from storage.records import read_selection

LEFT_OUT = "left_out.jsonl"
# Causes that an error names.
MAX_CAUSES = 8
# Of the pool and of the selection, which `columns` may name as well as fields of the user's files.
ROW_COLUMNS = ("id", "given_id", "source", "file", "line")
_IDENTIFIED = ("id", "given_id", "source")
ITEM_COLUMNS = ("rank", "gain", "kind", "ref", "value")


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes:
        selection: its id.
        rows: how many rows were written.
        left_out: cause -> how many were not.
        provenance: the content of provenance.json.
    """

    selection: str
    out: Path | UrlFolder
    rows: int
    left_out: Mapping[str, int]
    provenance: Mapping[str, Any] = field(repr=False)

    @property
    def summary(self) -> str:
        """A sentence for the user."""
        without = sum(self.left_out.values())
        return f"{counted(self.rows, 'row')} written to {self.out}" + (
            f"; {without:,} left out, see {self.out / LEFT_OUT}" if without else ""
        )


def export_selection(context: Context, name: str, options: ExportOptions, out: str | Path) -> ExportReport:
    """Export a recipe's last selection, or one by its id, as a folder; over an earlier export, at once if it is local.

    Raises:
        NotInStore: there is no such selection.
        BadExport: a column is unknown or in the way; or a trainer cannot read the rows; or a URL cannot be written to.
        RowsLeftOut: the shape cannot hold more rows than allowed; nothing was written.
        WouldOverwrite: `out` holds something that winnow did not write.

    Cost: reads the pool's row groups that hold a chosen row once, and the chosen rows again from a scratch folder
    beside `out`, for a URL in the store; memory of a block of rows, and 100 bytes a row.
    """
    place = place_of(out)
    check_place(place)
    selection = selection_of(context.store, name)
    header, items = read_selection(context.store, selection)
    snapshot = context.pool.with_scores(context.pool.snapshot_of(header["snapshot"]), header.get("scores", {}))
    ids = from_arrow(items["id"])
    if options.shards > max(len(ids), 1):
        raise BadExport("shards", f"must be in 1..{len(ids)}, the rows of the selection, found {options.shards}")
    order = np.arange(len(ids)) if options.shuffle is None else shuffled(ids, options.shuffle)
    title = name if name != selection else header["recipe"]
    columns = Columns(snapshot, items, order, options.columns)
    with writing(context.store, place) as staging:
        rows = OrderedRows(snapshot, ids[order], staging.scratch)
        run = _Run(title, options, columns, rows, *_shape(options, rows), order, place)
        run.write(staging.content)
        run.check_share()
        written = Written(
            name=title,
            folder=staging.content,
            data=run.files,
            beside=run.beside,
            rows=run.rows_written,
            left_out=dict(run.left_out.most_common()),
            options=asdict(options) | {"columns": list(options.columns)},
            use=run.use,
            features=run.kinds.features(options.container),
            sources=run.sources,
        )
        provenance = write_card(context.store, header, written)
    return ExportReport(selection, place, run.rows_written, written.left_out, provenance)


def shuffled(ids: Ids, seed: int) -> Rows:
    """(b,) the places of ids in the order of a hash of seed and id: it does not depend on the other ids."""
    keys = [hashlib.blake2b(b"%d " % seed + value, digest_size=16).digest() for value in to_bytes(ids)]
    return np.argsort(np.array(keys, "S16"), kind="stable").astype(np.int64)


class Columns:
    """The further fields of each record: columns of the row, of the selection, of the user's files and columns.

    Args:
        order: (b,) the item at each place.
        names: what the user asked for.

    Raises:
        BadExport: a name is unknown.
    """

    def __init__(self, snapshot: Snapshot, items: pa.Table, order: Rows, names: tuple[str, ...]) -> None:
        self._fields = snapshot.fields
        self._of_items = items.select(list(ITEM_COLUMNS)).take(pa.array(order))
        self._snapshot = snapshot
        imported = {
            name: column
            for name in (*names, *licence_columns(snapshot.known_columns()))
            if (column := self._imported(name)) is not None
        }
        rows = np.searchsorted(snapshot.ids, from_arrow(items["id"])[order])
        self._of_rows = {name: column.take(pa.array(rows)) for name, column in imported.items()}
        known = [*ROW_COLUMNS, *ITEM_COLUMNS, *self._fields]
        known += [name for name in snapshot.known_columns() if name not in POOL_COLUMNS]
        for name in names:
            if name not in (*ROW_COLUMNS, *ITEM_COLUMNS, *self._fields, *self._of_rows):
                raise BadExport(
                    "columns",
                    f"there is no column {name!r}{nearest(name, known)}; known are {listed(dict.fromkeys(known))}",
                )
        self.names = names
        self.licences = [name for name in licence_columns([*self._fields, *self._of_rows]) if self._is_first(name)]

    def values(self, row: ExportRow, names: Sequence[str], extra: Mapping[str, Any]) -> Record:
        """The values of some columns for a row; null where it has none."""
        return {name: self._value(name, row, extra) for name in names}

    def _value(self, name: str, row: ExportRow, extra: Mapping[str, Any]) -> Any:
        if name == "id":
            return row.id
        if name in ROW_COLUMNS:
            return row.stored[name]
        if name in self._of_rows:
            return _exact(self._of_rows[name][row.place].as_py())
        if name in ITEM_COLUMNS and name not in self._fields:
            return self._of_items[name][row.place].as_py()
        return extra.get(self._fields[name])

    def _imported(self, name: str) -> pa.ChunkedArray | None:
        return None if name in ROW_COLUMNS else self._snapshot.imported_column(name)

    def _is_first(self, name: str) -> bool:
        """Whether a field does not come under an earlier name as well."""
        same = [other for other, of in self._fields.items() if of == self._fields.get(name)]
        return not same or same[0] == name


@dataclass
class _Run:
    """One export on its way: converts the rows, writes what the shape holds, counts what it does not.

    Attributes:
        name: of the recipe.
        shape, record: the shape's name, and how a row becomes a record.
        order: (b,) the item at each place.
        out: where the export will lie.
    """

    name: str
    options: ExportOptions
    columns: Columns
    rows: OrderedRows
    shape: str
    record: Callable[[ExportRow], Record]
    order: Rows
    out: Path | UrlFolder
    files: list[Path] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
    rows_written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    sources: SourceCounts = field(default_factory=SourceCounts)
    kinds: FieldKinds = field(default_factory=FieldKinds)
    use: str = ""
    _examples: dict[str, str] = field(default_factory=dict)

    @property
    def _trainer(self) -> Trainer | None:
        return None if self.options.trainer is None else TRAINERS[self.options.trainer]

    def write(self, folder: Path) -> None:
        """Write the data, the list of rows left out and the trainer's file."""
        (folder / "data").mkdir()
        with self._writer(folder / "data") as writer, (folder / LEFT_OUT).open("wb") as causes:
            for rows in self.rows.blocks():
                places, records = [], []
                for row in rows:
                    try:
                        record = self._converted(row)
                    except CannotHold as cause:
                        causes.write(dumps(self._listed(row, str(cause))) + b"\n")
                        continue
                    self._count(row)
                    places.append(row.place)
                    records.append(record)
                self.kinds.add(records)
                writer.write(places, records)
            self.files = writer.files
        if self.left_out:
            self.beside.append(folder / LEFT_OUT)
        else:
            (folder / LEFT_OUT).unlink()
        self._describe(folder)

    def check_share(self) -> None:
        """Raise `RowsLeftOut` where more rows were left out than allowed."""
        count, total = sum(self.left_out.values()), len(self.order)
        if not count or count / total <= self.options.allow_left_out:
            return
        causes = [
            f"  {number:,}: {cause}, for example {self._examples[cause]}"
            for cause, number in self.left_out.most_common(MAX_CAUSES)
        ]
        if len(self.left_out) > MAX_CAUSES:
            causes.append(f"  and {counted(len(self.left_out) - MAX_CAUSES, 'further cause')}")
        share = -(-count * 10_000 // total) / 10_000
        raise RowsLeftOut(
            f"{count:,} of {counted(total, 'row')} of {self.name} cannot be exported as {self.shape}"
            + (f" for {self._trainer.title}" if self._trainer else "")
            + f", and {self.options.allow_left_out:g} is the share that may be left out; nothing was written:\n"
            + "\n".join(causes)
            + "\nChoose a shape that holds them, keep such rows out by the recipe's `where`, or leave them out: "
            f"--allow-left-out {share:g} (`allow_left_out` under `exports`)"
        )

    def _converted(self, row: ExportRow) -> Record:
        """The record of a row.

        Raises:
            CannotHold: the shape, or the trainer, cannot hold it.
        """
        if row.incomplete is not None:
            raise CannotHold(row.incomplete)
        record = self.record(row)
        if self._trainer is not None and self._trainer.check is not None:
            self._trainer.check(self.shape, record)
        if not self.columns.names:
            return record
        values = self.columns.values(row, self.columns.names, row.extra)
        for name in values:
            if name in record and not (name in _IDENTIFIED and self.shape in ("ids", "parquet")):
                raise BadExport("columns", f"{name!r} is a field of the records of {self.shape} already")
        return record | values

    def _listed(self, row: ExportRow, cause: str) -> Record:
        self.left_out[cause] += 1
        stored = row.stored
        self._examples.setdefault(cause, f"{stored['file']}:{stored['line']} ({row.id})")
        kept = {name: stored[name] for name in ("given_id", "source", "file", "line")}
        return {"rank": int(self.order[row.place]) + 1, "id": row.id, **kept, "cause": cause}

    def _count(self, row: ExportRow) -> None:
        licences = self.columns.values(row, self.columns.licences, row.extra) if self.columns.licences else {}
        self.sources.add(row.stored["source"], row.conversation.characters, licences)
        self.rows_written += 1

    def _writer(self, folder: Path) -> Writer:
        options, total = self.options, len(self.order)
        if options.container == "jsonl":
            return JsonLines(folder, options.shards, total)
        for rows in self.rows.blocks():
            for row in rows:
                with suppress(CannotHold):
                    self.kinds.add([self._converted(row)])
        return Parquet(folder, options.shards, total, self.kinds.kinds)

    def _describe(self, folder: Path) -> None:
        described = Described(
            name=self.name,
            shape=self.shape,
            folder=self.out,
            files=[str(path.relative_to(folder)) for path in self.files],
            fields=frozenset(self.kinds.kinds),
        )
        self.use = (self._trainer or TRAINERS["trl"]).use(described)
        for name, text in (self._trainer.beside(described) if self._trainer else {}).items():
            (folder / name).write_text(text, "utf-8")
            self.beside.append(folder / name)


def _shape(options: ExportOptions, rows: OrderedRows) -> tuple[str, Callable[[ExportRow], Record]]:
    """The shape's name, and how a row becomes a record."""
    if options.to == "ids":
        return "ids", _ids
    if options.to == "parquet":
        return "parquet", lambda row: row.names | record_of(whole_row, row.conversation)
    name = _shape_of_rows(rows) if options.to == "hf" else options.to
    shape = SHAPES[name]
    return name, lambda row: record_of(shape, row.conversation)


def _shape_of_rows(rows: OrderedRows) -> str:
    """The shape that holds the most of the rows."""
    kinds = Counter(
        (conversation.is_pair, conversation.text is not None)
        for block in rows.blocks()
        for conversation in (row.conversation for row in block)
    )
    names = {(True, True): "preference-text", (True, False): "preference", (False, True): "text"}
    return names.get(kinds.most_common(1)[0][0], "messages") if kinds else "messages"


def _ids(row: ExportRow) -> Record:
    """The names of a row, and the SHA-256 of what its id is a hash of: the JSON of its turns and its content."""
    stored = row.stored
    hashed = to_json(turns_from_columns(stored["prompt"], stored["response"], stored["messages"]))
    if stored["content_json"] is not None:
        hashed = b"[%b,%b]" % (hashed, stored["content_json"].encode())
    return row.names | {"sha256": hashlib.sha256(hashed).hexdigest()}


def _exact(value: Any) -> Any:
    """A cell of the user's columns as JSON has it."""
    if value is None or isinstance(value, (str, bool, int)):
        return Number(str(value)) if isinstance(value, int) and abs(value) >= 2**63 else value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return Number(to_json(value).decode())
