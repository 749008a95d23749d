"""The wording of messages about a configuration: the value that stands there, what is allowed, the nearest known name."""

from __future__ import annotations

import difflib
import glob
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# pydantic's error types -> our rule; the fields are pydantic's context of the error.
_RULES = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be text or a list of texts",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge:.19g}",
    "less_than": "must be below {lt:.19g}",
    "less_than_equal": "must be at most {le:.19g}",
}


def listed(names: Iterable[str]) -> str:
    """Join names for a message.

    >>> listed(["a", "b"])
    'a, b'
    """
    return ", ".join(names)


def counted(count: int, thing: str) -> str:
    """A number with its noun, in the plural where it is not 1.

    >>> counted(1, "file"), counted(1200, "file")
    ('1 file', '1,200 files')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A suggestion to append to a message about an unknown name; empty if no known name is close.

    >>> nearest("bugdet", ["budget", "seed"])
    ' (did you mean `budget`?)'
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean `{close[0]}`?)" if close else ""


def no_match(pattern: str, absolute: str) -> str:
    """Explain why a path of the configuration matches no file.

    Args:
        pattern: the path or glob as it is written.
        absolute: the same, resolved against the configuration's folder.
    """
    path = Path(absolute)
    if path.exists():
        return f"{pattern!r} holds nothing that can be read"
    if glob.has_magic(absolute):
        return f"no file matches {pattern!r} (looked for {absolute})"
    if not path.parent.is_dir():
        return f"{pattern!r} does not exist: there is no folder {path.parent}"
    close = nearest(path.name, sorted(beside.name for beside in path.parent.iterdir()))
    return f"{pattern!r} does not exist in {path.parent}{close}"


def describe(value: Any, written: str | None = None) -> str:
    """Describe a value of the configuration in a user's words.

    Args:
        value: the value as YAML read it.
        written: its text in the file, before YAML gave it a type.

    >>> describe(False, "no")
    'no, which YAML reads as false'
    """
    if isinstance(value, bool):
        text = str(value).lower()
        return text if written in (None, text) else f"{written}, which YAML reads as {text}"
    if isinstance(value, (int, float)):
        return f"the number {written or value}"
    if value is None or isinstance(value, (list, tuple, dict)):
        return "nothing" if value is None else "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, str):
        return repr(value)
    return f"{written or value}, which YAML reads as a {type(value).__name__}"


def expected(kind: str, context: Mapping[str, Any], message: str, value: str) -> str:
    """Word an error of pydantic.

    Args:
        kind: pydantic's type of the error.
        context: pydantic's context: bounds, allowed values.
        message: pydantic's own message, for a type that has no rule here.
        value: the value that was refused, by `describe`.
    """
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])  # of a validator of ours, worded there
    if kind == "too_short":
        return "must not be empty"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", context["expected"])
        return f"must be one of {listed(allowed)}, found {value}{nearest(value.strip(chr(39)), allowed)}"
    if kind.startswith(("greater", "less")):
        value = value.removeprefix("the number ")
    rule = _RULES.get(kind, message).format(**context)
    mendable = kind == "string_type" and not value.startswith(("a list", "a mapping", "nothing"))
    return f"{rule}, found {value}{'; put it in quotes' if mendable else ''}"
