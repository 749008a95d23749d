"""A page for each step, made from the docstring of its class: what it does, its options, cost, source, and limits.

A docstring is plain text with a section `Args:`, and with paragraphs of which one begins with `Not for:`, one holds
`Cost` and one `Source:`. What stands in none of these is the description.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import MISSING, Field, dataclass, fields
from itertools import pairwise
from typing import Any, Literal

from selection.errors import InvalidOption
from selection.registry import BUILT_IN, find_step
from selection.step import Selector, Step

Part = Literal["text", "limits", "cost", "source"]

# Where a paragraph, or a sentence of one, begins another part of the page. Memory belongs to the cost.
BEGINS: tuple[tuple[Part, str], ...] = (
    ("limits", r"(?=Not for: )"),
    ("cost", r"(?=Cost\b|Memory: )"),
    ("source", r"Source: "),
)
INTRODUCTION = """\
A page for each step, made from its docstring. The guides say which to take for what: [targets, scores,
quotas](../steps.md), [coverage](../steps-coverage.md), [what to label](../steps-active.md)."""
KINDS = {
    "filter": ("Filters", "A filter makes a smaller pool of a pool."),
    "scorer": ("Scorers", "A scorer gives each row a number; a recipe that ends in a scorer takes the highest."),
    "selector": ("Selectors", "A selector takes rows in order, each with a gain and a reason."),
}


@dataclass(frozen=True)
class Description:
    """A docstring in its parts.

    Attributes:
        summary: the first paragraph.
        parts: the paragraphs of each part, as plain text.
        options: option -> what it is.
    """

    summary: str
    parts: dict[Part, list[str]]
    options: dict[str, str]


def describe(step: type[Step]) -> Description:
    """The docstring of a step, taken apart.

    A cost or source that is that of every step of a module stands in the module's docstring, and an option that a base
    class has, in that of the class.
    """
    text, options = _without_options(inspect.cleandoc(step.__doc__ or ""))
    summary, *paragraphs = text.split("\n\n")
    parts: dict[Part, list[str]] = {"text": [], "limits": [], "cost": [], "source": []}
    for paragraph in paragraphs:
        for part, piece in _pieces(paragraph):
            parts[part].append(piece)
    shared = inspect.cleandoc(sys.modules[step.__module__].__doc__ or "").split("\n\n")
    for part, word in (("cost", "Cost"), ("source", "Source: ")):
        parts[part] = parts[part] or [text.removeprefix("Source: ") for text in shared if text.startswith(word)]
    for base in step.__mro__[1:]:
        options = _without_options(inspect.cleandoc(base.__doc__ or ""))[1] | options
    return Description(" ".join(summary.split()), parts, options)


def step_page(name: str, guide: str) -> str:
    """The page of a step, as Markdown.

    Args:
        guide: a link to where the guide describes the step.
    """
    step = find_step(name)
    description = describe(step)
    sections = [
        f"# {name}",
        f"*{' · '.join(_facts(step))}*",
        _markdown(description.summary),
        *_paragraphs(description.parts["text"]),
        "## Options",
        _options(step, description.options),
    ]
    for title, part in (("When not to use it", "limits"), ("Cost", "cost"), ("Source", "source")):
        if description.parts[part]:
            sections += [f"## {title}", *_paragraphs(description.parts[part])]
    sections += [f"## See also\n\n[{name} in the guide]({guide}) · [all steps](index.md)"]
    return "\n\n".join(sections) + "\n"


def index_page() -> str:
    """The list of all steps by kind."""
    sections = [
        "# Every step",
        INTRODUCTION,
    ]
    for kind, (title, text) in KINDS.items():
        names = [name for name in sorted(BUILT_IN) if find_step(name).kind == kind]
        lines = [f"- [`{name}`]({name}.md): {_markdown(describe(find_step(name)).summary)}" for name in names]
        sections += [f"## {title}", text, "\n".join(lines)]
    return "\n\n".join(sections) + "\n"


def _without_options(docstring: str) -> tuple[str, dict[str, str]]:
    """The docstring without its section `Args:`, and what that says of each option."""
    match = re.search(r"^Args:\n((?:    .*\n|\n)+?)(?=\S|\Z)", docstring + "\n", re.MULTILINE)
    if match is None:
        return docstring, {}
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", match[1], re.MULTILINE)
    rest = f"{docstring[: match.start()]}\n{docstring[match.end() :]}"
    return re.sub(r"\n{3,}", "\n\n", rest.strip()), {name: " ".join(text.split()) for name, text in entries}


def _pieces(paragraph: str) -> list[tuple[Part, str]]:
    """A paragraph, cut before each sentence that begins another part."""
    starts: list[tuple[int, int, Part]] = [
        (match.start(), match.end(), part)
        for part, pattern in BEGINS
        for match in re.finditer(rf"(?:^|(?<=\. )|(?<=\.\n)|(?<=\n)){pattern}", paragraph)
    ]
    cuts: list[tuple[int, int, Part]] = [(0, 0, "text"), *sorted(starts), (len(paragraph), len(paragraph), "text")]
    pieces = [(part, paragraph[end:stop].strip("\n")) for (_, end, part), (stop, *_) in pairwise(cuts)]
    return [(part, piece) for part, piece in pieces if piece.strip()]


def _facts(step: type[Step]) -> list[str]:
    """What can be said in a few words: kind, inputs, properties."""
    inputs = _declared(step, "needs")
    facts = [step.kind.capitalize()]
    if inputs:
        facts.append("needs " + ", ".join(sorted(kind.value for kind in inputs)))
    if _declared(step, "searches"):
        facts.append("searches the vector index if there is one")
    if issubclass(step, Selector) and _declared(step, "nested"):
        facts.append("a smaller budget gives the first rows of a larger one")
    return facts


def _declared(step: type[Step], name: str) -> Any:
    """A declaration of a step with its default options; None if it depends on an option that has no default."""
    value = getattr(step, name, None)
    if not isinstance(value, property):
        return value
    try:
        return getattr(step(), name)
    except (TypeError, InvalidOption):
        return None


def _options(step: type[Step], texts: dict[str, str]) -> str:
    known = list(fields(step))  # type: ignore[arg-type]
    if not known:
        return "None."
    return "\n".join(f"- `{field.name}` ({_default(field)}){_explained(texts.get(field.name))}" for field in known)


def _explained(text: str | None) -> str:
    return f": {_markdown(text)}" if text else ""


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        value = field.default
    elif field.default_factory is not MISSING:
        value = field.default_factory()
    else:
        return "must be given"
    return f"default `{value if isinstance(value, str) else json.dumps(value)}`"


def _paragraphs(texts: list[str]) -> list[str]:
    """Paragraphs as Markdown; one that is indented is a formula."""
    return [f"```text\n{inspect.cleandoc(text)}\n```" if text.startswith("    ") else _markdown(text) for text in texts]


def _markdown(text: str) -> str:
    """Plain text with code in backticks, so that nothing else of it is Markdown."""
    pieces = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(piece if piece.startswith("`") else _escaped(piece) for piece in pieces)


def _escaped(text: str) -> str:
    """Text of which no character is Markdown or HTML."""
    return re.sub(r"([\\*_\[\]>]|^-)", r"\\\1", text.replace("&", "&amp;")).replace("<", "&lt;")
