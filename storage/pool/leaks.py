"""Which rows hold what a target asks: who trains on such a row has seen the test.

A target asks with the turns of its user, or with its text. A row holds it if these are turns of the row, all of them
and in this order, whoever speaks there; so a target that opens with "Hi" keeps out no row for that alone. Texts are
equal if they are after Unicode NFKC, without invisible characters, case, and punctuation that is not between two
digits, and with white space as one blank.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from storage.pool.content import Turns, turns_from_table

# Texts are told apart by their first letters and digits; so many bytes of them.
_HEAD = 64
_LETTERS = 12
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalnum())
# No UTF-8 text has this byte.
_BETWEEN = b"\xff"


def normalized(text: str) -> str:
    """The text as it is compared; a text of punctuation alone as it is.

    >>> normalized("\u201cWHAT\u2019s\u00a03.5\u200b + 1?\u201d")
    'what s 3.5 + 1'
    """
    punctuation, invisible = _patterns()
    return " ".join(punctuation.sub(" ", invisible.sub("", _folded(text))).split()) or " ".join(text.split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Punctuation that is not between two digits, and invisible characters."""
    letters: dict[str, str] = {"P": "", "Cf": ""}
    # No punctuation and no format character lies in the planes between, and none is assigned beyond.
    for letter in map(chr, (*range(0x20000), *range(0xE0000, 0xE1000))):
        category = unicodedata.category(letter)
        key = "P" if category.startswith("P") else category
        if key in letters:
            letters[key] += re.escape(letter)
    return re.compile(rf"(?<!\d)[{letters['P']}]|[{letters['P']}](?!\d)"), re.compile(f"[{letters['Cf']}]")


class Questions:
    """What some targets ask."""

    def __init__(self, targets: Iterable[Turns]) -> None:
        self._targets: dict[str, list[tuple[str, ...]]] = {}
        for turns in targets:
            texts = [normalized(text) for role, text in turns if role in ("user", "text")]
            asked = tuple(filter(None, texts))
            for question in asked:
                self._targets.setdefault(question, []).append(asked)
        letters = {_letters(question) for question in self._targets}
        self._whole, self._beginnings = letters, {each[:_LETTERS] for each in letters}

    def __len__(self) -> int:
        return len(self._targets)

    def asked_in(self, turns: Turns) -> bool:
        """Whether a row with these turns holds all that one of the targets asks."""
        texts = [text for _, text in turns if text and self._may_match(text)]
        held = [question for text in texts if (question := normalized(text)) in self._targets]
        return any(_in_order(asked, held) for question in held for asked in self._targets[question])

    def asked_in_rows(self, table: pa.Table) -> npt.NDArray[np.bool_]:
        """(n,) `asked_in` of each row of a table with the columns `TURN_COLUMNS`.

        Cost: for rows of one or two turns in ASCII that are no question a tenth of `asked_in`, for others all of it.
        """
        holds = self._may_be(table["prompt"]) | self._may_be(table["response"])
        holds |= np.asarray(table["messages"].is_valid(), np.bool_)
        rows = np.flatnonzero(holds)
        holds[rows] = [self.asked_in(turns) for turns in turns_from_table(table.take(rows))]
        return holds

    def _may_be(self, texts: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """(n,) False only for texts that are no question: those in ASCII that have other letters."""
        whole = texts.cast(pa.binary()).fill_null(b"").combine_chunks()
        heads = _letters_of(pc.binary_slice(whole, 0, _HEAD))
        begins = [each[:_LETTERS] in self._beginnings or len(each) < _LETTERS or not each.isascii() for each in heads]
        may = np.array(begins, np.bool_)
        rows = np.flatnonzero(may)
        may[rows] = [each in self._whole or not each.isascii() for each in _letters_of(whole.take(pa.array(rows)))]
        return may

    def _may_match(self, text: str) -> bool:
        head = text[:_HEAD]
        if not head.isascii():
            # The last letter may be another one with what follows it, so twice as many must be there.
            start = _letters(_folded(head))
            return len(head) == len(text) or len(start) < 2 * _LETTERS or start[:_LETTERS] in self._beginnings
        letters = head.encode().lower().translate(None, _NO_LETTERS)
        if len(head) == len(text):
            return letters in self._whole
        return len(letters) < _LETTERS or letters[:_LETTERS] in self._beginnings


def _letters(folded: str) -> bytes:
    """The letters and digits of a folded or normalized text."""
    return "".join(filter(str.isalnum, folded)).encode()


def _letters_of(texts: pa.BinaryArray) -> list[bytes]:
    """The letters and digits of each UTF-8 text, those of ASCII in lower case; of all texts in one go."""
    if not len(texts):
        return []
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(texts)], pa.int32()), texts), _BETWEEN)
    letters: bytes = joined[0].as_py().lower().translate(None, _NO_LETTERS)
    return letters.split(_BETWEEN)


def _in_order(asked: tuple[str, ...], held: list[str]) -> bool:
    rest = iter(held)
    return all(question in rest for question in asked)
