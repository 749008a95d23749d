"""Bytes of a pool file -> numbered records, whatever the file's compression and format.

Content decides, names only help: the first bytes tell gzip, zstd, Parquet, Arrow and byte-order marks, the extension
tells the rest (JSON Lines, JSON array, CSV). Everything streams: memory is a few blocks, whatever the file's size.

A record that cannot be read costs that record only: it comes back as a `Bad` with its number, cause and excerpt. Damage
of the container itself (a cut gzip, a wrong checksum) is raised as `Damage` after every record before it was given.

What is decided where JSON leaves a choice: half of a surrogate pair and more than 1,024 levels of nesting make a bad
record; integers are exact, whatever their size; NaN, Infinity and numbers beyond a double are not finite, and it is for
the field's reader to say what that means; of a repeated key the last value stands. A value of a columnar file that
cannot be read is `Unreadable`. Lines end at LF (CR before it is white space); U+2028 and the like are text.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import BadInput
from storage.files.blocks import UNDECODABLE, UNDECODABLE_ERRORS, Damage, is_encoding, text_blocks
from storage.files.ranges import LineRange, blocks_in

# A longer record is not text to train on; the bound keeps a file without line ends from filling the memory.
MAX_RECORD_BYTES = 64 << 20
ROWS_PER_CHUNK = 4096
EXCERPT_CHARS = 200

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst")

csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be read."""

    line: int
    cause: str
    excerpt: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value of a columnar file that cannot be read."""

    cause: str


@dataclass(slots=True)
class Chunk:
    """Some records with their numbers (line, or count from 1), and those that could not be read."""

    lines: list[int] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)


class _TooLong(bytes):
    """The beginning of a record longer than `MAX_RECORD_BYTES`; orjson refuses a subclass of bytes."""

    __slots__ = ()


def read(file: BinaryIO, name: str, encoding: str = "utf-8") -> Iterator[Chunk]:
    """Yield the records of an open file, in order.

    Args:
        file: opened for reading bytes, seekable, at its beginning.
        name: path or URL: its extension tells JSON Lines, JSON and CSV apart.
        encoding: of text formats without a byte-order mark.

    Raises:
        BadInput: nothing here reads such a file.
        Damage: the container is damaged; what was readable has been yielded.
    """
    if not is_encoding(encoding):
        raise BadInput(f"{name}: unknown encoding {encoding!r}; for example utf-8, latin-1, cp1252, gb18030")
    kind = extension(name)
    magic = file.read(8)
    file.seek(0)
    if magic.startswith(b"PAR1") or kind == ".parquet":
        yield from _parquet(file)
    elif magic.startswith((b"ARROW1", b"\xff\xff\xff\xff")) or kind == ".arrow":
        yield from _arrow(file, stream=not magic.startswith(b"ARROW1"))
    elif kind not in EXTENSIONS:
        raise BadInput(f"{name}: unknown kind of file; known are {', '.join(EXTENSIONS)}, each also with .gz or .zst")
    else:
        blocks = text_blocks(file, encoding)
        if kind in (".csv", ".tsv"):
            yield from _csv(blocks, "," if kind == ".csv" else "\t", name)
            return
        first = next(blocks, b"")
        text = chain([first], blocks)
        is_array = kind == ".json" and first.lstrip().startswith(b"[")
        for number, lines in _array_elements(text) if is_array else _lines(text):
            yield _parsed(number, lines)


def read_part(file: BinaryIO, part: LineRange) -> Iterator[Chunk]:
    """Yield the records of a range of an open file of JSON Lines."""
    for number, lines in _lines(blocks_in(file, part)):
        yield _parsed(part.first + number - 1, lines)


def extension(name: str) -> str:
    """The extension that tells the format, without that of the compression.

    >>> extension("a/b.JSONL.gz")
    '.jsonl'
    """
    path = PurePosixPath(_path(name).lower())
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def _path(name: str) -> str:
    """A path, or a URL without its query."""
    return name.partition("?")[0] if "://" in name else name


def stem(name: str) -> str:
    """The file's name without extensions of format and compression: the source of rows that name none.

    >>> stem("s3://bucket/web.v2.jsonl.gz")
    'web.v2'
    """
    base = PurePosixPath(_path(name)).name
    for suffixes in (COMPRESSIONS, EXTENSIONS):
        if base.lower().endswith(suffixes):
            base = base[: base.rindex(".")]
    return base


def excerpt(value: Any) -> str:
    """The beginning of a record as printable text on one line, at most `EXCERPT_CHARS`."""
    if not isinstance(value, bytes | str):
        try:
            value = orjson.dumps(value, default=lambda other: str(other)[:EXCERPT_CHARS])
        except (TypeError, ValueError):  # nested deeper than orjson writes, keys that are not text
            plain = f"{type(value).__name__} nested too deep to print"
            value = "fields " + ", ".join(map(str, value)) if isinstance(value, dict) else plain
    text = value[: 4 * EXCERPT_CHARS].decode("utf-8", "replace") if isinstance(value, bytes) else value
    text = text[:EXCERPT_CHARS].replace("\n", " ").replace("\t", " ").strip()
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


# ---- JSON


def _lines(blocks: Iterator[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield `(number of the first line, lines)`."""
    number, size = 1, 0
    parts: list[bytes] = []
    damage: Damage | None = None
    try:
        for block in blocks:
            head, newline, rest = block.rpartition(b"\n")
            if newline:
                lines = b"".join([*parts, head]).split(b"\n")
                if size > MAX_RECORD_BYTES:
                    lines[0] = _TooLong(lines[0][:EXCERPT_CHARS])
                yield number, lines
                number += len(lines)
                parts, size = [], 0
            parts.append(rest)
            size += len(rest)
            if size > MAX_RECORD_BYTES:
                parts = [b"".join(parts)[:EXCERPT_CHARS]]
    except Damage as error:
        damage = error
    last = b"".join(parts)
    if last and not (damage and damage.fatal):
        yield number, [_TooLong(last) if size > MAX_RECORD_BYTES else last]
        number += 1
    if damage is not None:
        damage.line = number - 1
        raise damage


# A whole string, the start of one that goes on in the next block, or a character that structures the array.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["\[\]{},]', re.DOTALL)


class _Array:
    """Cuts one JSON array into the bytes of its elements, fed block by block.

    Only brackets and strings are looked at, so that an element that does not parse costs only itself.
    """

    def __init__(self) -> None:
        self.buffer = b""  # from the beginning of the present element
        self.position = 0  # scanned as far as this
        self.depth = 0
        self.ended = False

    def feed(self, block: bytes) -> list[bytes]:
        """The elements that end in this block."""
        self.buffer += block
        elements, start = [], 0
        for match in _TOKEN.finditer(self.buffer, self.position):
            token = match.group()
            if token == b'"':
                self.position = match.start()
                break
            self.position = match.end()
            if token in (b"[", b"{"):
                self.depth += 1
                start = self.position if self.depth == 1 else start
                continue
            if token in (b"]", b"}"):
                self.depth -= 1
                self.ended = self.depth == 0
            if self.ended or (token == b"," and self.depth == 1):
                elements.append(self.buffer[start : match.start()])
                start = self.position
            if self.ended:
                break
        else:
            self.position = len(self.buffer)
        self.buffer = self.buffer[start:]
        self.position -= start
        return [element for element in elements if not element.isspace() and element]


def _array_elements(blocks: Iterator[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield `(number of the first element, elements)` of one JSON array, each element as its own bytes."""
    array, number = _Array(), 1
    damage = None
    try:
        for block in blocks:
            elements = array.feed(block)
            yield number, elements
            number += len(elements)
            if array.ended or len(array.buffer) > MAX_RECORD_BYTES:
                break
        if not array.ended:
            too_long = len(array.buffer) > MAX_RECORD_BYTES
            cause = f"an element is larger than {MAX_RECORD_BYTES:,} bytes" if too_long else "cut short"
            damage = Damage(f"the JSON array is damaged: {cause}")
        elif array.buffer[array.position :].strip() or any(block.strip() for block in blocks):
            damage = Damage("text after the end of the JSON array", fatal=False)
    except Damage as error:
        damage = error
    if damage is not None:
        damage.line = number - 1
        raise damage


def _parsed(number: int, lines: list[bytes]) -> Chunk:
    """Parse a chunk of lines at once; one by one only if one of them fails."""
    kept = [(i, line) for i, line in enumerate(lines, number) if line and not line.isspace()]
    loads = _loads
    with suppress(orjson.JSONDecodeError):
        return Chunk([i for i, _ in kept], [loads(line) for _, line in kept])
    chunk = Chunk()
    for i, line in kept:
        try:
            record = _loads_not_finite(line)
        except orjson.JSONDecodeError as error:
            chunk.bad.append(Bad(i, _json_cause(line, error), excerpt(line)))
        else:
            chunk.lines.append(i)
            chunk.records.append(record)
    return chunk


# orjson makes an integer of more than 64 bits the nearest double; only a long run of digits can be one.
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_LONG = b"0" * 19
_WITHOUT_FLOATS = {str, int, bool, type(None)}


def _loads(line: bytes) -> Any:
    value = orjson.loads(line)
    if type(value) is dict and _WITHOUT_FLOATS.issuperset(map(type, value.values())):
        return value
    return json.loads(line) if _holds_float(value) and _LONG in line.translate(_DIGITS) else value


def _holds_float(value: Any) -> bool:
    """Whether there is a float anywhere in a value; a loop, since records may be nested deeper than Python calls."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        items = value.values() if type(value) is dict else value if type(value) is list else (value,)
        kinds = set(map(type, items))
        if float in kinds:
            return True
        if dict in kinds or list in kinds:
            waiting += [item for item in items if type(item) in (dict, list)]
    return False


def _loads_not_finite(line: bytes) -> Any:
    """A record with NaN, Infinity or a number beyond a double, which orjson refuses.

    Raises:
        orjson.JSONDecodeError: that is not all that is wrong with it.
    """
    try:
        return _loads(line)
    except orjson.JSONDecodeError as error:
        if not (_is_not_finite(line, error) or "infinity" in str(error)):
            raise
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair, which json lets pass
        except (ValueError, TypeError, RecursionError):
            raise error from None
    return value


def _is_not_finite(line: bytes, error: orjson.JSONDecodeError) -> bool:
    # `pos` counts characters, of text that did decode, since invalid UTF-8 is reported as such.
    return bool(
        re.match(r"-?(NaN|Infinity)\b", line.decode("utf-8", "replace")[max(error.pos - 1, 0) :].lstrip(": [,"))
    )


NOT_UTF8 = "not valid UTF-8 (another encoding, or damaged)"
_JSON_CAUSES = (
    ("not valid UTF-8", NOT_UTF8),
    ("surrogate", "a \\u escape is half of a surrogate pair"),
    ("depth limit", "nested deeper than 1,024 levels"),
    ("end of data", "JSON is cut short"),
    ("after document", "text after the end of the JSON record"),
    ("trailing comma", "a comma too many in the JSON record"),
    ("control character", "a raw control character inside a JSON string"),
)


def _json_cause(line: bytes, error: orjson.JSONDecodeError) -> str:
    if isinstance(line, _TooLong):
        return f"longer than {MAX_RECORD_BYTES:,} bytes"
    if line.strip() in (b"{", b"["):
        return "a record spread over several lines (JSON Lines has one record a line)"
    message = str(error)
    for part, cause in _JSON_CAUSES:
        if part in message:
            return cause
    return "not JSON"


# ---- CSV


def _csv(blocks: Iterator[bytes], delimiter: str, name: str) -> Iterator[Chunk]:
    """Rows of a CSV file with a header, as dicts of text; a row's number is that of the line on which it starts."""
    lines = _TextLines(blocks)
    first = next(lines, "")
    rows = csv.reader(chain([first], lines), delimiter=_delimiter(first, delimiter), strict=True)
    header: list[str] | None = None
    chunk = Chunk()
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            if lines.ended:
                lines.damage = lines.damage or Damage("a quote that opens here is never closed", line=line - 1)
                break
            chunk.bad.append(Bad(line, f"not CSV: {error}", ""))
            continue
        if row is None:
            break
        if header is None and row:
            header = _header([cell.strip() for cell in row], name)
        elif row and header is not None:
            _add_row(chunk, line, row, header)
        if len(chunk.lines) + len(chunk.bad) >= ROWS_PER_CHUNK:
            yield chunk
            chunk = Chunk()
    yield chunk
    if lines.damage is not None:
        raise lines.damage


def _delimiter(header: str, usual: str) -> str:
    """What separates the values: spreadsheets of many countries write `;` into a .csv."""
    unquoted = re.sub(r'"[^"]*"', "", header)
    return next((sign for sign in (usual, ";", "\t") if sign in unquoted), usual)


class _TextLines:
    """Lines of text for the CSV reader, which must not see an exception that is not its own."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._lines = (line for _, lines in _lines(blocks) for line in lines)
        self.damage: Damage | None = None
        self.ended = False
        self._number = 0

    def __iter__(self) -> _TextLines:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        except Damage as damage:
            self.damage, self.ended = damage, True
            raise StopIteration from None
        self._number += 1
        if isinstance(line, _TooLong):
            self.damage, self.ended = Damage(f"longer than {MAX_RECORD_BYTES:,} bytes", line=self._number - 1), True
            raise StopIteration
        return line.decode("utf-8", UNDECODABLE_ERRORS) + "\n"


def _add_row(chunk: Chunk, line: int, row: list[str], header: list[str]) -> None:
    text = ",".join(row)
    if UNDECODABLE in text:
        chunk.bad.append(Bad(line, NOT_UTF8, excerpt(text)))
    elif len(row) != len(header):
        cause = f"{'more' if len(row) > len(header) else 'fewer'} values than the header has"
        chunk.bad.append(Bad(line, cause, excerpt(text)))
    else:
        chunk.lines.append(line)
        chunk.records.append(dict(zip(header, row, strict=True)))


def _header(names: list[str], file: str) -> list[str]:
    if UNDECODABLE in "".join(names):
        raise BadInput(f"{file}: the CSV header is {NOT_UTF8}; state its `encoding`, or mend its first line")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise BadInput(f"{file}: the CSV header names a column twice: {', '.join(map(repr, repeated))}")
    return names


# ---- columns


def _parquet(file: BinaryIO) -> Iterator[Chunk]:
    yield from _batches(lambda: pq.ParquetFile(file).iter_batches(batch_size=ROWS_PER_CHUNK), "Parquet")


def _arrow(file: BinaryIO, *, stream: bool) -> Iterator[Chunk]:
    def batches() -> Iterator[pa.RecordBatch]:
        if stream:
            yield from map(_checked, pa.ipc.open_stream(file))
        else:
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                yield _checked(reader.get_batch(i))

    yield from _batches(batches, "Arrow")


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch whose offsets lie in it: Arrow looks at none when it reads, and a wrong one reads any memory.

    Text that is not valid costs its row only, later: as bytes it is not looked at.
    """
    as_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        column.cast(as_bytes.get(column.type, column.type)).validate(full=True)
    return batch


def _batches(batches: Any, name: str) -> Iterator[Chunk]:
    number = 1
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, ROWS_PER_CHUNK):
                part = batch.slice(start, ROWS_PER_CHUNK)
                yield _rows_of_batch(part, number)
                number += part.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError, UnicodeDecodeError) as error:
        raise Damage(f"cannot be read as {name}: {error}", line=number - 1) from error


# What Arrow raises where it cannot give a value to Python; KeyError for a time zone that this machine does not know.
_UNREADABLE = (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError, KeyError)


def _rows_of_batch(batch: pa.RecordBatch, number: int) -> Chunk:
    numbers = list(range(number, number + batch.num_rows))
    with suppress(*_UNREADABLE):
        return Chunk(numbers, batch.to_pylist())
    columns = [_values(column) for column in batch.columns]
    return Chunk(numbers, [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)])


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(column.type) or pa.types.is_time(column.type) or pa.types.is_duration(column.type):
        column = _time_texts(column)
    try:
        return list(column.to_pylist())
    except _UNREADABLE:
        return [_value(scalar) for scalar in column]


def _time_texts(column: pa.Array) -> pa.Array:
    """Times as text, since Python's have no nanoseconds; as integers where Arrow cannot write them."""
    for kind in (pa.string(), pa.int64()):
        try:
            return column.cast(kind)
        except pa.ArrowException:
            continue
    return column


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _UNREADABLE as error:
        return Unreadable(
            NOT_UTF8 if isinstance(error, UnicodeDecodeError) else f"a value that cannot be read ({error})"
        )
