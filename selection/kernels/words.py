"""Texts as words that survive copying: without case, punctuation, white space and invisible characters.

A text is folded: Unicode NFKC, case folding, NFKC again; invisible (format) characters go. A word is a longest run of
letters, digits and marks. An apostrophe between two of these, and the comma before a group of three ASCII digits, is
left out and does not end the word: "don't" is "dont", "1,000" is "1000". A character of a script that is written
without blanks (Han, kana, Thai, ...) is a word of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_WORD = re.compile(r"[0-9a-z\x80-\U0010ffff]+(?:(?:'|(?<=[0-9]),(?=[0-9]{3}(?![0-9])))[0-9a-z\x80-\U0010ffff]+)*")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
# The last ASCII character before others may compose with them.
_RUN = re.compile(r"[\x00-\x7f]+(?![^\x00-\x7f])|[\x00-\x7f]?[^\x00-\x7f]+")
_LEFT_OUT = str.maketrans("", "", "',")
_APOSTROPHES = "\u2018\u2019\u201b\u02bc"
# First and last character of the scripts without blanks between words: South-East Asian; CJK from the radicals to Yi
# (with kana, without Hangul); Han beyond the first plane.
_UNSPACED = ((0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0xA4CF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


class _Folding(dict[int, str]):
    """Character -> what stands for it; worked out when it first comes."""

    def __missing__(self, code: int) -> str:
        letter = chr(code)
        category = unicodedata.category(letter)
        if letter in _APOSTROPHES:
            value = "'"
        elif category == "Cf":
            value = ""
        elif category[0] not in "LNM":
            value = " "
        else:
            value = f" {letter} " if any(first <= code <= last for first, last in _UNSPACED) else letter
        self[code] = value
        return value


_FOLDING = _Folding()


def folded(text: str) -> str:
    """The text in which words are looked for: ASCII punctuation and white space are as they were.

    Every other character that is no part of a word is a blank, and each character that is a word by itself stands
    between blanks, so that a word is a run of ASCII letters, ASCII digits and characters beyond ASCII.

    >>> folded("\u201cWHAT\u2019s\u00a0\uff13.5\u200b?\u201d")
    " what's 3.5? "
    """
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _BEYOND_ASCII.sub(lambda match: match.group().translate(_FOLDING), plain)


def words(text: str) -> list[str]:
    """The words of a text.

    >>> words("Don\u2019t pay $1,000 for 3.5 \u6f22\u5b57!")
    ['dont', 'pay', '1000', 'for', '3', '5', '\u6f22', '\u5b57']
    """
    return [match.group().translate(_LEFT_OUT) for match in _WORD.finditer(folded(text))]


class PlacedWords:
    """The words of a text, and the characters of the text as it is that each comes from.

    Attributes:
        words: as `words` gives them.
        starts, stops: of each word.
    """

    def __init__(self, text: str) -> None:
        self.words = words(text)
        pieces: list[str] = []
        starts: list[int] = []  # of each character of the folded text: where what it comes from begins
        stops: list[int] = []
        for start, part in _parts(text):
            piece = folded(part)
            alike = part.isascii()  # then each character is folded by itself
            pieces.append(piece)
            starts += range(start, start + len(part)) if alike else [start] * len(piece)
            stops += range(start + 1, start + len(part) + 1) if alike else [start + len(part)] * len(piece)
        matches = list(_WORD.finditer("".join(pieces)))
        self.starts = [starts[match.start()] for match in matches]
        self.stops = [stops[match.end() - 1] for match in matches]
        if [match.group().translate(_LEFT_OUT) for match in matches] != self.words:
            # Marks that Unicode puts in another order across parts: all of the text, rather than a wrong part.
            self.starts, self.stops = [0] * len(self.words), [len(text)] * len(self.words)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """The characters `start .. stop - 1` of the text that hold its words `first` .. `last`."""
        return self.starts[first], self.stops[last]


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Parts that can be folded one by one, and where they begin: runs of ASCII; a letter with what composes with it."""
    for run in _RUN.finditer(text):
        start, part = run.start(), ""
        if run.group().isascii():
            yield start, run.group()
            continue
        for letter in run.group():
            if part and not _composes(part, letter):
                yield start, part
                start, part = start + len(part), ""
            part += letter
        yield start, part


def _composes(part: str, letter: str) -> bool:
    """Whether a letter must be folded together with what stands before it."""
    return bool(unicodedata.combining(letter)) or folded(part + letter) != folded(part) + folded(letter)
