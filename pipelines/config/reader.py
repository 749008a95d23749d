"""One reading of one `winnow.yaml`: the sections as they stand, and every problem found in them with its place.

What the sections mean stands in `pipelines.config.schema`, what they say about each other in `pipelines.config.load`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from pipelines.config.schema import Config, Section, StepList
from pipelines.config.sweep import Sweeps
from pipelines.config.yaml_lines import KeyPath, MarkedYaml, dotted
from pipelines.errors import ConfigError, Problem
from pipelines.messages import describe, expected, listed, nearest, no_match
from selection.errors import InvalidOption, SelectionError
from selection.registry import build_step, parse_steps
from selection.step import Step
from storage.errors import BadInput, NothingMatches
from storage.files.blocks import is_encoding
from storage.files.remote import is_url
from storage.files.user_files import check_is_file, expand
from storage.pool.condition import changeable, not_of_the_row

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NAME_RULE = "a name is 1 to 64 of a-z, 0-9, _ and -, and starts with a letter or digit"
# Keys that many sections lack -> where they have a place.
_ELSEWHERE = {
    "postprocess": "only encoders of this machine that embed a text have `postprocess`, not gradients, imported vectors or a server's"
}

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T")


class ConfigReader:
    """Collects problems on the way, raises them together."""

    def __init__(self, file: Path, marked: MarkedYaml, overrides: Mapping[str, Any]) -> None:
        self.file = file
        self.root = file.parent
        self.marked = marked
        self.overridden: set[KeyPath] = set()
        self.sweeps = Sweeps()
        self.problems = [Problem(str(file), line, dotted(path), message) for line, path, message in marked.mistakes]
        self._stop_if_wrong()
        if not isinstance(marked.value, dict):
            self.add((), f"must be a mapping of {listed(keys_of(Config))}, found {describe(marked.value)}")
            self._stop_if_wrong()
        self.raw: dict[str, Any] = marked.value
        for dotted_path, value in overrides.items():
            self._override(dotted_path, value)
        self._stop_if_wrong()

    def add(self, path: KeyPath, message: str) -> None:
        """Note a problem at a path, once."""
        path = self.sweeps.written(path)
        overridden = any(path[: len(o)] == o for o in self.overridden)
        file, line = ("override", 0) if overridden else (str(self.file), self.marked.line_of(path))
        problem = Problem(file, line, dotted(path), message)
        if problem not in self.problems:
            self.problems.append(problem)

    # ---- checks

    def _steps(self, raw: Mapping[str, Any], path: KeyPath, key: str) -> StepList | None:
        """The steps under a key; None where there are none, or with their problems noted, at the step if it can be."""
        written = raw.get(key)
        path = (*path, key)
        if key not in raw:
            return None
        if not isinstance(written, list) or not written:
            kind = "too_short" if written == [] else "list_type"
            self.add(path, expected(kind, {}, "", self._found_at(path, written)))
            return None
        steps = [self._step(step, (*path, i)) for i, step in enumerate(written)]
        for i, step in enumerate(steps):
            for expression in sorted(step.expressions if step is not None else ()):
                self._check_sql(expression, (*path, i), "SQL expression", "`nll_answer / nll_alone`")
        try:
            right = [step for step in steps if step is not None]
            return StepList(written, parse_steps(right)) if len(right) == len(steps) else None
        except SelectionError as error:
            self.add(path, str(error))
            return None

    def _step(self, written: Any, path: KeyPath) -> Step | None:
        try:
            return build_step(written)
        except SelectionError as error:
            if isinstance(error, InvalidOption) and isinstance(written, dict):
                path = self._option_path((*path, *written), error)
            self.add(path, str(error))
            return None

    def _options(self, kind: type[T], raw: Any, path: KeyPath, **stricter: Any) -> T | None:
        """An object whose fields are options, or None with its problems noted at the options.

        Args:
            stricter: field -> its type, where the file may hold less than the class takes.
        """
        section = section_of(kind, **stricter)
        if self._validated(section, raw, path) is None:
            return None
        try:
            return kind(**{key: value for key, value in raw.items() if key in keys_of(section)})
        except InvalidOption as error:
            self.add(self._option_path(path, error), error.reason)
            return None

    def _option_path(self, path: KeyPath, error: InvalidOption) -> KeyPath:
        """The path of the option that is at fault, where the file has it."""
        return (*path, error.option) if error.option is not None and self._is_written((*path, error.option)) else path

    def _known(self, name: str, known: list[str], what: str, path: KeyPath) -> None:
        if name not in known:
            have = f"there are: {listed(known)}" if known else f"there is no {what} in this file"
            self.add(path, f"no {what} is called {name!r}{nearest(name, known)}; {have}")

    def _check_where(self, where: str, path: KeyPath) -> None:
        self._check_sql(where, path, "SQL condition", "`source = 'wiki' and length(prompt) < 4000`")

    def _check_sql(self, text: str, path: KeyPath, kind: str, example: str) -> None:
        """Whether it parses as one SQL expression on the row; its columns are known only once the pool is."""
        import duckdb

        try:
            duckdb.SQLExpression(text)
            suspect = not_of_the_row(text)
        except duckdb.Error as error:
            message = str(error).splitlines()[0].partition("Error: ")[2]
            self.add(path, f"is not a {kind}: {message}; for example {example}")
        else:
            if suspect is not None:
                self.add(path, changeable(suspect))

    def _check_encoding(self, encoding: str, path: KeyPath) -> None:
        if not is_encoding(encoding):
            self.add(path, f"no text encoding is called {encoding!r}; for example utf-8, latin-1 or utf-16")

    def _matching(self, patterns: tuple[str, ...], path: KeyPath) -> tuple[str, ...]:
        """The patterns made absolute; each must name something to read, unless it is a URL."""
        if not patterns:
            self.add(path, "names no files")
        resolved = tuple(map(self._pattern, patterns))
        for i, (pattern, absolute) in enumerate(zip(patterns, resolved, strict=True)):
            try:
                if not is_url(absolute):
                    expand([absolute], self.root)
            except NothingMatches:
                self.add(self._item(path, i), no_match(pattern, absolute))
            except BadInput as error:
                self.add(self._item(path, i), str(error))
        return resolved

    def _pattern(self, pattern: str) -> str:
        """A pattern made absolute: only what the user wrote is a pattern, the project's folder is a name."""
        absolute = self._absolute(pattern)
        root = os.path.join(self.root, "")  # noqa: PTH118 - with the separator at its end
        return escape(root) + absolute.removeprefix(root) if absolute.startswith(root) else absolute

    def _existing(self, file: str, path: KeyPath) -> str:
        """A path made absolute; the file must be there, unless it is a URL."""
        absolute = self._absolute(file)
        try:
            if not is_url(absolute):
                check_is_file(absolute)
                if not Path(absolute).is_file():
                    self.add(path, no_match(file, absolute))
        except BadInput as error:
            self.add(path, str(error))
        return absolute

    def _unknown_keys(self, raw: Mapping[str, Any], allowed: list[str], path: KeyPath) -> None:
        for key in raw:
            if key not in allowed:
                message = f"unknown key{nearest(key, allowed)}; allowed: {listed(allowed)}"
                self.add((*path, key), f"{message}; {_ELSEWHERE[key]}" if key in _ELSEWHERE else message)

    # ---- help

    def _validated(self, model: type[S], raw: Any, path: KeyPath) -> S | None:
        """A section, or None with its problems noted."""
        if not isinstance(raw, dict):
            self.add(path, f"must be a mapping of {listed(keys_of(model))}, found {self._found_at(path, raw)}")
            return None
        self._unknown_keys(raw, keys_of(model), path)
        try:
            return model.model_validate({key: value for key, value in raw.items() if key in keys_of(model)})
        except ValidationError as errors:
            for error in errors.errors():
                # The union's and validator's names in a pydantic path are no keys of the file.
                loc: KeyPath = path
                for part in error["loc"]:
                    if self._is_written((*loc, part)) or (error["type"] == "missing" and part in keys_of(model)):
                        loc = (*loc, part)
                value = self._found_at(loc, error["input"])
                self.add(loc, expected(error["type"], error.get("ctx", {}), error["msg"], value))
            return None

    def _mapping(self, key: str) -> dict[str, Any]:
        """A mapping of names; wrong names are noted."""
        raw = self.raw.get(key)
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self.add((key,), f"must be a mapping of names, found {self._found_at((key,), raw)}")
            return {}
        seen: dict[str, str] = {}
        for name in raw:
            if not is_name(name):
                self.add((key, name), f"{name!r} cannot be a name: {NAME_RULE}")
            twin = seen.setdefault(name.replace("-", "_"), name)
            if twin != name:
                self.add((key, name), f"{name!r} and {twin!r} differ only in `-` and `_`; choose another name")
        return raw

    def _override(self, dotted_path: str, value: Any) -> None:
        *parents, last = dotted_path.split(".")
        at: Any = self.raw
        for i, part in enumerate(parents):
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                self.overridden.add(tuple(parents[: i + 1]))
                self.add(tuple(parents[: i + 1]), f"is {describe(at)}, so `{dotted_path}` cannot be set")
                return
        at[last] = value
        self.overridden.add((*parents, last))

    def _absolute(self, path: str) -> str:
        if is_url(path):
            return path
        # Of `~name` the home is unknown where there is no such user: then it is the name of a folder.
        return os.path.normpath(self.root / os.path.expanduser(path))  # noqa: PTH111 - pathlib's raises

    def _on_disk(self, path: str, key: KeyPath, what: str) -> None:
        if is_url(path):
            self.add(key, f"must be a folder of this machine, which a URL is not: {what}; found {path!r}")

    def _model(self, model: str) -> str:
        """A model's folder made absolute; a hub name is left as it is."""
        if model.startswith((".", "/", "~")) or (self.root / model).is_dir():
            return self._absolute(model)
        return model

    def _found_at(self, path: KeyPath, value: Any) -> str:
        path = self.sweeps.written(path)
        written = self.marked.scalars.get(path)
        overridden = any(path[: len(o)] == o for o in self.overridden)
        return describe(value, None if overridden else written)

    def _item(self, path: KeyPath, position: int) -> KeyPath:
        """The path of an item; of the whole, where one text stands instead of a list."""
        return (*path, position) if self._is_written((*path, position)) else path

    def _is_written(self, path: KeyPath) -> bool:
        return self.sweeps.written(path) in self.marked.lines

    def _stop_if_wrong(self) -> None:
        if self.problems:
            raise ConfigError(sorted(self.problems, key=lambda problem: problem.line))


def is_name(text: str) -> bool:
    """Whether a text can be the name of a recipe, an encoder, a target set, ..."""
    return _NAME.fullmatch(text) is not None


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that a section may hold."""
    return [name for name, info in model.model_fields.items() if not info.exclude]


def section_of(kind: type[Any], **stricter: Any) -> type[Section]:
    """A section with the fields of a dataclass. What is inside a list or mapping is for the class to check."""
    hints = {name: _outer(hint) for name, hint in get_type_hints(kind).items()} | stricter
    shape: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is dataclasses.MISSING else field.default)
        for field in dataclasses.fields(kind)
    }
    return create_model(kind.__name__, __base__=Section, **shape)


def _outer(hint: Any) -> Any:
    """A type hint without what it says of the values in a list or mapping.

    >>> _outer(Sequence[float]), _outer(Mapping[str, float] | None), _outer(float | Mapping[str, float])
    (list[typing.Any], dict[str, typing.Any] | None, typing.Any)
    """
    origin, parts = get_origin(hint), [part for part in get_args(hint) if part is not NoneType]
    if origin in (Sequence, list, tuple):
        return list[Any]
    if origin in (Mapping, dict):
        return dict[str, Any]
    if origin in (Union, UnionType):
        return _outer(parts[0]) | None if len(parts) == 1 else Any
    return hint
