"""A file's bytes -> blocks of UTF-8 text, whatever its compression and encoding.

Content decides, never the name: the first bytes tell gzip (also of several members) and zstd, byte-order marks tell
UTF-8, UTF-16 and UTF-32. Damage of the container is raised as `Damage` after everything before it was given.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import zstandard

BLOCK_BYTES = 1 << 20
# Compressed bytes fed at a time: few, so that little is lost before damage and what unpacks a thousandfold stays small.
PIECE_BYTES = 1 << 14

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"

_BOMS = (  # UTF-32 before UTF-16, whose mark is its prefix
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Bytes that cannot be decoded become this lone surrogate, which is no valid text: their record is lost, its neighbours
# are not.
UNDECODABLE = "\udcff"
UNDECODABLE_ERRORS = "winnow.undecodable"
codecs.register_error(UNDECODABLE_ERRORS, lambda error: (UNDECODABLE, error.end))  # type: ignore[attr-defined]


class Damage(Exception):
    """The container ends or breaks here.

    Attributes:
        cause: in plain words.
        fatal: records are missing or doubtful; False for junk after a complete file.
        line: number of the last line or record before it.
    """

    def __init__(self, cause: str, *, fatal: bool = True, line: int = 0) -> None:
        super().__init__(cause)
        self.cause, self.fatal, self.line = cause, fatal, line


def is_encoding(name: str) -> bool:
    """Whether text of an encoding of this name can be read.

    >>> [is_encoding(name) for name in ("cp1252", "utf-16", "hex", "idna", "undefined")]
    [True, True, False, False, False]
    """
    try:
        codecs.getincrementaldecoder(name)
        b"a\0\0\0".decode(name, UNDECODABLE_ERRORS)
    except (LookupError, ValueError):
        return False
    return True


def has_mark(file: BinaryIO) -> bool:
    """Whether a file begins with what tells a compression or an encoding; it is left at its beginning."""
    head = file.read(8)
    file.seek(0)
    return head.startswith((GZIP, ZSTD, *(mark for mark, _ in _BOMS)))


def text_blocks(file: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yield the file's text as UTF-8 without byte-order mark, about a megabyte at a time.

    Args:
        file: at its beginning.
        encoding: of text without a byte-order mark.

    Raises:
        Damage: the compressed data is damaged, or the text is not of this encoding at all.
    """
    blocks = _gathered(_decompressed(file))
    head = b""
    for block in blocks:
        head += block
        if len(head) >= 4:  # enough to see any mark
            break
    for mark, name in _BOMS:
        if head.startswith(mark):
            head, encoding = head[len(mark) :], name
            break
    if codecs.lookup(encoding).name == "utf-8":
        yield head
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)(UNDECODABLE_ERRORS)
    try:
        for block in chain([head], blocks):
            yield decoder.decode(block).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        order = f"; without a byte-order mark say {encoding}-le or {encoding}-be" if "BOM" in str(error) else ""
        raise Damage(f"not {encoding} text: {error}{order}") from error


def _decompressed(file: BinaryIO) -> Iterator[bytes]:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(GZIP):
        # Each member's length and checksum is verified. 31: 15 bits of window, and 16 for the gzip frame.
        yield from _members(file, GZIP, lambda: zlib.decompressobj(31), "gzip")
    elif magic == ZSTD:
        wide = 2**31  # also files written with `zstd --long`
        yield from _members(
            file, ZSTD, lambda: zstandard.ZstdDecompressor(max_window_size=wide).decompressobj(), "zstd"
        )
    else:
        yield from iter(lambda: file.read(BLOCK_BYTES), b"")


def _members(file: BinaryIO, magic: bytes, start: Callable[[], Any], name: str) -> Iterator[bytes]:
    """Decompress the members of a file one after the other."""
    rest = b""
    while rest := rest or file.read(PIECE_BYTES):
        if len(rest) < len(magic):
            rest += file.read(PIECE_BYTES)
        if not rest.startswith(magic):
            if any(block.strip(b"\0") for block in chain([rest], iter(lambda: file.read(BLOCK_BYTES), b""))):
                raise Damage(f"bytes that are not {name} after the end of the {name} data", fatal=False)
            return  # padding with zero bytes is allowed
        member = start()
        while not member.eof:
            if not (piece := rest or file.read(PIECE_BYTES)):
                raise Damage(f"the {name} data is cut short")
            rest = b""
            spare = member.copy() if hasattr(member, "copy") else None
            try:
                yield member.decompress(piece)
            except (zlib.error, zstandard.ZstdError) as error:
                yield from _until_error(spare, piece)
                cause = str(error).rpartition(": ")[2]
                raise Damage(f"the {name} data is damaged ({cause}); rows before this may be damaged too") from error
        rest = member.unused_data


def _until_error(member: Any, piece: bytes) -> Iterator[bytes]:
    """What can still be had of the piece that failed, byte by byte."""
    try:
        for i in range(len(piece) if member is not None else 0):
            yield member.decompress(piece[i : i + 1])
    except zlib.error:
        return


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in blocks of at least `BLOCK_BYTES`, the last apart."""
    out: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            out.append(piece)
            size += len(piece)
            if size >= BLOCK_BYTES:
                yield b"".join(out)
                out, size = [], 0
    except Damage:
        yield b"".join(out)
        raise
    yield b"".join(out)
