"""JSON whose numbers print back as they were written: integers of any size, and floats with all their digits."""

from __future__ import annotations

import json
from typing import Any

import orjson

# Integers of fewer digits fit into 64 bits.
_LONG = 19


class Number:
    """A number that Python or 64 bits would write otherwise, by its text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return self.text


def loads(text: str) -> Any:
    """The value of a JSON text; a number is a `Number` where int or float would not print back the same.

    >>> loads('[1, 1.50, 123456789012345678901234567890]')
    [1, 1.50, 123456789012345678901234567890]
    """
    return _DECODER.decode(text)


def dumps(value: Any) -> bytes:
    r"""Compact JSON, UTF-8, keys in their order.

    Raises:
        ValueError: it is nested too deep, or holds a NaN or an infinity.

    >>> dumps(loads('{"b": "\u00e9", "a": 1e400}')).decode()
    '{"b":"é","a":1e400}'
    """
    try:
        return orjson.dumps(value, default=_plain)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"cannot be written as JSON: {error}") from None


def _integer(text: str) -> int | Number:
    return int(text) if len(text) < _LONG and text != "-0" else Number(text)


def _float(text: str) -> float | Number:
    value = float(text)
    return value if orjson.dumps(value).decode() == text else Number(text)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_float)


def _plain(value: Any) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(type(value).__name__)
