"""The reference of `winnow.yaml` in docs/configuration.md, made from the classes that check the file.

`python -m pipelines.config.reference` writes it anew; a test fails while it is out of date.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from pipelines.config import schema
from pipelines.config.reader import section_of
from selection.constraints import Quota, TokenBudget
from selection.encoders import DEFAULT_KIND, KINDS, Checkpoint, ModelSpec

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"
BEGIN, END = "<!-- keys: written by python -m pipelines.config.reference -->", "<!-- end of keys -->"


def _of_kind(kind: str) -> str:
    return "encoders.<name>" if kind == DEFAULT_KIND else f"encoders.<name>, kind: {kind}"


SECTIONS: tuple[tuple[str, type], ...] = (
    ("", schema.Config),
    ("pool", schema.Pool),
    ("pool.files[]", schema.PoolFiles),
    ("pool.columns[]", schema.Keyed),
    ("pool.vectors[], targets.<name>.vectors[]", schema.KeyedVectors),
    *((_of_kind(name), kind.spec) for name, kind in KINDS.items()),
    ("encoders.<name>.checkpoints[]", Checkpoint),
    ("models.<name>", ModelSpec),
    ("targets.<name>", schema.TargetFiles),
    ("classifiers.<name>", schema.Classifier),
    ("classifiers.<name>.classes.<class>", schema.ClassExamples),
    ("recipes.<name>", schema.Recipe),
    ("recipes.<name>.budget", TokenBudget),
    ("recipes.<name>.quota", Quota),
    ("labeling.<name>", schema.Labeling),
    ("labeling.<name>.budget", schema.LabelBudget),
    ("labeling.<name>.stop", schema.Stop),
    ("decontamination", schema.Decontamination),
    ("decontamination.embedding", schema.EmbeddingRule),
    ("index", schema.Index),
    ("health", schema.Health),
    ("exports.<name>", schema.Export),
    ("schedule", schema.Schedule),
    ("notify", schema.Notify),
    ("trials", schema.Trials),
    ("engine", schema.Engine),
)

_WORDS = {
    str: "text",
    bool: "true or false",
    int: "whole number",
    float: "number",
    list: "list",
    Sequence: "list",
    schema.StepList: "list",
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
    entry = f"- `{key}` ({facts}): {text}"
    wrapped = textwrap.fill(entry, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return wrapped + "\n"


def _keys(section: type) -> Iterator[tuple[str, str, str, str]]:
    model = section if issubclass(section, BaseModel) else section_of(section)
    hints, texts = get_type_hints(section, include_extras=True), _attributes(section)
    for name, info in model.model_fields.items():
        if not info.exclude:
            default = "required" if info.is_required() else _default(info.get_default())
            yield name, _kind(hints[name]), default, texts[name]


def _kind(annotation: Any) -> str:
    if annotation == schema.Texts:
        return "text or list of texts"
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind(get_args(annotation)[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(member) for member in get_args(annotation) if member is not type(None))
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
    """The descriptions under `Attributes:` in the docstrings of a class and its bases, by attribute."""
    blocks = [inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2] for base in reversed(section.__mro__)]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", "\n".join(blocks), flags=re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in entries}


if __name__ == "__main__":
    DOCUMENT.write_text(with_reference(DOCUMENT.read_text("utf-8")), "utf-8")
