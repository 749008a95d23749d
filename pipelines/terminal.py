"""Texts of rows, files and names as a terminal may show them: what would steer it is written out."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Protocol

# Control characters but for tab and newline (a terminal obeys them), separators of lines, marks that force the
# direction of what follows, and halves of surrogate pairs, as in a file name that is no UTF-8, which no stream can
# encode.
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text with all that a terminal would obey as escapes, which JSON can read too; tab and newline stay.

    >>> print(printable("red: \x1b[31m, name: a\u202etxt.exe"))
    red: \u001b[31m, name: a\u202etxt.exe
    """
    return _STEERING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class Writable(Protocol):
    """What CSV and JSON are written to."""

    def write(self, text: str, /) -> int:
        """Write a text."""
        ...

    def writelines(self, lines: Iterable[str], /) -> None:
        """Write texts."""
        ...


class _Escaped:
    """A stream that shows what is written to it."""

    def __init__(self, stream: Writable) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        return self._stream.write(printable(text))

    def writelines(self, lines: Iterable[str], /) -> None:
        self._stream.writelines(map(printable, lines))


def standard_output() -> Writable:
    """For data: exact where a file or a program takes it, escaped where a terminal does."""
    return _Escaped(sys.stdout) if sys.stdout.isatty() else sys.stdout
