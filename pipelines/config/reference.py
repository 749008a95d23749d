"""The reference of `winnow.yaml` in docs/configuration.md, made from the classes that check the file.

`python -m pipelines.config.reference` writes it anew; a test fails while it is out of date.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from pipelines.config.schema import (
    Config,
    Index,
    Keyed,
    KeyedVectors,
    LabelBudget,
    Labeling,
    Pool,
    PoolFiles,
    Recipe,
    Schedule,
    StepList,
    Stop,
    TargetFiles,
)
from selection.constraints import Quota, TokenBudget
from selection.encoders import EncoderSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: written by python -m pipelines.config.reference -->", "<!-- end of keys -->"

SECTIONS: tuple[tuple[str, type], ...] = (
    ("", Config),
    ("pool", Pool),
    ("pool.files[]", PoolFiles),
    ("pool.columns[]", Keyed),
    ("pool.vectors[], targets.<name>.vectors[]", KeyedVectors),
    ("encoders.<name>", EncoderSpec),
    ("targets.<name>", TargetFiles),
    ("recipes.<name>", Recipe),
    ("recipes.<name>.budget", TokenBudget),
    ("recipes.<name>.quota", Quota),
    ("labeling.<name>", Labeling),
    ("labeling.<name>.budget", LabelBudget),
    ("labeling.<name>.stop", Stop),
    ("index", Index),
    ("schedule", Schedule),
)

_WORDS = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    list: "list",
    StepList: "list",
    dict: "mapping",
}


def reference() -> str:
    """A list of keys for each section, as Markdown."""
    return "\n".join(
        f"### {f'`{name}`' if name else 'Top level'}\n\n{''.join(_entry(*key) for key in _keys(section))}"
        for name, section in SECTIONS
    )


def with_reference(document: str) -> str:
    """The document with the reference between its two marks."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{reference()}\n{END}{after}"


def _entry(key: str, kind: str, default: str, text: str) -> str:
    """One item of the list, in lines of at most 120 columns."""
    facts = ", ".join(filter(None, (kind, default)))
    return (
        textwrap.fill(
            f"- `{key}` ({facts}): {text}",
            width=120,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        + "\n"
    )


def _keys(section: type) -> Iterator[tuple[str, str, str, str]]:
    if issubclass(section, BaseModel):
        for name, info in section.model_fields.items():
            if not info.exclude:
                default = "required" if info.is_required() else _default(info.get_default())
                yield name, _kind(info.annotation, info.metadata), default, info.description or ""
        return
    hints, texts = get_type_hints(section), _attributes(section)
    assert dataclasses.is_dataclass(section)
    for field in dataclasses.fields(section):
        default = "required" if field.default is dataclasses.MISSING else _default(field.default)
        yield field.name, _kind(hints[field.name], []), default, texts[field.name]


def _kind(annotation: Any, metadata: list[Any]) -> str:
    if any(type(item).__name__ == "BeforeValidator" for item in metadata):
        return "text or list of texts"
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0], list(get_args(annotation)[1:]))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(member, []) for member in get_args(annotation) if member is not type(None))
    if origin is tuple:
        return "one or a list"
    kind = origin or annotation
    return _WORDS.get(kind, "mapping")


def _default(value: Any) -> str:
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, tuple):
        return "default " + ", ".join(f"`{item}`" for item in value)
    if isinstance(value, BaseModel):
        return ""
    return f"default `{str(value).lower() if isinstance(value, bool) else value}`"


def _attributes(section: type) -> dict[str, str]:
    """The descriptions under `Attributes:` in a class's docstring, by attribute."""
    _, _, block = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", block, flags=re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


if __name__ == "__main__":
    DOCUMENT.write_text(with_reference(DOCUMENT.read_text("utf-8")), "utf-8")
