"""Pool files -> ingests: every readable row in Parquet, every other row in quarantine with its cause.

An ingest is one file read by one mapping. Its id is a hash of the file's bytes and the mapping, so a file that did not
change is recognised by a digest pass and never read again, and ingests do not depend on each other.

    pool/<ingest>/        part-00000.parquet (`POOL_SCHEMA`), ingest.json (`Ingest`)
    quarantine/<ingest>/  rows.parquet (`QUARANTINE_SCHEMA`)
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.damage import committed_whole, read_record, set_aside
from storage.errors import BadInput, NotInStore
from storage.files import readers
from storage.files.blocks import Damage
from storage.files.encodings import likely_encodings
from storage.files.ranges import LineCount, LineRange
from storage.files.readers import Bad, Chunk
from storage.files.user_files import FileState, default_source_of, file_digest, opened, unchanged
from storage.ids import from_arrow, from_bytes, to_arrow, to_bytes
from storage.pool.content import identity, to_json, turns_to_columns
from storage.pool.extra import cell, common_type, encode, type_of
from storage.pool.forgotten import Forgotten
from storage.pool.record_formats import (
    BadRecord,
    Fields,
    RecordFormat,
    check_fields,
    detect_format,
    filled_keys,
    has_field,
    kind_of,
    labels,
    named_fields,
)
from storage.pool.roles import with_roles
from storage.records import digest_of
from storage.shards import Map, Report, in_turn
from storage.store import Store, utc_now, write_json

# Raised by one when the reading rules change what a file's rows are.
RULES = 2

# Rows are written in groups of this many rows or characters, whichever comes first: what a reader of a few rows
# decodes.
GROUP_ROWS = 16_384
GROUP_CHARS = 8_000_000
# Rows that are read together, in half the time, if all of them are alike.
ALIKE_ROWS = 64
# Extra fields of a file that are described in ingest.json; the values of all are kept.
MAX_EXTRA = 500
# The cause by which a row is in quarantine that was forgotten on request.
FORGOTTEN = "forgotten on request, and refused"
# Fields that an error names.
MAX_NAMED = 30

_TEXT = pa.string()
POOL_SCHEMA = pa.schema(
    [
        ("id", pa.uuid()),
        ("prompt", _TEXT),
        ("response", _TEXT),
        ("messages", _TEXT),
        ("content_json", _TEXT),
        ("source", _TEXT),
        ("given_id", _TEXT),
        ("empty_response", pa.bool_()),
        ("extra", _TEXT),
        ("ingest", _TEXT),
        ("file", _TEXT),
        ("line", pa.int64()),
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [("ingest", _TEXT), ("file", _TEXT), ("line", pa.int64()), ("cause", _TEXT), ("excerpt", _TEXT)]
)


@dataclass(frozen=True)
class FileSpec:
    """One file of a pool and how it is read.

    Attributes:
        url: absolute path or fsspec URL.
        fields: the stated mapping, a name out of `record_formats.FIELDS` -> the record's field; None = detected.
        source: the source of every row; by default the record's own, else the file's stem.
        encoding: of text without a byte-order mark.
        keep_damaged: take the rows before the damage of a cut or corrupt file instead of failing.
        roles: names of roles of messages -> user, assistant, system or tool, beside those that are known.
        name: what the rows have as `file` and the ingest's id depends on: the path relative to the project, or the url.
    """

    url: str
    fields: Fields | None = None
    source: str | None = None
    encoding: str = "utf-8"
    keep_damaged: bool = False
    roles: Mapping[str, str] | None = None
    name: str = ""

    @property
    def file(self) -> str:
        """What its rows have as `file`."""
        return self.name or self.url


@dataclass(frozen=True)
class Ingest:
    """One ingest: the content of ingest.json.

    Attributes:
        read: rows of the file, blank lines apart: `readable + quarantined`.
        readable: rows that are in the pool, repeated ones included.
        empty_responses: rows kept without a response.
        shapes: how many rows had each record format.
        extra_columns: extra field -> its type, see `extra`.
        rules: the version of the reading rules.
        name: what the rows have as `file`: the path relative to the project, or the url.
        notices: what a user should know of the rows that were kept -> how many rows.
        damage: why only the rows before it were taken (`keep_damaged`), None if the file is whole.
        forgotten: how many of the quarantined rows were forgotten on request.
        new: this call read the file; False when it was in the store before.
    """

    id: str
    url: str
    digest: str
    size_bytes: int
    fields: Fields | None
    source: str | None
    encoding: str
    read: int
    readable: int
    quarantined: int
    empty_responses: int
    shapes: Mapping[str, int]
    extra_columns: Mapping[str, str]
    damage: str | None
    seconds: float
    created_at: str
    rules: int = 1
    name: str = ""
    roles: Mapping[str, str] | None = None
    notices: Mapping[str, int] = field(default_factory=dict)
    forgotten: int = 0
    new: bool = True

    @property
    def file(self) -> str:
        """What its rows have as `file`."""
        return self.name or self.url


@dataclass(slots=True)
class Rows:
    """Readable rows of a file by column, and those that are not readable."""

    id: list[bytes] = field(default_factory=list)
    prompt: list[str] = field(default_factory=list)
    response: list[str | None] = field(default_factory=list)
    messages: list[str | None] = field(default_factory=list)
    source: list[str] = field(default_factory=list)
    given_id: list[str | None] = field(default_factory=list)
    empty_response: list[bool] = field(default_factory=list)
    content_json: list[str | None] = field(default_factory=list)
    extra: list[str | None] = field(default_factory=list)
    line: list[int] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)


def read_rows(file: BinaryIO, spec: FileSpec, counts: FileCounts) -> Iterator[Rows]:
    """Yield the rows of an open file, chunk by chunk, counting them in `counts`.

    Raises:
        BadInput: the file is damaged, or a stated field is in no row.
    """
    yield from _rows_of(file, spec, counts, None)
    _require_seen(spec, counts)


def _rows_of(file: BinaryIO, spec: FileSpec, counts: FileCounts, lines: LineRange | None) -> Iterator[Rows]:
    """The rows of a file, or of a range of its lines."""
    mapping = _Mapping(spec, counts)
    chunks = readers.read(file, spec.url, spec.encoding) if lines is None else readers.read_part(file, lines)
    try:
        for chunk in chunks:
            rows = mapping.rows(chunk)
            counts.add(rows)
            yield rows
    except Damage as damage:
        if damage.fatal and not spec.keep_damaged:
            raise BadInput(
                f"{spec.url}: {damage.cause}; read as far as line {damage.line} ({counts.readable} rows). Replace the"
                " file, or take the rows before the damage with keep_damaged: true"
            ) from damage
        counts.damage = damage.cause if damage.fatal else None
        rows = Rows(bad=[Bad(damage.line + 1, damage.cause, "")])
        counts.add(rows)
        yield rows


def _require_seen(spec: FileSpec, counts: FileCounts) -> None:
    for name, stated in counts.unseen.items():
        if counts.read:
            names = ", ".join(sorted(counts.keys)[:MAX_NAMED]) or "none"
            wanted = " or ".join(map(repr, stated))
            raise BadInput(f"{spec.url}: fields.{name}: no row has a field {wanted}; found: {names}")


def ingest_file(
    store: Store,
    spec: FileSpec,
    *,
    reread: bool = False,
    on_rows: Callable[[int], object] = int,
    parallel: Map = in_turn,
) -> Ingest:
    """Read one file into the store, unless the store has it.

    Args:
        reread: read a file again that the store has as earlier rules read it.
        on_rows: called now and then with the number of rows read since the last call.
        parallel: where its parts are read. The parts, and so the files in the store, depend on the file alone.

    Raises:
        BadInput: the file is missing, damaged or of an unknown kind, or the mapping does not fit it.

    Cost: one pass over the file for its digest, one more if it is new; memory for one group of rows of each part that
        is read at the same time.
    """
    if spec.fields is not None:
        check_fields(spec.fields, spec.url)
    started = time.monotonic()
    with unchanged(store, spec.url) as (file, state):
        count = LineCount(file, readers.extension(spec.url), spec.encoding)
        digest = file_digest(file, count.add)
        ingest_id = _ingest_id(spec, digest) if reread else _id_in(store, spec, digest)
        if _is_whole(store, ingest_id):
            return _known(store, ingest_id, spec)
        # The inner block commits first: a pool folder never lacks its quarantine.
        with store.committing("pool", ingest_id) as pool, store.committing("quarantine", ingest_id) as quarantine:
            # This very file, also once it was replaced; another machine has only its name.
            paths = (f"/proc/{os.getpid()}/fd/{file.fileno()}", file.name)
            shards = [
                _Shard(store.root, spec, ingest_id, paths, state, lines, pool, quarantine, number)
                for number, lines in enumerate(count.ranges())
            ]
            counts = FileCounts()
            for part in parallel(_read_shard, shards, on_rows):
                counts.extend(part)
            _remove_leftovers(pool, quarantine)
            _require_seen(spec, counts)
            _gather(quarantine, [shard.bad for shard in shards])
            state.require(file, spec.url)
            ingest = Ingest(
                id=ingest_id,
                url=spec.url,
                digest=digest,
                size_bytes=state.size,
                fields=None if spec.fields is None else dict(spec.fields),
                source=spec.source,
                encoding=spec.encoding,
                read=counts.read,
                readable=counts.readable,
                quarantined=counts.quarantined,
                empty_responses=counts.empty_responses,
                shapes=dict(counts.formats),
                extra_columns=counts.extra_columns(),
                damage=counts.damage,
                seconds=round(time.monotonic() - started, 3),
                created_at=utc_now(),
                rules=RULES,
                name=spec.file,
                roles=None if spec.roles is None else dict(spec.roles),
                notices=dict(counts.notices),
                forgotten=counts.forgotten,
            )
            write_ingest(pool, ingest)
    return ingest


@dataclass(frozen=True)
class _Shard:
    """A part of a file on its way into the store.

    Attributes:
        paths: where a process opens the file, the first that is in this state.
        lines: None for the whole file.
        pool, quarantine: the folders of the ingest, not yet committed.
    """

    root: Path
    spec: FileSpec
    ingest: str
    paths: tuple[str, ...]
    state: FileState
    lines: LineRange | None
    pool: Path
    quarantine: Path
    number: int

    def __str__(self) -> str:
        return self.spec.file + (f", from line {self.lines.first:,}" if self.lines else "")

    @property
    def bad(self) -> Path:
        """The part's file of rows that could not be read."""
        return self.quarantine / f"part-{self.number:05d}.parquet"

    def open(self) -> BinaryIO:
        """The file.

        Raises:
            BadInput: this machine does not see it as the one that gives out the work does.
        """
        path = next(filter(self.state.is_at, self.paths), None)
        if path is None:
            raise BadInput(
                f"{self.spec.url}: {socket.gethostname()} sees no such file, or another one. The machines that read the pool "
                "need its files under the same paths"
            )
        return Path(path).open("rb")


def _read_shard(shard: _Shard, report: Report) -> FileCounts:
    """Write the rows of a part of a file; from any process.

    Each call writes files of its own and renames them: a worker that was given up, and works on, disturbs nobody.
    """
    counts, refused, file = FileCounts(), Forgotten(Store(shard.root)), shard.spec.file
    beside = f".{uuid.uuid4().hex}"
    with (
        shard.open() as opened_file,
        _Table(shard.pool / beside, POOL_SCHEMA, shard.ingest, file) as good,
        _Table(shard.quarantine / beside, QUARANTINE_SCHEMA, shard.ingest, file) as bad,
    ):
        for rows in _rows_of(opened_file, shard.spec, counts, shard.lines):
            if len(refused):
                _refuse(rows, refused, counts)
            good.add(rows.line, {name: getattr(rows, name) for name in _POOL_COLUMNS})
            bad.add(
                [b.line for b in rows.bad],
                {"cause": [b.cause for b in rows.bad], "excerpt": [b.excerpt for b in rows.bad]},
            )
            report(len(rows.line) + len(rows.bad))
    (shard.pool / beside).rename(shard.pool / f"part-{shard.number:05d}.parquet")
    (shard.quarantine / beside).rename(shard.bad)
    return counts


def _remove_leftovers(*folders: Path) -> None:
    """Remove what workers wrote that died, or were given up."""
    for folder in folders:
        for path in folder.glob(".*"):
            path.unlink(missing_ok=True)


def _gather(quarantine: Path, parts: list[Path]) -> None:
    """One file of the rows that could not be read, from those of the parts."""
    if len(parts) == 1:
        parts[0].rename(quarantine / "rows.parquet")
        return
    with table_writer(quarantine / "rows.parquet", QUARANTINE_SCHEMA) as writer:
        for part in parts:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch, row_group_size=GROUP_ROWS)
            part.unlink()


def write_ingest(folder: Path, ingest: Ingest) -> None:
    """Write the record of an ingest into its folder; what most do not have is left out."""
    record = asdict(ingest)
    del record["new"]
    if not ingest.forgotten:
        del record["forgotten"]
    write_json(folder / "ingest.json", record)


def ingest_id(store: Store, spec: FileSpec) -> str:
    """The id of the ingest of the file's present content by this mapping, committed or not; costs a digest pass.

    Raises:
        BadInput: the file cannot be opened.
    """
    with unchanged(store, spec.url) as (file, _):
        return _id_in(store, spec, file_digest(file))


@dataclass(frozen=True)
class Difference:
    """What the present rules would make of a file that earlier rules read.

    Attributes:
        file: its name.
        read_otherwise: rows whose id would be another one.
        readable: rows that could be read and were not.
    """

    file: str
    read_otherwise: int
    readable: int


def differences(store: Store, spec: FileSpec) -> Difference | None:
    """How the file as the store has it differs from what the present rules make of it; None if it does not.

    Cost: reads the file.
    """
    with unchanged(store, spec.url) as (file, _):
        ingest_id = _id_in(store, spec, file_digest(file))
        if not store.has("pool", ingest_id) or read_ingest(store, ingest_id).rules == RULES:
            return None
        before: dict[int, bytes] = {}
        refused = Forgotten(store)
        for path in parts(store, ingest_id):
            table = pq.read_table(path, columns=["id", "line"])
            before |= zip(table["line"].to_pylist(), to_bytes(from_arrow(table["id"])), strict=True)
        otherwise = more = 0
        for rows in read_rows(file, spec, FileCounts()):
            is_refused = refused.has(from_bytes(rows.id)).tolist()
            for line, id_, refuse in zip(rows.line, rows.id, is_refused, strict=True):
                if refuse:
                    continue
                more += line not in before
                otherwise += before.get(line, id_) != id_
    return Difference(spec.file, otherwise, more) if otherwise or more else None


def read_ingest(store: Store, ingest_id: str) -> Ingest:
    """The record of a committed ingest.

    Raises:
        NotInStore: there is none of this id.
    """
    folder = store.path("pool", ingest_id)
    if not folder.is_dir():
        raise NotInStore(f"no ingest {ingest_id!r} in {store.root}")
    known = {each.name for each in fields(Ingest)} - {"new"}
    return Ingest(**{name: value for name, value in read_record("pool", folder).items() if name in known}, new=False)


def parts(store: Store, ingest_id: str) -> list[Path]:
    """The Parquet files of an ingest, in row order."""
    return sorted(store.path("pool", ingest_id).glob("part-*.parquet"))


def check_bad_fraction(ingests: Sequence[Ingest], limit: float, store: Store) -> None:
    """Refuse files of which too many rows are unreadable.

    Raises:
        BadInput: names each such file, its commonest causes with an example, and what to do.
    """
    failed = [ingest for ingest in ingests if ingest.quarantined - ingest.forgotten > limit * ingest.read]
    if not failed:
        return
    reports = [_bad_file_report(ingest, store) for ingest in failed[:5]]
    if len(failed) > 5:
        reports.append(f"... and {len(failed) - 5} more files")
    raise BadInput(
        f"{len(failed)} of {len(ingests)} files have more than {limit:.2%} rows that cannot be read:\n"
        + "\n".join(reports)
        + "\nMend the files, state which fields hold the text (fields:), or raise max_bad_fraction."
    )


# ---- the parts


@dataclass
class FileCounts:
    """Counts of one file, kept while it is read."""

    readable: int = 0
    quarantined: int = 0
    empty_responses: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    extra: dict[str, set[str]] = field(default_factory=dict)
    notices: Counter[str] = field(default_factory=Counter)
    unseen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    damage: str | None = None
    forgotten: int = 0

    @property
    def read(self) -> int:
        """All rows."""
        return self.readable + self.quarantined

    def add(self, rows: Rows) -> None:
        """Count a chunk."""
        self.readable += len(rows.line)
        self.quarantined += len(rows.bad)
        self.empty_responses += sum(rows.empty_response)

    def extend(self, part: FileCounts) -> None:
        """Count the next part of the file. Of more than `MAX_EXTRA` fields those are described that come first."""
        self.unseen = {name: part.unseen[name] for name in (self if self.read else part).unseen if name in part.unseen}
        for name in ("readable", "quarantined", "empty_responses", "forgotten"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        self.formats.update(part.formats)
        self.notices.update(part.notices)
        self.damage = self.damage or part.damage
        self.keys |= part.keys
        for name, types in part.extra.items():
            if name in self.extra or len(self.extra) < MAX_EXTRA:
                self.extra.setdefault(name, set()).update(types)

    def extra_columns(self) -> dict[str, str]:
        """The type of each extra field: that of all its values, "json" if they differ, "null" if there are none."""
        return {name: common_type(types) for name, types in sorted(self.extra.items())}


def _refuse(rows: Rows, refused: Forgotten, counts: FileCounts) -> None:
    """Move the rows that were forgotten from the readable ones to the others, without their text."""
    is_refused = refused.has(from_bytes(rows.id))
    places = np.flatnonzero(is_refused).tolist()
    for place in reversed(places):
        rows.bad.append(Bad(rows.line[place], FORGOTTEN, ""))
        counts.empty_responses -= rows.empty_response[place]
        for column in (*_POOL_COLUMNS, "line"):
            del getattr(rows, column)[place]
    rows.bad.sort(key=lambda bad: bad.line)
    counts.readable -= len(places)
    counts.quarantined += len(places)
    counts.forgotten += len(places)
    if places:
        counts.notices[FORGOTTEN] += len(places)


_POOL_COLUMNS = (
    "id",
    "prompt",
    "response",
    "messages",
    "content_json",
    "source",
    "given_id",
    "empty_response",
    "extra",
)


def table_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of rows of the pool, or of quarantine: text plain, what repeats dictionary-encoded, both compressed."""
    repeating = [name for name in ("ingest", "file", "source", "cause", "empty_response") if name in schema.names]
    small = [name for name in schema.names if name in ("id", "line", *repeating)]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeating, write_statistics=small)


class _Table:
    """Rows of one ingest on their way to a Parquet file, written group by group.

    Text is plain and zstd-compressed; only columns that repeat are dictionary-encoded.
    """

    def __init__(self, path: Path, schema: pa.Schema, ingest_id: str, url: str) -> None:
        self.schema, self.constants = schema, {"ingest": ingest_id, "file": url}
        self.writer = table_writer(path, schema)
        self._clear()

    def _clear(self) -> None:
        self.lines: list[int] = []
        self.columns: dict[str, list[Any]] = {}
        self.chars = 0

    def add(self, lines: list[int], columns: Mapping[str, list[Any]]) -> None:
        self.lines += lines
        for name, values in columns.items():
            self.columns.setdefault(name, []).extend(values)
            if self.schema.field(name).type == _TEXT and name not in ("source", "given_id"):
                self.chars += sum(map(len, filter(None, values)))
        if len(self.lines) >= GROUP_ROWS or self.chars >= GROUP_CHARS:
            self._write()

    def _write(self) -> None:
        arrays = []
        for column in self.schema:
            if column.name in self.constants:
                arrays.append(pa.repeat(self.constants[column.name], len(self.lines)))
            elif column.name == "id":
                arrays.append(to_arrow(from_bytes(self.columns.get("id", []))))
            else:
                values = self.lines if column.name == "line" else self.columns.get(column.name, [])
                arrays.append(pa.array(values, column.type))
        self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema), row_group_size=GROUP_ROWS)
        self._clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.lines:
            self._write()
        self.writer.close()


class _Mapping:
    """How one file's records become rows."""

    def __init__(self, spec: FileSpec, counts: FileCounts) -> None:
        self.spec, self.counts = spec, counts
        self.source = spec.source or default_source_of(spec.url)
        self.is_csv = readers.extension(spec.url) in (".csv", ".tsv")
        self.roles = with_roles(spec.roles)
        self.fields = named_fields(spec.fields or {})
        # Of several fields inside objects the first that holds something is another one in each row.
        self.depends_on_values = any(len(theirs) > 1 and "." in "".join(theirs) for theirs in self.fields.values())
        self.formats: dict[tuple[tuple[str, ...], ...], RecordFormat] = {}
        counts.unseen = dict(self.fields)  # those that no record had yet

    def rows(self, chunk: Chunk) -> Rows:
        """The readable records as rows, the others beside those that did not parse."""
        rows = Rows(bad=chunk.bad)
        for start in range(0, len(chunk.records), ALIKE_ROWS):
            lines, records = chunk.lines[start : start + ALIKE_ROWS], chunk.records[start : start + ALIKE_ROWS]
            if self._add_alike(rows, lines, records):
                continue
            for line, record in zip(lines, records, strict=True):
                try:
                    self._add(rows, line, record)
                except BadRecord as cause:
                    rows.bad.append(Bad(line, str(cause), readers.excerpt(record)))
        if len(self.formats) > MAX_EXTRA:  # keys that are data themselves: do not remember them all
            self.formats.clear()
        return rows

    def _add_alike(self, rows: Rows, lines: list[int], records: list[Any]) -> bool:
        """Add rows as `_add` does, column by column, if all are of one format and plain; False, and none added, if not."""
        if self.depends_on_values or set(map(type, records)) != {dict}:
            return False
        keys = set(map(filled_keys, records))
        if len(keys) > 1:
            return False
        key = keys.pop()
        try:
            record_format = self.formats.get(key) or self._format(key, records[0])
        except BadRecord:
            return False
        turns = record_format.plain_turns(records)
        if turns is None:
            return False
        prompt, response, messages, empty = zip(*map(turns_to_columns, turns), strict=True)
        nothing = [None] * len(records)
        rows.id += map(identity, turns)
        rows.content_json += nothing
        rows.prompt += prompt
        rows.response += response
        rows.messages += messages
        rows.source += [given or self.source for given in labels(records, record_format.source)]
        rows.given_id += labels(records, record_format.id)
        rows.empty_response += empty
        rows.extra += map(self._extra, map(record_format.others, records)) if record_format.extra else nothing
        rows.line += lines
        self.counts.formats[record_format.kind] += len(records)
        return True

    def _add(self, rows: Rows, line: int, record: Any) -> None:
        if type(record) is not dict:
            raise BadRecord(f"{kind_of(record)}, not an object with fields")
        key = filled_keys(record)
        record_format = self.formats.get(key) or self._format(key, record)
        turns, content = record_format.content(record, self.roles, self.counts.notices)
        others = record_format.others(record)
        prompt, response, messages, empty = turns_to_columns(turns)
        try:
            content_json = to_json(content).decode() if content else None
        except ValueError as error:
            raise BadRecord(f"its content is {error}") from None
        rows.id.append(identity(turns, content))
        rows.content_json.append(content_json)
        rows.prompt.append(prompt)
        rows.response.append(response)
        rows.messages.append(messages)
        rows.source.append(record_format.given_source(record) or self.source)
        rows.given_id.append(record_format.given_id(record))
        rows.empty_response.append(empty)
        rows.extra.append(self._extra(others) if others else None)
        rows.line.append(line)
        self.counts.formats[record_format.kind] += 1

    def _format(self, key: tuple[tuple[str, ...], ...], record: dict[str, Any]) -> RecordFormat:
        keys = key[0]
        if len(self.counts.keys) < MAX_EXTRA:
            self.counts.keys.update(keys)
        self.counts.unseen = {
            name: theirs
            for name, theirs in self.counts.unseen.items()
            if not any(has_field(keys, each) for each in theirs)
        }
        record_format = detect_format(record, self.fields, use_source=self.spec.source is None)
        if not self.depends_on_values:
            self.formats[key] = record_format
        return record_format

    def _extra(self, others: dict[str, Any]) -> str:
        if self.is_csv:
            others = {name: cell(value) for name, value in others.items()}
        for name, value in others.items():
            _note_type(self.counts, name, value, is_cell=self.is_csv)
        return encode(others, self.counts.notices).decode()


def _note_type(counts: FileCounts, name: str, value: Any, *, is_cell: bool) -> None:
    types = counts.extra.get(name)
    if types is None:
        if len(counts.extra) >= MAX_EXTRA:
            return
        types = counts.extra[name] = set()
    if value is not None:
        types.add(type_of(value, is_cell=is_cell))


def _is_whole(store: Store, ingest_id: str) -> bool:
    """Whether the store has an ingest; where a part of it is damaged, both are put aside to be made again."""
    whole = [committed_whole(store, kind, ingest_id) for kind in ("pool", "quarantine")]
    for kind, is_whole in zip(("pool", "quarantine"), whole, strict=True):
        if is_whole and not all(whole):
            set_aside(
                store, store.path(kind, ingest_id), f"{store.path(kind, ingest_id)} is made again with its other part"
            )
    return all(whole)


def _known(store: Store, ingest_id: str, spec: FileSpec) -> Ingest:
    ingest = replace(read_ingest(store, ingest_id), url=spec.url)
    if ingest.damage and not spec.keep_damaged:
        raise BadInput(f"{spec.url}: {ingest.damage}. Replace the file, or leave keep_damaged: true")
    return ingest


def _id_in(store: Store, spec: FileSpec, digest: str) -> str:
    """The id of the file's ingest: one that was read by earlier rules stays until the user has it read again."""
    present, earlier = _ingest_id(spec, digest), _id_by_rules_1(spec, digest)
    is_earlier = not spec.roles and not store.has("pool", present) and store.has("pool", earlier)
    return earlier if is_earlier else present


def _ingest_id(spec: FileSpec, digest: str) -> str:
    depends_on = _depends_on(spec, digest) | {"rules": RULES, "file": spec.file}
    return digest_of(depends_on | ({"roles": dict(spec.roles)} if spec.roles else {}))


def _id_by_rules_1(spec: FileSpec, digest: str) -> str:
    return digest_of(_depends_on(spec, digest) | {"rules": 1})


def _depends_on(spec: FileSpec, digest: str) -> dict[str, Any]:
    return {
        "digest": digest,
        "encoding": spec.encoding,
        "fields": None if spec.fields is None else dict(spec.fields),
        "format": readers.extension(spec.url),
        "source": [spec.source, spec.source or default_source_of(spec.url)],
    }


def _bad_file_report(ingest: Ingest, store: Store) -> str:
    table = pq.read_table(store.path("quarantine", ingest.id, "rows.parquet"))
    lines, causes = table["line"].to_pylist(), table["cause"].to_pylist()
    report = [f"  {ingest.url}: {ingest.quarantined} of {ingest.read} rows"]
    for cause, count in Counter(causes).most_common(3):
        at = causes.index(cause)
        example = table["excerpt"][at].as_py()[:60]
        report.append(f"    {count} x {cause}, for example line {lines[at]}" + (f": {example}" if example else ""))
    report.append(f"    all of them: {store.path('quarantine', ingest.id, 'rows.parquet')}")
    if readers.NOT_UTF8 in causes and readers.extension(ingest.url) not in (".parquet", ".arrow"):
        report += _encoding_advice(ingest, store)
    return "\n".join(report)


def _encoding_advice(ingest: Ingest, store: Store) -> list[str]:
    with opened(store, ingest.url) as file:
        encodings = likely_encodings(file)
    if not encodings:
        return []
    return [
        f"    the file is not UTF-8; beside `files:`, say `encoding: {encodings[0]}`"
        + (f" (or {', '.join(encodings[1:])}: several fit its bytes)" if encodings[1:] else "")
    ]
