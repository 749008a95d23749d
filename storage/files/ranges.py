"""The parts of a large text file that can be read apart: ranges of its bytes, each with the lines that begin in it."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.files.blocks import BLOCK_BYTES, has_mark

# A part has a 64th of the file, within these bounds.
MIN_BYTES, MAX_BYTES = 16 << 20, 256 << 20


@dataclass(frozen=True)
class LineRange:
    """The lines that begin at byte `start` or behind it, and before `stop`.

    Attributes:
        first: the number of the first of them, from 1.
    """

    start: int
    stop: int
    first: int


class LineCount:
    """Counts the lines of a file while another pass reads it, and cuts it into ranges.

    Args:
        file: at its beginning, where it is left.
        extension: of JSON Lines, or the file is not cut.
        encoding: of text without a byte-order mark.
    """

    def __init__(self, file: BinaryIO, extension: str, encoding: str) -> None:
        size = os.fstat(file.fileno()).st_size
        self._step = min(max(size // 64, MIN_BYTES), MAX_BYTES) // BLOCK_BYTES * BLOCK_BYTES
        plain = extension in (".jsonl", ".ndjson") and codecs.lookup(encoding).name == "utf-8"
        self._size = size if plain and size >= 2 * self._step and not has_mark(file) else 0
        self._firsts: list[int] = []
        self._position = self._newlines = 0
        self._after_newline = True

    def add(self, block: bytes) -> None:
        """Count the next block; all but the last have `BLOCK_BYTES`."""
        if not self._size:
            return
        if self._position % self._step == 0:
            # A line that begins here is the first of its range; one that goes on here is of the range before.
            self._firsts.append(self._newlines + (1 if self._after_newline else 2))
        self._position += len(block)
        self._newlines += block.count(b"\n")
        self._after_newline = block.endswith(b"\n")

    def ranges(self) -> list[LineRange] | list[None]:
        """The ranges in order, once all blocks are counted; a single None for a file that is read as a whole."""
        if not self._size:
            return [None]
        starts = [number * self._step for number in range(len(self._firsts))]
        stops = [*starts[1:], self._position]
        return [LineRange(*each) for each in zip(starts, stops, self._firsts, strict=True)]


def blocks_in(file: BinaryIO, part: LineRange) -> Iterator[bytes]:
    """The bytes of the lines of a range, about a megabyte at a time."""
    file.seek(part.start)
    if part.start:
        file.seek(part.start - 1)
        while (block := file.read(BLOCK_BYTES)) and b"\n" not in block:
            pass
        if not block:
            return
        behind = len(block) - block.index(b"\n") - 1
        file.seek(-behind, os.SEEK_CUR)
    while file.tell() < part.stop and (block := file.read(BLOCK_BYTES)):
        beyond = file.tell() - part.stop
        if beyond < 0:
            yield block
            continue
        # The last line ends at the first line end that is not before the range's last byte.
        while (end := block.find(b"\n", max(0, len(block) - beyond - 1))) < 0:
            yield block
            if not (block := file.read(BLOCK_BYTES)):
                return
            beyond = len(block)
        yield block[: end + 1]
        return
