"""A pool at a moment: its ingests, its live ids, and the occurrence that stands for each id.

    records/snapshots/<id>/
      snapshot.json        ingests (sorted), parent, columns, counts by ingest
      ids.npy              (n,) S16, ascending, unique: an id's position is its **row**
      rows.npy             (occurrences,) int64, in order of ingest and line: the row, or ~row of a duplicate
      duplicates.parquet   every occurrence that does not stand for its id
      tombstones.parquet   ids that live in the parent and not here
      column_rows/<digest>.npy   (m,) int64: the row of each key of a user's columns, -1 = none
      column_rows/<digest>.parquet   the same columns keyed by id, for SQL

Which occurrence stands for an id is a matter of files' names and lines alone: the first of them, unless the user
prefers some sources or the newest. What else a file holds, and in which order files are read, never matters.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection.types import SCORES
from storage.checksums import verified
from storage.damage import committed_whole, damage_of, note, read_record
from storage.duck import quoted
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.files.lists import read_lines
from storage.ids import Ids, from_arrow, rows_of, to_arrow, to_text
from storage.pool.columns import read_columns
from storage.pool.content import TURN_COLUMNS, Turns, prompt_of, text_of, turns_from_table
from storage.pool.evaluation import ConditionFailed, OverLimit
from storage.pool.examples import (
    POOL_COLUMNS,
    Column,
    Examples,
    ImportedColumns,
    KeyedColumns,
    by_row,
    columns_of,
    sql_names,
)
from storage.pool.extra import common_type
from storage.pool.ingest import POOL_SCHEMA, RULES, Ingest, parts, read_ingest
from storage.pool.keys import KeyMatch, match_keys
from storage.pool.leaks import Questions
from storage.records import digest_of, next_number
from storage.store import Store, read_array, utc_now, write_json

_TEXT = pa.string()
DUPLICATES_SCHEMA = pa.schema(
    [
        ("snapshot", _TEXT),
        ("id", pa.uuid()),
        ("ingest", _TEXT),
        ("file", _TEXT),
        ("line", pa.int64()),
        ("source", _TEXT),
        ("given_id", _TEXT),
        ("kept_ingest", _TEXT),
        ("kept_line", pa.int64()),
    ]
)
TOMBSTONES_SCHEMA = pa.schema([("id", pa.uuid()), ("ingest", _TEXT), ("reason", _TEXT)])


@dataclass(frozen=True)
class RowGroups:
    """Row groups of a snapshot's files that stand together: what a process can read by itself.

    Attributes:
        files: the places of files among those of the snapshot, each with the numbers of its row groups.
        start: the place of the first row among the snapshot's occurrences.
        rows: how many.
    """

    files: tuple[tuple[int, range], ...]
    start: int
    rows: int

    def __str__(self) -> str:
        return f"{self.rows:,} rows of the pool from row {self.start:,} on"


class Snapshot:
    """A committed snapshot.

    Attributes:
        store, id: where it lies; its `name` is its id.
        header: the content of snapshot.json.
        ingests: ids of the ingests, sorted.
        counts: ingest -> read, kept, duplicate, quarantined, empty_responses.
        parent: the snapshot that was taken before, None for the first.
        columns: digests of the user's columns.
    """

    def __init__(self, store: Store, snapshot_id: str) -> None:
        self.store, self.id, self.name = store, snapshot_id, snapshot_id
        self.folder = store.path("records", "snapshots", snapshot_id)
        self.header: dict[str, Any] = read_record("snapshots", self.folder)
        self.ingests: list[str] = self.header["ingests"]
        self.counts: dict[str, dict[str, int]] = self.header["counts"]
        self.parent: str | None = self.header["parent"]
        self.columns: list[str] = self.header["columns"]
        self._further: tuple[KeyedColumns, ...] = ()
        self._asked_in: dict[frozenset[tuple[tuple[str, str], ...]], npt.NDArray[np.bool_]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def with_columns(self, columns: Sequence[KeyedColumns]) -> Snapshot:
        """The same snapshot with further columns, whose names it does not know yet."""
        other = Snapshot(self.store, self.id)
        other._further, other._asked_in = (*self._further, *columns), self._asked_in
        return other

    @cached_property
    def ids(self) -> Ids:
        """(n,) S16, ascending, memory-mapped: the position of an id is its row."""
        return read_array(self.folder / "ids.npy")

    @cached_property
    def occurrences(self) -> npt.NDArray[np.int64]:
        """(occurrences,) int64, memory-mapped, in storage order: the row, or ~row of a duplicate."""
        return read_array(self.folder / "rows.npy")

    @property
    def occurrence_rows(self) -> npt.NDArray[np.int64]:
        """(occurrences,) int64, in storage order: the row, that of a duplicate included."""
        return np.where(self.occurrences < 0, ~self.occurrences, self.occurrences)

    @property
    def size_bytes(self) -> int:
        """Of its rows in the store."""
        return sum(path.stat().st_size for path in self._paths())

    def turns(self, wanted: Ids) -> Iterator[tuple[Ids, list[Turns]]]:
        """The turns of some ids, streamed in storage order (ingest, then line), in batches of one row group.

        Args:
            wanted: ids of this snapshot, any order.

        Raises:
            NotInStore: an id is not of this snapshot.

        Cost: reads only the row groups that hold a wanted row, the end of each file once, and 9 bytes a row of the
        snapshot; n bytes of memory and one group.
        """
        for ids, table in self.tables(wanted, TURN_COLUMNS):
            yield ids, turns_from_table(table)

    def tables(self, wanted: Ids, columns: Sequence[str]) -> Iterator[tuple[Ids, pa.Table]]:
        """Columns of `POOL_SCHEMA` of some ids, streamed as `turns` are; one that a file of earlier versions lacks is null.

        Raises:
            NotInStore: an id is not of this snapshot.

        Cost: as `turns`.
        """
        rows = rows_of(wanted, self.ids)
        if len(rows) and rows.min() < 0:
            raise NotInStore(f"snapshot {self.id} has no row {to_text(wanted[rows < 0][:1])[0]}")
        is_wanted = np.zeros(len(self.ids), bool)
        is_wanted[rows] = True
        for file, group, occurrences in self._row_groups(is_wanted):
            keep = np.flatnonzero((occurrences >= 0) & is_wanted[np.maximum(occurrences, 0)])
            if len(keep):
                yield self.ids[occurrences[keep]], _columns_of_group(file, group, columns).take(keep)

    def shards(self, rows: int) -> list[RowGroups]:
        """All rows, in shards of whole row groups: of `rows` rows, and fewer than a row group's more.

        Cost: reads the end of each file.
        """
        shards: list[RowGroups] = []
        files: list[tuple[int, range]] = []
        start = size = 0
        for part, (_, groups) in enumerate(self._files):
            first = 0
            for group, count in enumerate(groups):
                size += count
                if size >= rows:
                    shards.append(RowGroups((*files, (part, range(first, group + 1))), start, size))
                    files, first, start, size = [], group + 1, start + size, 0
            if first < len(groups):
                files.append((part, range(first, len(groups))))
        return [*shards, RowGroups(tuple(files), start, size)] if files else shards

    def turns_in(self, shard: RowGroups) -> Iterator[tuple[Ids, list[Turns]]]:
        """As `turns`, of the rows of a shard; opens its files alone."""
        paths, start = self._paths(), shard.start
        for part, groups in shard.files:
            file = pq.ParquetFile(verified(paths[part]))
            for group in groups:
                table = _columns_of_group(file, group, TURN_COLUMNS)
                occurrences = self.occurrences[start : start + len(table)]
                keep = np.flatnonzero(occurrences >= 0)
                if len(keep):
                    yield self.ids[occurrences[keep]], turns_from_table(table.take(keep))
                start += len(table)

    def turns_of(self, rows: npt.NDArray[np.int64]) -> list[Turns]:
        """The turns of some rows, each once, in their order whatever the order of files.

        Cost: as `turns`; the turns of all of them in memory.
        """
        turns: list[Turns] = [[]] * len(rows)
        place = {row: number for number, row in enumerate(rows.tolist())}
        for ids, batch in self.turns(self.ids[rows]) if len(rows) else ():
            for row, conversation in zip(rows_of(ids, self.ids).tolist(), batch, strict=True):
                turns[place[row]] = conversation
        return turns

    def texts(self) -> list[str]:
        """The text of each row: the contents of its turns, one below the other.

        Cost: every text in memory.
        """
        texts = [""] * len(self)
        for ids, batch in self.turns(self.ids):
            for row, turns in zip(rows_of(ids, self.ids).tolist(), batch, strict=True):
                texts[row] = text_of(turns)
        return texts

    def lengths_and_turns(self, wanted: Ids) -> tuple[npt.NDArray[np.int64], list[tuple[Ids, list[Turns]]]]:
        """(n,) how many characters each row's texts have (of a conversation, its JSON); and the turns of some ids, as `turns`.

        Cost: reads the texts once, a row group at a time.
        """
        lengths = np.zeros(len(self), np.int64)
        batches = []
        rows = rows_of(wanted, self.ids)
        is_wanted = np.zeros(len(self), bool)
        is_wanted[rows[rows >= 0]] = True
        for file, group, occurrences in self._row_groups():
            table = file.read_row_group(group, columns=TURN_COLUMNS)
            prompt, response, messages = (pc.fill_null(pc.utf8_length(table[name]), 0) for name in TURN_COLUMNS)
            total = pc.if_else(pc.is_valid(table["messages"]), messages, pc.add(prompt, response)).to_numpy()
            stands = occurrences >= 0
            lengths[occurrences[stands]] = total[stands]
            keep = np.flatnonzero(stands & is_wanted[np.maximum(occurrences, 0)])
            if len(keep):
                batches.append((self.ids[occurrences[keep]], turns_from_table(table.take(keep))))
        return lengths, batches

    def known_columns(self) -> dict[str, str]:
        """Column -> type, for what `column` and `where` know beside the texts: the user's, the pool's, fields of the files."""
        known = {name: column.kind for name, column in self._columns.items()}
        for imported in self._imported_columns:
            known |= imported.types
        return known

    @cached_property
    def _columns(self) -> dict[str, Column]:
        """Name -> column, without the user's columns."""
        kinds: dict[str, list[str]] = {}
        for ingest in self._ingests:
            for name, kind in ingest.extra_columns.items():
                kinds.setdefault(name, []).append(kind)
        fields = {name: common_type(each) for name, each in sorted(kinds.items())}
        names = [name for imported in self._imported_columns for name in imported.types]
        # Selections from files that earlier rules read took winnow's own column for such a name.
        return columns_of(fields, names, user_first=not self.by_earlier_rules)

    @cached_property
    def fields(self) -> dict[str, str]:
        """Column -> the field of the user's files that it shows."""
        kinds = {name for ingest in self._ingests for name in ingest.extra_columns}
        imported = [name for columns in self._imported_columns for name in columns.types]
        named = sql_names(imported, sorted(kinds))
        return {field: field for field in named.values() if field not in POOL_COLUMNS} | named

    def imported_column(self, name: str) -> pa.ChunkedArray | None:
        """One of the user's columns as it is, (n,) with null for rows without a value; None if there is none of this name."""
        for imported in self._imported_columns:
            if name in imported.types:
                table = imported.table(self.ids, "row_id")
                key = np.full(len(self), -1, np.int64)
                key[rows_of(from_arrow(table["row_id"]), self.ids)] = np.arange(len(table))
                return table[name].take(pa.array(key, mask=key < 0))
        return None

    @cached_property
    def early_ingests(self) -> frozenset[str]:
        """The ingests whose files an earlier version read, by other rules."""
        return frozenset(ingest.id for ingest in self._ingests if ingest.rules < RULES)

    @cached_property
    def by_earlier_rules(self) -> bool:
        """Whether an earlier version read all of its files; what it selects then stays what it was."""
        return all(ingest.rules < RULES for ingest in self._ingests)

    @cached_property
    def _ingests(self) -> list[Ingest]:
        return [read_ingest(self.store, ingest) for ingest in self.ingests]

    def column(self, name: str) -> npt.NDArray[Any]:
        """One value per row, (n,): float64 with NaN for missing, int64, or str objects with None for missing.

        The texts are columns, too: prompt, response, and messages where there is more.

        Raises:
            BadInput: there is no such column.
        """
        for imported in self._imported_columns:
            if name in imported.types:
                return imported.values(name, self.ids)
        known = {text: Column("text", quoted(text)) for text in TURN_COLUMNS} | self._columns
        if name not in known:
            raise no_column(name, {*known, *self.known_columns()})
        values = self._examples().every(known[name])
        kept = self.occurrences >= 0
        return by_row(values[kept], self.occurrences[kept], len(self.ids))

    def where(self, expression: str) -> npt.NDArray[np.bool_]:
        """(n,) which rows satisfy one SQL boolean expression over the columns of the examples; NULL counts as false.

        DuckDB evaluates it in a process of its own that can read this snapshot's rows and nothing else, and has limits.

        Raises:
            BadInput: the expression is not one expression, or fails; with DuckDB's message and the known columns.
        """
        examples = self._examples()
        with self._evaluating("where", expression):
            matches = examples.where(expression, self._columns, self._imported_columns, self.ids)
        satisfied = np.zeros(len(self.ids), bool)
        satisfied[rows_of(matches, self.ids)] = True
        return satisfied

    def values_of(self, expression: str) -> npt.NDArray[np.float64]:
        """(n,) the value of one SQL expression over the columns of the examples, a number; NULL is NaN.

        It is evaluated as `where` is.

        Raises:
            BadInput: the expression is not one expression, fails, or gives something else than a number for each row.
        """
        if not len(self.ids):
            return np.empty(0)
        examples = self._examples()
        with self._evaluating("expression", expression):
            ids, numbers = examples.values(expression, self._columns, self._imported_columns, self.ids)
        values = np.full(len(self.ids), np.nan)
        values[rows_of(ids, self.ids)] = numbers
        return values

    @contextmanager
    def _evaluating(self, key: str, expression: str) -> Iterator[None]:
        """Whatever fails is said with the expression and the known columns."""
        try:
            yield
        except OverLimit as error:
            raise BadInput(f"{key}: {expression!r} failed: {error}") from None
        except ConditionFailed as error:
            names = ", ".join(["prompt", "response", "messages", *self.known_columns()])
            raise BadInput(f"{key}: {expression!r} failed: {error}\nknown columns: {names}") from error

    def prompts_in(self, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """(n,) the rows whose prompt is exactly one of these; both sides as stored, outer white space stripped.

        Cost: reads the prompts, a row group at a time.
        """
        wanted = pa.array(prompts, pa.string())
        equal = np.zeros(len(self), np.bool_)
        for file, group, occurrences in self._row_groups():
            column = file.read_row_group(group, columns=["prompt"])["prompt"]
            rows = occurrences[np.asarray(pc.is_in(column, value_set=wanted))]
            equal[np.where(rows < 0, ~rows, rows)] = True
        return equal

    def asked_in(self, targets: Iterable[Turns]) -> npt.NDArray[np.bool_]:
        """(n,) the rows that hold what one of these targets asks, see `leaks`.

        Of files that earlier rules read, the rows whose prompt is exactly a target's, as selections from them were
        drawn.

        Cost: reads the texts, a row group at a time, once for the same targets, however many recipes hold them out.
        """
        wanted = frozenset(map(tuple, targets))
        if wanted not in self._asked_in:
            self._asked_in[wanted] = self._search(wanted)
        return self._asked_in[wanted]

    def _search(self, targets: Iterable[tuple[tuple[str, str], ...]]) -> npt.NDArray[np.bool_]:
        if self.by_earlier_rules:
            return self.prompts_in(sorted({prompt_of(turns) for turns in targets}))
        questions = Questions(map(list, targets))
        holds = np.zeros(len(self), np.bool_)
        for file, group, occurrences in self._row_groups() if len(questions) else ():
            stands = occurrences >= 0
            asked = questions.asked_in_rows(_columns_of_group(file, group, TURN_COLUMNS))
            holds[occurrences[stands]] = asked[stands]
        return holds

    def rows_named(self, path: Path, *, strict: bool = True) -> tuple[npt.NDArray[np.int64], int]:
        """The rows that a text file names, one id a line, as `keys` says.

        Returns:
            the rows, and how many lines name no row; none where `strict`.

        Raises:
            BadInput: the file is missing or no text, or a line names several rows, or, where `strict`, none.
        """
        lines = read_lines(path)
        match = self.match([line for line in lines if line])
        bad = np.flatnonzero(match.ambiguous | (match.unknown & strict))
        if len(bad):
            name, count = match.keys[bad[0]], match.counts[bad[0]]
            rows = f"{count} rows" if count else "no row"
            line = lines.index(name) + 1
            raise BadInput(f"{path}: line {line}: {name!r} names {rows} of the pool; an id names exactly one")
        return match.rows[match.rows >= 0], int(match.unknown.sum())

    def digest_of(self, rows: npt.NDArray[np.int64]) -> str:
        """What names a list of rows, whatever their order: 32 hex digits."""
        return digest_of(to_text(self.ids[np.unique(rows)]))

    def match(self, names: Iterable[str]) -> KeyMatch:
        """The row that each name means, as `keys` says; a repeat's own id names the row that is kept for it."""
        return match_keys(list(names), self.ids, _given_ids(self._parts()), self.occurrence_rows)

    def given_ids(self, wanted: Ids) -> list[str | None]:
        """The id that each of some rows had in its file, None for none; that of the occurrence that is kept."""
        kept = np.flatnonzero(self.occurrences >= 0)
        place = np.empty(len(self), np.int64)
        place[self.occurrences[kept]] = kept
        return _given_ids(self._parts()).take(place[rows_of(wanted, self.ids)]).to_pylist()  # type: ignore[no-any-return]

    def occurrence_keys(self) -> tuple[Ids, pa.ChunkedArray]:
        """The id of every occurrence, in storage order, and the id that it had in its file, null for none."""
        return self.ids[self.occurrence_rows], _given_ids(self._parts())

    @cached_property
    def _imported_columns(self) -> list[KeyedColumns]:
        folder = self.folder / "column_rows"
        imported = [
            ImportedColumns(read_columns(self.store, name), read_array(folder / f"{name}.npy")) for name in self.columns
        ]
        return [*imported, *self._further]

    def _examples(self) -> Examples:
        return Examples(self._parts(), verified(self.folder / "duplicates.parquet"), utc=not self.by_earlier_rules)

    def _row_groups(
        self, is_wanted: npt.NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[pq.ParquetFile, int, npt.NDArray[np.int64]]]:
        """Yield the file, number and `occurrences` of each row group, in storage order.

        Args:
            is_wanted: (n,) rows: files that hold none of them are left out, and not compared with their checksums.
        """
        start = 0
        for path, groups in self._files:
            bounds = start + np.cumsum([0, *groups])
            start = int(bounds[-1])
            rows = self.occurrences[bounds[0] : start]
            if is_wanted is None or is_wanted[rows[rows >= 0]].any():
                file = pq.ParquetFile(verified(path))
                for group in range(len(groups)):
                    yield file, group, self.occurrences[bounds[group] : bounds[group + 1]]

    @cached_property
    def _files(self) -> list[tuple[Path, list[int]]]:
        """The files in storage order, and how many rows each row group has. Cost: reads the end of each file."""
        try:
            files = [(path, _group_rows(path)) for path in self._paths()]
        except (pa.ArrowException, OSError):
            self._parts()  # says which is damaged
            raise
        if sum(sum(groups) for _, groups in files) != len(self.occurrences):
            self._parts()
            raise StoreDamaged(
                f"{self.folder}: the files of the pool do not have the {len(self.occurrences):,} rows of it"
            )
        return files

    def _parts(self) -> list[Path]:
        return [verified(path) for path in self._paths()]

    def _paths(self) -> list[Path]:
        return [path for ingest in self.ingests for path in parts(self.store, ingest)]


def no_column(name: str, known: Iterable[str]) -> BadInput:
    """The error that a pool has no column of a name."""
    hint = "; a language model under `models:` in winnow.yaml gives it" if name in SCORES else ""
    return BadInput(f"no column {name!r}{hint}; known are {', '.join(sorted(known))}")


def take_snapshot(
    store: Store,
    ingests: Sequence[Ingest | str],
    parent: str | None = None,
    columns: Sequence[str] = (),
    prefer: Sequence[str] = (),
) -> Snapshot:
    """The pool that these ingests make; committed unless it is there already.

    The id depends on the ingests and columns alone, so a pool that returns to an earlier state is that earlier
    snapshot, with the parent it had then.

    Args:
        ingests: in any order, each counted once.
        parent: the snapshot before; ids that live there and not here become tombstones.
        columns: digests from `columns.ingest_columns`.
        prefer: of equal rows the one of the first of these sources is kept; `["newest"]`: the last by file name and
            line. By default, and among rows of the same rank, the first by file name and line.

    Raises:
        NotInStore: an ingest, the parent or the columns are not in the store.
        BadInput: no ingests, or two of the columns have the same name.

    Cost: sorts all ids; about 60 bytes a row of memory.
    """
    names = sorted({ingest if isinstance(ingest, str) else ingest.id for ingest in ingests})
    if not names:
        raise BadInput("a snapshot needs at least one ingest: the pool has no files")
    digests = sorted(set(columns))
    depends_on: dict[str, Any] = {"columns": digests, "ingests": names} if digests else {"ingests": names}
    if prefer:
        depends_on["prefer"] = list(prefer)
    # A pool that lost rows is another one, so that everything is drawn from it anew.
    if forgotten := {name: count for name in names if (count := read_ingest(store, name).forgotten)}:
        depends_on["forgotten"] = forgotten
    snapshot_id = digest_of(depends_on)
    if not committed_whole(store, "snapshots", snapshot_id):
        members = [read_ingest(store, name) for name in names]
        before = None if parent is None or parent == snapshot_id else _parent(store, parent)
        with (
            store.lock("snapshots", "taking a snapshot"),
            store.committing("records", "snapshots", snapshot_id) as folder,
        ):
            _write(store, folder, snapshot_id, members, before, digests, prefer)
    return Snapshot(store, snapshot_id)


def open_snapshot(store: Store, snapshot_id: str) -> Snapshot:
    """A committed snapshot.

    Raises:
        NotInStore: there is none of this id.
    """
    if not store.has("records", "snapshots", snapshot_id):
        known = ", ".join(store.records("snapshots")[-5:]) or "none"
        raise NotInStore(f"no snapshot {snapshot_id!r} in {store.root}; there are: {known}")
    return Snapshot(store, snapshot_id)


# ---- taking one


def _parent(store: Store, snapshot_id: str) -> Snapshot | None:
    """The snapshot before; None where it is damaged, which is said."""
    folder = store.path("records", "snapshots", snapshot_id)
    damage = damage_of("snapshots", folder) if folder.is_dir() else None
    if damage is None:
        return open_snapshot(store, snapshot_id)
    note(store, folder, damage)
    return None


@dataclass(frozen=True)
class _Occurrences:
    """All readable rows of some ingests, in storage order."""

    ids: Ids
    source: npt.NDArray[np.int64]  # rank of the source's name
    line: npt.NDArray[np.int64]
    names: list[str]  # of the sources, sorted
    starts: npt.NDArray[np.int64]  # of each ingest, and the end

    def ingest_of(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.starts, positions, side="right") - 1


def _read_occurrences(store: Store, ingests: list[Ingest]) -> _Occurrences:
    total = sum(ingest.readable for ingest in ingests)
    ids, line = np.empty(total, "S16"), np.empty(total, np.int64)
    code = np.empty(total, np.int64)
    codes: dict[str, int] = {}
    starts = [0]
    for ingest in ingests:
        at = starts[-1]
        for path in parts(store, ingest.id):
            table = pq.read_table(path, columns=["id", "source", "line"], read_dictionary=["source"])
            end = at + len(table)
            if not len(table):
                continue
            ids[at:end] = from_arrow(table["id"])
            line[at:end] = table["line"].to_numpy()
            source = table["source"].unify_dictionaries().combine_chunks()
            new_codes = np.array(
                [codes.setdefault(name, len(codes)) for name in source.dictionary.to_pylist()], np.int64
            )
            code[at:end] = new_codes[source.indices.to_numpy()]
            at = end
        starts.append(at)
    names = sorted(codes)
    rank = np.empty(len(codes), np.int64)
    rank[[codes[name] for name in names]] = np.arange(len(names))
    return _Occurrences(ids, rank[code] if total else code, line, names, np.array(starts, np.int64))


def _rank(occurrences: _Occurrences, ingests: list[Ingest], prefer: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """The keys by which the occurrences of one id are ranked, the most important last; lines of a file are in order."""
    files = sorted({ingest.file for ingest in ingests})
    place = np.array([files.index(ingest.file) for ingest in ingests], np.int64)
    counts = np.diff(occurrences.starts)
    file = np.repeat(place, counts)
    if list(prefer) == ["newest"]:
        return [-np.arange(len(file)), -file]
    wanted = {source: rank for rank, source in enumerate(prefer)}
    source = np.array([wanted.get(name, len(wanted)) for name in occurrences.names] or [0], np.int64)
    return [file, source[occurrences.source]] if wanted else [file]


def _rows(
    occurrences: _Occurrences, rank: list[npt.NDArray[np.int64]]
) -> tuple[Ids, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The unique ids; the row of each occurrence (~row if a duplicate); the occurrence that stands for each row."""
    # Two big-endian words sort as their 16 bytes do, several times faster than byte strings.
    words = occurrences.ids.view(">u8").reshape(-1, 2).astype(np.uint64)
    order = np.argsort(words[:, 0], kind="stable")
    # Ids are hashes: nearly all rows whose first words are equal are copies, and only these are ranked.
    equal = np.diff(words[order, 0]) == 0
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    some = order[tied]
    order[tied] = some[np.lexsort((*(key[some] for key in rank), words[some, 1], words[some, 0]))]
    ranked = words[order]
    first = np.ones(len(order), bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    row = np.cumsum(first) - 1
    rows = np.empty(len(order), np.int64)
    rows[order] = np.where(first, row, ~row)
    return occurrences.ids[order[first]], rows, order[first]


def _write(
    store: Store,
    folder: Path,
    snapshot_id: str,
    ingests: list[Ingest],
    before: Snapshot | None,
    digests: list[str],
    prefer: Sequence[str],
) -> None:
    occurrences = _read_occurrences(store, ingests)
    ids, rows, kept = _rows(occurrences, _rank(occurrences, ingests, prefer))
    np.save(folder / "ids.npy", ids)
    np.save(folder / "rows.npy", rows)
    duplicate = np.flatnonzero(rows < 0)
    of_ingest = occurrences.ingest_of(duplicate)
    _write_duplicates(store, folder, snapshot_id, ingests, occurrences, duplicate, kept[~rows[duplicate]])
    repeated = np.bincount(of_ingest, minlength=len(ingests)).tolist()
    tombstones = _write_tombstones(folder, ingests, before, ids, store)
    matched = _write_column_rows(store, folder, ingests, digests, ids, np.where(rows < 0, ~rows, rows))
    counts = {
        ingest.id: {
            "read": ingest.read,
            "kept": ingest.readable - repeats,
            "duplicate": repeats,
            "quarantined": ingest.quarantined,
            "empty_responses": ingest.empty_responses,
        }
        for ingest, repeats in zip(ingests, repeated, strict=True)
    }
    write_json(
        folder / "snapshot.json",
        {
            "snapshot": snapshot_id,
            "ingests": [ingest.id for ingest in ingests],
            "files": {ingest.id: ingest.file for ingest in ingests},
            "prefer": list(prefer),
            "parent": None if before is None else before.id,
            "columns": digests,
            "column_matches": matched,
            "rows": len(ids),
            "counts": counts,
            "duplicates": len(duplicate),
            "tombstones": tombstones,
            "created_at": utc_now(),
            "created_ns": time.time_ns(),
            "number": next_number(store, "snapshots"),
        },
    )


def _write_duplicates(
    store: Store,
    folder: Path,
    snapshot_id: str,
    ingests: list[Ingest],
    occurrences: _Occurrences,
    positions: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64],
) -> None:
    of_ingest, kept_ingest = occurrences.ingest_of(positions), occurrences.ingest_of(kept)
    given_ids: list[Any] = []
    for i in np.unique(of_ingest).tolist():
        rows = positions[of_ingest == i] - occurrences.starts[i]
        given_ids += _given_ids(parts(store, ingests[i].id)).take(rows).to_pylist()
    names, files = [ingest.id for ingest in ingests], [ingest.file for ingest in ingests]
    columns = {
        "snapshot": pa.repeat(snapshot_id, len(positions)),
        "id": to_arrow(occurrences.ids[positions]),
        "ingest": _coded(names, of_ingest),
        "file": _coded(files, of_ingest),
        "line": occurrences.line[positions],
        "source": _coded(occurrences.names, occurrences.source[positions]),
        "given_id": pa.array(given_ids, _TEXT),
        "kept_ingest": _coded(names, kept_ingest),
        "kept_line": occurrences.line[kept],
    }
    table = pa.table(columns, schema=DUPLICATES_SCHEMA)
    pq.write_table(table, folder / "duplicates.parquet", compression="zstd")


def _write_tombstones(folder: Path, ingests: list[Ingest], before: Snapshot | None, ids: Ids, store: Store) -> int:
    vanished, reasons, names = np.empty(0, "S16"), [], []
    if before is not None:
        has_vanished = rows_of(before.ids, ids) < 0
        vanished = before.ids[has_vanished]
        old = [read_ingest(store, name) for name in before.ingests]
        starts = np.cumsum([0, *(ingest.readable for ingest in old)])
        kept = np.flatnonzero(before.occurrences >= 0)
        position = np.empty(len(before.ids), np.int64)
        position[before.occurrences[kept]] = kept
        of_ingest = np.searchsorted(starts, position[has_vanished], side="right") - 1
        present = {ingest.file for ingest in ingests}
        cause = [
            f"{ingest.file} changed and holds it no more" if ingest.file in present else f"{ingest.file} left the pool"
            for ingest in old
        ]
        names = [old[i].id for i in of_ingest.tolist()]
        reasons = [cause[i] for i in of_ingest.tolist()]
    table = pa.table({"id": to_arrow(vanished), "ingest": names, "reason": reasons}, schema=TOMBSTONES_SCHEMA)
    pq.write_table(table, folder / "tombstones.parquet", compression="zstd")
    return len(vanished)


def _write_column_rows(
    store: Store, folder: Path, ingests: list[Ingest], digests: list[str], ids: Ids, rows: npt.NDArray[np.int64]
) -> dict[str, Any]:
    if not digests:
        return {}
    (folder / "column_rows").mkdir()
    given_ids = _given_ids([path for ingest in ingests for path in parts(store, ingest.id)])
    report: dict[str, Any] = {}
    taken: dict[str, str] = {}
    for digest in digests:
        columns = read_columns(store, digest)
        for name in columns.types:
            if name in taken:
                raise BadInput(f"columns: {taken[name]} and {columns.url} both bring a column {name!r}; rename one")
            taken[name] = columns.url
        matches, report[digest] = columns.match(ids, given_ids, rows)
        np.save(folder / "column_rows" / f"{digest}.npy", matches)
        by_id = ImportedColumns(columns, matches).table(ids, "id")
        pq.write_table(by_id, folder / "column_rows" / f"{digest}.parquet", compression="zstd")
    return report


def _given_ids(files: Sequence[Path]) -> pa.ChunkedArray:
    """The id that each row of some of the pool's files had in the user's file, null for none."""
    columns = [pq.ParquetFile(path).read(["given_id"])[0] for path in files]  # of a small file in a third of the time
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], _TEXT)


def _group_rows(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def _columns_of_group(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
    """Columns of a row group of the pool's files; null those that the file lacks."""
    present = set(file.schema_arrow.names)
    table = file.read_row_group(group, columns=[name for name in columns if name in present])
    for name in columns:
        if name not in present:
            table = table.append_column(name, pa.nulls(len(table), POOL_SCHEMA.field(name).type))
    return table.select(list(columns))


def _coded(names: list[str], codes: npt.NDArray[np.int64]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int64()), pa.array(names, _TEXT)).cast(_TEXT)
