"""Fields that winnow has no name for: kept as JSON, with a type for each column of them.

A value is stored so that it prints back as it was written. What JSON cannot hold becomes null or its hash, and is
counted; it never costs the row.

Types of a column: "integer" (to 2^53), "bigint" (64 bits), "hugeint" (to 38 digits), "number" (a double),
"decimal(s)" (s digits behind the point, not more than 15 in all), "boolean", "text" (and mixed scalars), "json"
(objects and lists) and "null" (none).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from storage.files.readers import Unreadable
from storage.pool.content import to_json

_EXACT = 2**53
# A longer list of numbers is an embedding: it belongs into `vectors`, not into JSON.
_MAX_NUMBERS = 32
_DECIMAL_DIGITS = 15


def encode(fields: Mapping[str, Any], notices: Counter[str]) -> bytes:
    """The fields as a JSON object; what cannot be kept as it is, is counted by field and cause."""
    try:
        if not any(map(_needs_care, fields.values())):
            return orjson.dumps(fields)
    except (TypeError, ValueError):  # values of columnar files that JSON lacks
        pass
    encoded = {}
    for name, value in fields.items():
        encoded[name], cause = _encoded(value)
        if cause:
            notices[f"field {name[:60]!r}: {cause}"] += 1
    return orjson.dumps(encoded, option=orjson.OPT_NON_STR_KEYS)


def _needs_care(value: Any) -> bool:
    kind = type(value)
    return (kind is float and not math.isfinite(value)) or (kind is list and len(value) > _MAX_NUMBERS)


def _encoded(value: Any) -> tuple[Any, str | None]:
    """A value that orjson writes, and what was lost."""
    kind = type(value)
    if kind is Unreadable:
        return None, f"{value.cause}; set to null"
    if kind in (float, Decimal) and not math.isfinite(value):
        return None, "NaN or infinity; set to null"
    if kind is list and len(value) > _MAX_NUMBERS and {*map(type, value)} <= {float, int}:
        return None, f"a list of more than {_MAX_NUMBERS} numbers; set to null (bring vectors by `vectors:`)"
    try:
        text = f"{value:f}".encode() if kind is Decimal else to_json(value)
    except ValueError:
        return None, "nested too deep for JSON; set to null"
    return orjson.Fragment(text), "binary data; its hash is kept" if kind is bytes else None


# ---- cells of CSV files, which have no type

_INTEGER = re.compile(r"-?[1-9]\d{0,37}|0")
_POINT = re.compile(r"-?(?:0|[1-9]\d*)\.(\d+)")


def cell(text: str) -> Any:
    """The value of a CSV cell: a number only if it prints back to the same text; None for an empty cell.

    >>> cell("12"), cell("0.5"), cell("007"), cell("1.10"), cell("12e45")
    (12, 0.5, '007', '1.10', '12e45')
    """
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _POINT.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    return text


# ---- types of columns


def type_of(value: Any, *, is_cell: bool = False) -> str:
    """The type of one value; of a CSV cell with the digits behind its point, as "number.2" and "decimal.2"."""
    kind = type(value)
    if kind is int:
        return _integer_type(abs(value))
    if kind is float and is_cell:
        return f"number.{len(repr(value).partition('.')[2])}"
    if kind is str and is_cell and (point := _POINT.fullmatch(value)) and len(value) <= _DECIMAL_DIGITS:
        return f"decimal.{len(point[1])}"
    if kind is Decimal:
        return _decimal_type(value)
    return _KINDS.get(kind, "text")


_KINDS = {float: "number", bool: "boolean", dict: "json", list: "json", Unreadable: "null"}


def _integer_type(size: int) -> str:
    if size <= _EXACT:
        return "integer"
    return "bigint" if size < 2**63 else "hugeint" if size < 10**38 else "text"


def _decimal_type(value: Decimal) -> str:
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        return "null"
    return f"decimal.{max(-exponent, 0)}" if len(digits) <= _DECIMAL_DIGITS else "text"


_INTEGERS = ("integer", "bigint", "hugeint")


def common_type(types: Iterable[str]) -> str:
    """The type that holds values of all these types and prints them back.

    >>> common_type({"integer", "number", "null"}), common_type({"integer", "text"}), common_type({"number.1", "decimal.2"})
    ('number', 'text', 'text')
    """
    distinct = set(types) - {"null"}
    if len(distinct) <= 1 and not any("." in kind for kind in distinct):
        return next(iter(distinct), "null")
    if distinct <= set(_INTEGERS):
        return max(distinct, key=_INTEGERS.index)
    written = {kind.partition(".") for kind in distinct}
    names = {name for name, _, _ in written}
    if "decimal" in names and names <= {"decimal", "number"}:
        digits = {digits for _, _, digits in written}
        return f"decimal({digits.pop()})" if len(digits) == 1 else "text"
    if names <= {"number", "integer"}:
        return "number"
    return "json" if "json" in names else "text"


def sql_type(kind: str) -> str | None:
    """The SQL type of a column; None for text and JSON, which stay as they are written."""
    if kind.startswith("decimal("):
        return f"DECIMAL(18, {kind[8:-1]})"
    return {
        "integer": "BIGINT",
        "bigint": "BIGINT",
        "hugeint": "HUGEINT",
        "number": "DOUBLE",
        "boolean": "BOOLEAN",
    }.get(kind)


def is_numeric(kind: str) -> bool:
    """Whether float64 holds the values of a column of this type exactly."""
    return kind in ("number", "integer", "boolean") or kind.startswith("decimal(")
