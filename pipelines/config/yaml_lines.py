"""YAML with the line of every key; repeated keys, keys that are not text and tabs are mistakes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from storage.errors import BadInput
from storage.files.user_files import check_is_file

MAX_CHARACTERS = 1_000_000
"""Of a file. With its aliases written out it may have four times as many, values counted as one more each."""

_MAX_BYTES = 4 * MAX_CHARACTERS  # a character has at most four
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

KeyPath = tuple[str | int, ...]
"""The path of a value: keys of mappings and positions in lists, from the top."""


@dataclass
class MarkedYaml:
    """A parsed file.

    Attributes:
        value: the document; None if there are `mistakes` that stop the reading.
        lines: path -> 1-based line of its key (in a list, of the item).
        scalars: path -> the text as it is written, before YAML gave it a type.
        mistakes: (line, path, message) of everything that makes the file unusable or ambiguous.
    """

    value: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    scalars: dict[KeyPath, str] = field(default_factory=dict)
    mistakes: list[tuple[int, KeyPath, str]] = field(default_factory=list)

    def line_of(self, path: KeyPath) -> int:
        """The line of a path, or of its nearest ancestor that has one; 0 if none has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def read_file(file: Path) -> bytes:
    """The bytes of a configuration, no more than one can have.

    Raises:
        BadInput: it is no file but a pipe or a device, or is too long.
    """
    check_is_file(file)
    with file.open("rb") as stream:
        data = stream.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise BadInput(f"{file} is longer than {_MAX_BYTES:,} bytes, which no configuration is")
    return data


def parse(text: str) -> MarkedYaml:
    r"""Parse one YAML document; mistakes are collected, not raised.

    >>> parse("a:\n  b: 1\n  b: 2\n").mistakes
    [(3, ('a', 'b'), 'is given twice (first in line 2); keep one')]
    """
    marked = MarkedYaml()
    try:
        loader, node = composed(text)
        if node is None:
            marked.mistakes.append((0, (), "is empty"))
            return marked
        _walk(node, (), marked, [])
        if not marked.mistakes:
            marked.value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        marked.mistakes.append((mark.line + 1 if mark else 0, (), _syntax_message(error, text)))
    except Unusable as error:
        marked.mistakes.append((error.line, (), str(error)))
    except RecursionError:
        marked.mistakes.append((0, (), "is nested too deeply to be read, or merges a mapping into itself"))
    except yaml.YAMLError as error:
        marked.mistakes.append((0, (), f"is not YAML text: {' '.join(str(error).split())}"))
    except ValueError as error:  # a scalar like 2024-13-45, which YAML takes for a date
        marked.mistakes.append((0, (), f"holds a value that YAML cannot read ({error}); put it in quotes"))
    return marked


class Unusable(ValueError):
    """A file that can be no configuration; `line` is where, 0 for the file as a whole."""

    def __init__(self, line: int, message: str) -> None:
        self.line = line
        super().__init__(message)


def composed(text: str) -> tuple[yaml.SafeLoader, yaml.Node | None]:
    """A loader and the document of a text as nodes, before values are built from them; None for an empty one.

    Raises:
        Unusable: the text is too long, or would be with its aliases written out: a few lines can stand for billions of
            values; or a value holds what is no text.
    """
    if len(text) > MAX_CHARACTERS:
        raise Unusable(0, f"is longer than {MAX_CHARACTERS:,} characters, which no configuration is")
    # A SafeLoader: no tag can build a Python object.
    loader = yaml.SafeLoader(text)
    node = loader.get_single_node()
    if node is not None:
        _written_out(node, {})
    return loader, node


def _written_out(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Characters and values of a node, with the aliases below it written out; `sizes` holds those that are known."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 0  # while it is measured: a node below itself is found later
    if isinstance(node, yaml.ScalarNode):
        size = 1 + len(node.value)
        if _NO_TEXT.search(node.value):
            message = f"{node.value[:60]!r} holds a NUL character or half of a surrogate pair, which is no text"
            raise Unusable(node.start_mark.line + 1, message)
    else:
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        size = 1 + sum(_written_out(part, sizes) for part in below)
    if size > 4 * MAX_CHARACTERS:
        message = f"stands for more than {4 * MAX_CHARACTERS:,} characters once its aliases (`*name`) are written out"
        raise Unusable(node.start_mark.line + 1, message)
    sizes[id(node)] = size
    return size


def dotted(path: KeyPath) -> str:
    """A path as text.

    >>> dotted(("recipes", "math", "steps", 1))
    'recipes.math.steps[1]'
    """
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _walk(node: yaml.Node, path: KeyPath, marked: MarkedYaml, parents: list[yaml.Node]) -> None:
    """Fill in the lines and scalars of a node and of all below it."""
    if any(node is parent for parent in parents):
        marked.mistakes.append((node.start_mark.line + 1, path, "refers to itself through an alias"))
        return
    marked.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        marked.scalars[path] = node.value
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, (*path, i), marked, [*parents, node])
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue  # the mapping that `<<` merges in is checked at its anchor
            if key.tag != "tag:yaml.org,2002:str":
                written = f"`{key.value}`" if isinstance(key, yaml.ScalarNode) else "this key"
                marked.mistakes.append((line, path, f"{written} is not text to YAML; put the key in quotes"))
                continue
            below = (*path, key.value)
            if key.value in seen:
                message = f"is given twice (first in line {seen[key.value]}); keep one"
                marked.mistakes.append((line, below, message))
                continue
            seen[key.value] = line
            marked.lines[below] = line
            _walk(value, below, marked, [*parents, node])


def _syntax_message(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    if mark is not None:
        line = (text.splitlines() or [""])[min(mark.line, len(text.splitlines()) - 1)]
        if "\t" in line[: mark.column + 1] or "'\\t'" in (error.problem or ""):
            return "has a tab where YAML needs spaces; indent with spaces"
    if error.problem and "but found another document" in error.problem:
        return "has a second document (`---`); keep one"
    where = f", column {mark.column + 1}" if mark is not None else ""
    return f"is not valid YAML{where}: {error.problem or error.context}"
