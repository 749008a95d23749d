"""Plants: evaluation texts in disguise, to measure how many of them a search for evaluation texts finds.

The rules on texts promise to find `PROMISED`; the others are measured and reported.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping

import numpy as np

from selection.kernels.words import folded

PROMISED = ("verbatim", "rewrapped", "case_and_punctuation")

_NUMBER = re.compile(r"\d+")
_NAME = re.compile(r"(?<![.!?:]\s)(?<!\A)(?<=\s)[A-Z][a-z]{2,}\b")
_NAMES = (
    "Amara",
    "Bjorn",
    "Chidi",
    "Dalia",
    "Emeka",
    "Farid",
    "Giulia",
    "Hanako",
    "Imran",
    "Jelena",
    "Kofi",
    "Leilani",
)
# Lines around a text that say nothing of it.
OUTER = (
    "Here is an entry of the archive, copied as it was found.",
    "End of the entry. Nothing in it was changed.",
)
# Where an answer option begins: "(A) ", "b. ", "2) ", "Answer3: ".
_OPTION = re.compile(r"(?<!\S)(?:\(?[A-Ha-h1-8][).:]|[Aa]nswer ?[1-8]:|[Oo]ption ?[1-8A-H]:)\s")
# ASCII punctuation that ends a word wherever it stands; a comma or an apostrophe may stand inside of one.
_MARKS = '!"#$%&()*+-./:;<=>?@[]^`{|}~'
_SPARED = re.compile(r"['\u2019,]")


def verbatim(text: str, rng: np.random.Generator) -> str:  # noqa: ARG001
    """The text as it is."""
    return text


def rewrapped(text: str, rng: np.random.Generator) -> str:
    """The text in lines of another width, indented."""
    width, indent = int(rng.integers(24, 61)), " " * int(rng.integers(0, 5))
    lines = textwrap.wrap(
        " ".join(text.split()), width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent
    )
    return "\n".join(lines)


def recased(text: str, rng: np.random.Generator) -> str:
    """The text in capitals, or in small letters."""
    return text.upper() if rng.random() < 0.5 else text.lower()


def case_and_punctuation(text: str, rng: np.random.Generator) -> str:
    """Words in capitals or small letters; marks that end a word replaced by others, or doubled; curly apostrophes."""
    parts = re.split(r"(\s+)", text)
    return "".join(_disguised(part, rng) if part.strip() else part for part in parts)


def numbers_replaced(text: str, rng: np.random.Generator) -> str | None:
    """Other numbers of as many digits; None where there are none."""
    return _changed(text, _NUMBER.sub(lambda match: _other_number(match.group(), rng), text))


def names_replaced(text: str, rng: np.random.Generator) -> str | None:
    """Other names for capitalized words inside of sentences, the same for the same; None where there are none."""
    names = sorted(set(_NAME.findall(text)))
    others = dict(zip(names, rng.permutation(_NAMES).tolist() * (len(names) // len(_NAMES) + 1), strict=False))
    pattern = re.compile(r"\b(?:" + "|".join(map(re.escape, names)) + r")\b") if names else None
    return None if pattern is None else _changed(text, pattern.sub(lambda match: others[match.group()], text))


def options_reordered(text: str, rng: np.random.Generator) -> str | None:
    """The answer options in another order, under the letters that stood there; None where there are less than two."""
    marks = list(_OPTION.finditer(text))
    if len(marks) < 2:
        return None
    stops = [mark.start() for mark in marks[1:]] + [_end_of_line(text, marks[-1].end())]
    options = [text[mark.end() : stop] for mark, stop in zip(marks, stops, strict=True)]
    contents = [option.strip() for option in options]
    order = rng.permutation(len(options))
    order = np.roll(order, 1) if (order == np.arange(len(order))).all() else order
    whole = text[: marks[0].start()]
    for mark, option, place in zip(marks, options, order.tolist(), strict=True):
        before, after = option[: len(option) - len(option.lstrip())], option[len(option.rstrip()) :]
        whole += mark.group() + before + contents[place] + after
    return _changed(text, whole + text[stops[-1] :])


KINDS: Mapping[str, Callable[[str, np.random.Generator], str | None]] = {
    "verbatim": verbatim,
    "rewrapped": rewrapped,
    "case_and_punctuation": case_and_punctuation,
    "numbers_replaced": numbers_replaced,
    "names_replaced": names_replaced,
    "options_reordered": options_reordered,
}


def inside(carrier: str, text: str, rng: np.random.Generator) -> str:
    """The text on lines of its own between two words of another text."""
    words = list(re.finditer(r"\S+", carrier))
    at = words[int(rng.integers(len(words)))].start() if words else 0
    return f"{carrier[:at]}\n\n{text}\n\n{carrier[at:]}"


def _disguised(word: str, rng: np.random.Generator) -> str:
    cased = [word, word.upper(), word.lower(), word.capitalize()][int(rng.integers(4))]
    if folded(cased) != folded(word):
        cased = word  # a letter whose capital is another one
    if _SPARED.search(cased):
        return cased.replace("'", "\u2019")
    letters = [_MARKS[int(rng.integers(len(_MARKS)))] if letter in _MARKS else letter for letter in cased]
    return "".join(letters) + ("" if rng.random() < 0.8 else "\u2026")


def _other_number(digits: str, rng: np.random.Generator) -> str:
    other = "".join(str(rng.integers(1 if i == 0 else 0, 10)) for i in range(len(digits)))
    return other if other != digits else digits[:-1] + str((int(digits[-1]) + 1) % 10)


def _end_of_line(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _changed(before: str, after: str) -> str | None:
    """A text that is not as it was."""
    return after if after != before else None
