"""A check of five-field cron strings without importing Dagster, which takes a second and a half."""

from __future__ import annotations

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)


def cron_mistake(cron: str) -> str | None:
    """Name the mistake in a five-field cron string; None if it has none.

    >>> cron_mistake("0 25 * * *")
    "hour must be in 0..23, found '25'"
    """
    parts = cron.split()
    if len(parts) != len(_FIELDS):
        return f"must have five fields (minute, hour, day of month, month, day of week), found {len(parts)} in {cron!r}"
    for part, (name, low, high, words) in zip(parts, _FIELDS, strict=True):
        for item in part.lower().split(","):
            match = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", item)
            if match is None or (match[4] is not None and int(match[4]) == 0):
                return f"{name} is not a number, a range, a list or a step, found {part!r}"
            bounds = [_number(word, words) for word in (match[2], match[3]) if word is not None]
            if any(bound is None or not low <= bound <= high for bound in bounds):
                in_words = f" or {words[0]}..{words[-1]}" if words else ""
                return f"{name} must be in {low}..{high}{in_words}, found {part!r}"
            if len(bounds) == 2 and (bounds[0] or 0) > (bounds[1] or 0):
                return f"{name} is a range from high to low, found {part!r}"
            if match[4] is not None and int(match[4]) > high:
                return f"{name} has a step above {high}, found {part!r}"
    return None


def _number(word: str, words: list[str]) -> int | None:
    if word in words:
        return words.index(word) + (1 if words is _MONTHS else 0)
    return int(word) if word.isascii() and word.isdigit() else None
