"""`sweep:` in a recipe: one block of the file stands for a recipe for each combination of its values.

The recipes are written out before anything else looks at the file, so that nothing else knows of sweeps: each is a
recipe of its own name. A mistake in one of them is shown where the user wrote it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.config.yaml_lines import KeyPath
from pipelines.messages import describe, listed, nearest

MAX_RECIPES = 100
"""Of one sweep: each has an asset, a selection and a part of every report."""
MAX_NAME = 64
KEY = "sweep"
_PART = re.compile("[a-z0-9_-]+")


@dataclass(frozen=True)
class Origin:
    """Where the file says what a sweep wrote out.

    Attributes:
        path: of the block.
        values: key -> the path of its value in the block.
    """

    path: KeyPath
    values: Mapping[str, KeyPath] = field(default_factory=dict)

    def written(self, below: KeyPath) -> KeyPath:
        """The path in the file of a path below the recipe."""
        if not below:
            return self.path
        return (*self.path, *self.values.get(str(below[0]), below[:1]), *below[1:])


@dataclass
class Sweeps:
    """What was written out.

    Attributes:
        members: swept recipe -> the names of its recipes.
        origins: path of what was written out -> where it comes from.
        mistakes: (path, message).
    """

    members: dict[str, tuple[str, ...]] = field(default_factory=dict)
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    mistakes: list[tuple[KeyPath, str]] = field(default_factory=list)

    def written(self, path: KeyPath) -> KeyPath:
        """The path in the file of a path in what was written out."""
        origin = self.origins.get(path[:2])
        return path if origin is None else origin.written(path[2:])


@dataclass(frozen=True)
class _Value:
    """A value of a key, its part of the name, and its path below the recipe."""

    key: str
    value: Any
    part: str
    path: KeyPath


def write_out(raw: dict[str, Any], keys: list[str]) -> Sweeps:
    """Replace each recipe that has a `sweep` by its recipes, and each export of such a recipe by an export of each.

    Args:
        raw: the whole file; `recipes` and `exports` are replaced.
        keys: what a recipe may hold.
    """
    sweeps = Sweeps()
    recipes, exports = raw.get("recipes"), raw.get("exports")
    if not isinstance(recipes, dict):
        return sweeps
    written: dict[str, Any] = {}
    for name, recipe in recipes.items():
        if isinstance(recipe, dict) and KEY in recipe:
            written |= _members(name, recipe, [key for key in keys if key != KEY], set(recipes) | set(written), sweeps)
        else:
            written[name] = recipe
    raw["recipes"] = written
    if isinstance(exports, dict) and sweeps.members:
        raw["exports"] = dict(_exports(exports, sweeps))
    return sweeps


def _members(name: str, recipe: Mapping[str, Any], keys: list[str], taken: set[str], sweeps: Sweeps) -> dict[str, Any]:
    path: KeyPath = ("recipes", name, KEY)
    before = len(sweeps.mistakes)
    values = list(_values(recipe, keys, path, sweeps.mistakes))
    count = math.prod(map(len, values))
    if len(sweeps.mistakes) == before and count > MAX_RECIPES:
        sweeps.mistakes.append((path, f"stands for {count:,} recipes; at most {MAX_RECIPES} are allowed"))
    if len(sweeps.mistakes) > before:
        return {}
    shared = {key: value for key, value in recipe.items() if key != KEY}
    members: dict[str, Any] = {}
    for combination in itertools.product(*values):
        member = "_".join([name, *(value.part for value in combination)])
        mistake = _name_mistake(member, taken | set(members))
        if mistake is not None:
            sweeps.mistakes.append((path, mistake))
            return {}
        members[member] = shared | {value.key: value.value for value in combination}
        sweeps.origins["recipes", member] = Origin(path[:2], {value.key: value.path for value in combination})
    sweeps.members[name] = tuple(members)
    return members


def _values(
    recipe: Mapping[str, Any], keys: list[str], path: KeyPath, mistakes: list[tuple[KeyPath, str]]
) -> Iterator[list[_Value]]:
    """The values of each key, in the order of the file."""
    sweep = recipe[KEY]
    if not isinstance(sweep, dict) or not sweep:
        example = "for example `{budget: [1000, 5000], seed: [0, 1, 2]}`"
        mistakes.append((path, f"must be a mapping of keys to their values, {example}; found {describe(sweep)}"))
        return
    for key, given in sweep.items():
        if key not in keys:
            mistakes.append(((*path, key), f"unknown key{nearest(key, keys)}; allowed: {listed(keys)}"))
        elif key in recipe:
            mistakes.append(((*path, key), f"is given in the recipe too; keep `{key}` there or under `{KEY}`"))
        elif not isinstance(given, list | dict) or not given:
            allowed = "must be a list of values, or a mapping of names to values"
            mistakes.append(((*path, key), f"{allowed}; found {describe(given)}"))
        else:
            yield list(_named(key, given, path, mistakes))


def _named(
    key: str, given: list[Any] | dict[str, Any], path: KeyPath, mistakes: list[tuple[KeyPath, str]]
) -> Iterator[_Value]:
    if isinstance(given, dict):
        for name, value in given.items():
            if not _PART.fullmatch(name):
                mistakes.append(((*path, key, name), f"{name!r} cannot be in a name: use a-z, 0-9, _ and -"))
            yield _Value(key, value, name, (KEY, key, name))
        return
    for place, value in enumerate(given):
        part = _part(key, value)
        if part is None:
            example = f"`{key}: {{short_name: value, other_name: value}}`"
            mistakes.append(
                ((*path, key, place), f"is no number and no word that can be in a name; name it: {example}")
            )
        else:
            yield _Value(key, value, part, (KEY, key, place))


def _part(key: str, value: Any) -> str | None:
    """A value's part of the name; None for a value that has to be given a name.

    >>> _part("budget", 1000), _part("min_overlap", 0.5), _part("steps", ["random"]), _part("steps", [{"top": {}}])
    ('budget1000', 'min_overlap0-5', 'steps-random', None)
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return key + re.sub("[^a-z0-9]+", "-", str(value))
    words = value if isinstance(value, list) and value else [value]
    if not all(isinstance(word, str | bool) for word in words):
        return None
    parts = [re.sub("[^a-z0-9_]+", "-", str(word).lower()).strip("-") for word in words]
    return "-".join([key, *parts]) if all(parts) else None


def _name_mistake(member: str, taken: set[str]) -> str | None:
    if len(member) > MAX_NAME:
        return f"would make a recipe called {member!r}; a name has at most {MAX_NAME} characters"
    twins = [name for name in taken if name.replace("-", "_") == member.replace("-", "_")]
    if twins:
        return (
            f"would make a recipe called {member!r}, and there is {twins[0]!r} already: give each value once, and where two "
            "are written alike name them, `key: {name: value}`"
        )
    return None


def _exports(exports: Mapping[str, Any], sweeps: Sweeps) -> Iterator[tuple[str, Any]]:
    """Each export of a swept recipe as an export of each of its recipes, in folders of their own."""
    for name, export in exports.items():
        recipe = export.get("recipe") if isinstance(export, dict) else None
        members = sweeps.members.get(recipe, ()) if isinstance(recipe, str) else ()
        if not members:
            yield name, export
        for member in members:
            suffix = member.removeprefix(f"{recipe}_")
            if f"{name}_{suffix}" in exports:
                message = f"exports each recipe of the sweep, one of them as `{name}_{suffix}`, and there is such an entry already"
                sweeps.mistakes.append((("exports", name, "recipe"), message))
            out = {"out": f"{export['out']}/{suffix}"} if isinstance(export.get("out"), str) else {}
            sweeps.origins["exports", f"{name}_{suffix}"] = Origin(("exports", name))
            yield f"{name}_{suffix}", {**export, "recipe": member, **out}
