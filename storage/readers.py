"""Bytes of a pool file -> numbered records, whatever the file's compression and format.

Content decides, names only help: gzip, zstd, Parquet, Arrow and byte-order marks are told by their first bytes, the rest
(JSON Lines, JSON array, CSV) by the extension. Everything streams: memory is a few blocks, whatever the file's size.

A record that cannot be read costs that record only: it comes back as a `Bad` with its number, cause and excerpt. Damage of
the container itself (a cut gzip, a wrong checksum) is raised as `Damage` after every record before it was given.

What is decided where JSON leaves a choice: NaN and Infinity, a number too large for a double, half of a surrogate pair
and more than 1,024 levels of nesting make a bad record; an integer above 2^64 is kept as the nearest double; of a
repeated key the last value stands. Lines end at LF (CR before it is white space); U+2028 and the like are text.
"""

from __future__ import annotations

import codecs
import csv
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from storage.errors import BadInput

BLOCK_BYTES = 1 << 20
# Compressed bytes fed at a time: small, so that little is lost before damage and a highly compressed file stays small.
PIECE_BYTES = 1 << 14
# A longer record is not text to train on; the bound keeps a file without line ends from filling the memory.
MAX_RECORD_BYTES = 64 << 20
ROWS_PER_CHUNK = 4096
EXCERPT_CHARS = 200

EXTENSIONS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = (".gz", ".zst")

_BOMS = (  # UTF-32 before UTF-16, whose mark is its prefix
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# What cannot be decoded becomes a lone surrogate, which no JSON parser and no check below lets through: only its record is lost.
_UNDECODABLE = "\udcff"
codecs.register_error("winnow.undecodable", lambda error: (_UNDECODABLE, error.end))  # type: ignore[attr-defined]
csv.field_size_limit(MAX_RECORD_BYTES)


class Damage(Exception):  # noqa: N818 - a state of the file; whoever reads decides whether it is an error
    """The container ends or breaks here.

    Attributes:
        cause: in plain words.
        fatal: records are missing or doubtful; False for junk after a complete file.
        line: number of the last line or record that was reached.
    """

    def __init__(self, cause: str, *, fatal: bool = True, line: int = 0) -> None:
        super().__init__(cause)
        self.cause, self.fatal, self.line = cause, fatal, line


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that cannot be read."""

    line: int
    cause: str
    excerpt: str


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
    try:
        "".encode(encoding)
    except LookupError:
        raise BadInput(f"{name}: unknown encoding {encoding!r}; for example utf-8, latin-1, cp1252, gb18030") from None
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
        blocks = _utf8(_decompressed(file), encoding)
        if kind in (".csv", ".tsv"):
            yield from _csv(blocks, "," if kind == ".csv" else "\t", name)
            return
        first = next(blocks, b"")
        text = _chain(first, blocks)
        is_array = kind == ".json" and first.lstrip().startswith(b"[")
        for number, lines in _array_elements(text) if is_array else _lines(text):
            yield _parsed(number, lines)


def extension(name: str) -> str:
    """The extension that tells the format, without that of the compression.

    >>> extension("a/b.JSONL.gz")
    '.jsonl'
    """
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix


def stem(name: str) -> str:
    """The file's name without extensions of format and compression: the source of rows that name none.

    >>> stem("s3://bucket/web.v2.jsonl.gz")
    'web.v2'
    """
    base = PurePosixPath(name).name
    for suffixes in (COMPRESSIONS, EXTENSIONS):
        if base.lower().endswith(suffixes):
            base = base[: base.rindex(".")]
    return base


def excerpt(value: Any) -> str:
    """The beginning of a record as printable text on one line.

    >>> excerpt(b'{"a": \\xff\\x00}')
    '{"a": \\ufffd\\ufffd}'
    """
    if not isinstance(value, bytes | str):
        value = repr(value)
    text = value[: 4 * EXCERPT_CHARS].decode("utf-8", "replace") if isinstance(value, bytes) else value
    text = text[:EXCERPT_CHARS].replace("\n", " ").replace("\t", " ").strip()
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


# ---- bytes


def _decompressed(file: BinaryIO) -> Iterator[bytes]:
    """The file's bytes in blocks of about a megabyte, decompressed if they are gzip or zstd, whatever the file's name."""
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        # The stream checks each member's length and CRC itself. 31 = 15 bits of window + 16 for the gzip frame.
        yield from _members(file, b"\x1f\x8b", lambda: zlib.decompressobj(31), "gzip")
    elif magic == b"\x28\xb5\x2f\xfd":
        wide = 2**31  # also files written with `zstd --long`
        yield from _members(
            file, magic, lambda: zstandard.ZstdDecompressor(max_window_size=wide).decompressobj(), "zstd"
        )
    else:
        while block := file.read(BLOCK_BYTES):
            yield block


def _members(file: BinaryIO, magic: bytes, start: Any, name: str) -> Iterator[bytes]:
    """Decompress one or several members that follow each other; gather their output into blocks."""
    member, spare = start(), None
    out: list[bytes] = []
    size = 0
    rest = file.read(PIECE_BYTES)
    damage: Damage | None = None
    while rest:
        if member is None:
            if len(rest) < len(magic):
                rest += file.read(PIECE_BYTES)
            if not rest.startswith(magic):
                rest_blocks = _chain(rest, iter(lambda: file.read(BLOCK_BYTES), b""))
                if any(block.strip(b"\0") for block in rest_blocks):  # padding with zero bytes is allowed
                    damage = Damage(f"bytes that are not {name} after the end of the {name} data", fatal=False)
                break
            member = start()
        spare = member.copy() if hasattr(member, "copy") else None
        try:
            out.append(member.decompress(rest))
        except (zlib.error, zstandard.ZstdError) as error:
            out.extend(_until_error(spare, rest))
            what = "its checksum is wrong" if "check" in str(error) else "it is corrupt"
            damage = Damage(f"the {name} data is damaged: {what}, so rows before this may be damaged too")
            break
        size += len(out[-1])
        if size >= BLOCK_BYTES:
            yield b"".join(out)
            out, size = [], 0
        rest = b""
        if member.eof:
            rest, member = member.unused_data, None
        rest = rest or file.read(PIECE_BYTES)
    else:
        if member is not None:
            damage = Damage(f"the {name} data is cut short")
    yield b"".join(out)
    if damage is not None:
        raise damage


def _until_error(member: Any, piece: bytes) -> Iterator[bytes]:
    """What can still be decompressed of the piece that failed."""
    try:
        for i in range(len(piece) if member is not None else 0):
            yield member.decompress(piece[i : i + 1])
    except zlib.error:
        return


def _utf8(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """The same text as UTF-8 without byte-order mark."""
    head = b""
    for block in blocks:  # enough bytes to see the mark; Damage may come first, then there is no text
        head += block
        if len(head) >= 4:
            break
    for mark, name in _BOMS:
        if head.startswith(mark):
            head, encoding = head[len(mark) :], name
            break
    if codecs.lookup(encoding).name == "utf-8":
        yield head
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("winnow.undecodable")
    for block in _chain(head, blocks):
        yield decoder.decode(block).encode("utf-8", "surrogatepass")
    yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")


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


def _array_elements(blocks: Iterator[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield `(number of the first element, elements)` of one JSON array, each element as its own bytes.

    Only brackets and strings are looked at here, so that an element that does not parse costs only itself.
    """
    buffer, start, position, depth, number = b"", 0, 0, 0, 1
    try:
        for block in blocks:
            buffer, position, start = buffer[start:] + block, position - start, 0
            elements: list[bytes] = []
            ended = False
            for match in _TOKEN.finditer(buffer, position):
                token, at = match.group(), match.start()
                position = match.end()
                if token == b'"':
                    position = at
                    break
                if token in (b"[", b"{"):
                    depth += 1
                    if depth == 1:
                        start = position
                elif token in (b"]", b"}"):
                    depth -= 1
                    if depth == 0:
                        ended = True
                        elements.append(buffer[start:at])
                        break
                elif token == b"," and depth == 1:
                    elements.append(buffer[start:at])
                    start = position
            else:
                position = len(buffer)
            elements = [element for element in elements if element.strip()]
            if elements:
                yield number, elements
                number += len(elements)
            if ended:
                if buffer[position:].strip() or any(more.strip() for more in blocks):
                    raise Damage("text after the end of the JSON array", fatal=False)
                return
            if len(buffer) - start > MAX_RECORD_BYTES:
                raise Damage(f"one element of the JSON array is larger than {MAX_RECORD_BYTES:,} bytes")
        raise Damage("the JSON array is cut short")
    except Damage as damage:
        damage.line = number - 1
        raise


def _parsed(number: int, lines: list[bytes]) -> Chunk:
    """Parse a chunk of lines at once; one by one only if one of them fails."""
    kept = [(i, line) for i, line in enumerate(lines, number) if line and not line.isspace()]
    loads = orjson.loads
    try:
        return Chunk([i for i, _ in kept], [loads(line) for _, line in kept])
    except orjson.JSONDecodeError:
        pass
    chunk = Chunk()
    for i, line in kept:
        try:
            record = loads(line)
        except orjson.JSONDecodeError as error:
            chunk.bad.append(Bad(i, _json_cause(line, error), excerpt(line)))
        else:
            chunk.lines.append(i)
            chunk.records.append(record)
    return chunk


_JSON_CAUSES = (
    ("not valid UTF-8", "not valid UTF-8 (another encoding, or damaged)"),
    ("surrogate", "a \\u escape is half of a surrogate pair"),
    ("depth limit", "nested deeper than 1,024 levels"),
    ("infinity", "a number is too large"),
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
    # `pos` counts characters, of text that did decode, since invalid UTF-8 is reported as such.
    if re.match(r"-?(NaN|Infinity)\b", line.decode("utf-8", "replace")[max(error.pos - 1, 0) :].lstrip(": [,")):
        return "NaN or Infinity, which JSON does not have (write null)"
    return "not JSON"


# ---- CSV


def _csv(blocks: Iterator[bytes], delimiter: str, name: str) -> Iterator[Chunk]:
    """Rows of a CSV file with a header, as dicts of text; a number is that of the line on which the row starts."""
    state: dict[str, Damage] = {}

    def text_lines() -> Iterator[str]:
        try:
            for _, lines in _lines(blocks):
                for line in lines:
                    if isinstance(line, _TooLong):
                        raise Damage(f"a line is longer than {MAX_RECORD_BYTES:,} bytes", line=rows.line_num)  # noqa: TRY301
                    yield line.decode("utf-8", "winnow.undecodable") + "\n"
        except Damage as damage:
            state["damage"] = damage

    rows = csv.reader(text_lines(), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    chunk = Chunk()
    while True:
        line = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                yield chunk
                raise Damage("a quote that opens here is never closed", line=line) from None
            chunk.bad.append(Bad(line, f"not CSV: {error}", ""))
            continue
        if row is None:
            break
        if not row:
            continue
        if header is None:
            header = _header([cell.strip() for cell in row], name)
        elif _UNDECODABLE in (text := delimiter.join(row)):
            chunk.bad.append(Bad(line, _JSON_CAUSES[0][1], excerpt(text)))
        elif len(row) != len(header):
            cause = f"{'more' if len(row) > len(header) else 'fewer'} values than the header has"
            chunk.bad.append(Bad(line, cause, excerpt(text)))
        else:
            chunk.lines.append(line)
            chunk.records.append(dict(zip(header, row, strict=True)))
        if len(chunk.lines) + len(chunk.bad) >= ROWS_PER_CHUNK:
            yield chunk
            chunk = Chunk()
    yield chunk
    if "damage" in state:
        raise state["damage"]


def _header(names: list[str], file: str) -> list[str]:
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
            yield from pa.ipc.open_stream(file)
        else:
            reader = pa.ipc.open_file(file)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)

    yield from _batches(batches, "Arrow")


def _batches(batches: Any, name: str) -> Iterator[Chunk]:
    number = 1
    try:
        for batch in batches():
            for start in range(0, batch.num_rows, ROWS_PER_CHUNK):
                part = batch.slice(start, ROWS_PER_CHUNK)
                yield _rows_of_batch(part, number)
                number += part.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError) as error:
        raise Damage(f"cannot be read as {name}: {error}", line=number - 1) from error


def _rows_of_batch(batch: pa.RecordBatch, number: int) -> Chunk:
    numbers: Iterable[int] = range(number, number + batch.num_rows)
    try:
        return Chunk(list(numbers), batch.to_pylist())
    except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError):
        pass
    chunk = Chunk()
    for i in range(batch.num_rows):
        try:
            chunk.records.extend(batch.slice(i, 1).to_pylist())
            chunk.lines.append(number + i)
        except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError) as error:
            cause = _JSON_CAUSES[0][1] if isinstance(error, UnicodeDecodeError) else f"a value cannot be read: {error}"
            chunk.bad.append(Bad(number + i, cause, ""))
    return chunk
