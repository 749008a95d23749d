"""The demo's pool: the documented functions and classes of this Python installation.

Prompt: qualified name, signature and docstring; response: the source code without the docstring. Everything is read
from source files with `ast`; nothing is imported and nothing runs. The functions of a few standard-library modules are
the targets and are held out of the pool. Other modules on the same subjects count as *related*, so that a reader sees
whether a recipe finds them.

Licences: winnow ships none of this text, and none leaves the machine. The text is read from installed packages, under
their own licences, and written to a folder of the user's.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import json
import sysconfig
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.errors import PipelineError
from storage.store import write_durably

MAX_CHARACTERS = 6000
"""Longer prompts and responses are left out rather than cut: a row stays a whole function."""

_MIN_DOCSTRING = 30  # a shorter docstring only repeats the function's name
_MAX_FILE_BYTES = 400_000  # a larger file is mostly generated
_ROWS_PER_FILE = 5  # in each round over all packages, so that a small pool is varied
_RELATED_SHARE = 1 / 8  # of the pool: a random draw hits some, and there are more than a demo's budget

_SKIPPED = frozenset(
    {"__pycache__", "test", "tests", "testing", "_vendor", "_vendored", "vendor", "vendored", "third_party"}
    | {"conftest", "idlelib", "lib2to3", "turtledemo", "ensurepip"}
)


@dataclass(frozen=True)
class Subject:
    """A set of targets and its related modules, by module names; a package stands for all of its modules.

    Attributes:
        targets: modules held out of the pool.
        related: modules of the pool on the same subject. An installation may lack some.
    """

    targets: tuple[str, ...]
    related: tuple[str, ...]


SUBJECTS = {
    "statistics": Subject(("statistics",), ("random", "fractions", "numbers", "_pydecimal", "scipy.stats")),
    "dates": Subject(("calendar", "datetime", "_pydatetime"), ("dateutil", "pytz", "zoneinfo", "_strptime")),
}


@dataclass(frozen=True)
class Row:
    """A documented function or class."""

    id: str
    prompt: str
    response: str
    source: str
    module: str


@dataclass(frozen=True)
class HarvestReport:
    """The files that a harvest wrote.

    Attributes:
        pool: the candidates' file.
        targets: target set -> its file.
        rows: candidates; fewer than asked for only if the installation has no more.
        sources: how many packages and standard-library modules they come from.
        related: target set -> its related modules.
        related_rows: target set -> number of candidates from its related modules.
        seconds: time taken.
    """

    pool: Path
    targets: dict[str, Path]
    rows: int
    sources: int
    related: dict[str, tuple[str, ...]]
    related_rows: dict[str, int]
    seconds: float

    @property
    def summary(self) -> str:
        """A sentence for the user."""
        return (
            f"harvested {self.rows:,} documented functions and classes of {self.sources} modules and packages of this Python "
            f"in {self.seconds:.1f} s; {sum(self.related_rows.values()):,} of them are related to the targets ("
            f"{', '.join(self.targets)})"
        )


def harvest(rows: int, folder: Path) -> HarvestReport:
    """Write `pool.jsonl`, `targets/<set>.jsonl` and `related.json` into `folder`.

    The same installation gives the same files: the choice follows a hash of names, not the order of the disk.

    Raises:
        PipelineError: the installation has no standard library in source form.

    Cost: about 3 s for 1,500 rows, mostly parsing; files are parsed only until there are enough rows.
    """
    started = time.monotonic()
    modules = dict(_modules())
    targets = {name: _all_rows(modules, subject.targets) for name, subject in SUBJECTS.items()}
    empty = [name for name, target_rows in targets.items() if not target_rows]
    if empty:
        raise PipelineError(
            f"no source code of {', '.join(SUBJECTS[empty[0]].targets)} in {sysconfig.get_path('stdlib')}: the demo's pool "
            "comes from a Python installation with its standard library as .py files; use your own file with --pool"
        )
    pool = _pool(modules, rows, held_out={row.response for row in itertools.chain(*targets.values())})
    _write(folder / "pool.jsonl", pool)
    for name, target_rows in targets.items():
        _write(folder / "targets" / f"{name}.jsonl", target_rows)
    related = {name: subject.related for name, subject in SUBJECTS.items()}
    write_durably(folder / "related.json", json.dumps(related, indent=1) + "\n")
    return HarvestReport(
        pool=folder / "pool.jsonl",
        targets={name: folder / "targets" / f"{name}.jsonl" for name in targets},
        rows=len(pool),
        sources=len({row.source for row in pool}),
        related=related,
        related_rows={name: sum(is_within(row.module, names) for row in pool) for name, names in related.items()},
        seconds=time.monotonic() - started,
    )


def is_within(module: str, names: Iterable[str]) -> bool:
    """Whether a module has one of the names, or belongs to a package that has.

    >>> is_within("scipy.stats._qmc", ["scipy.stats"]), is_within("randomly", ["random"])
    (True, False)
    """
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _modules() -> Iterator[tuple[str, Path]]:
    """The name and source file of every module of the standard library and the installed packages."""
    seen: set[Path] = set()
    for key in ("stdlib", "purelib", "platlib"):
        root = Path(sysconfig.get_path(key)).resolve()
        if root not in seen:
            seen.add(root)
            yield from _below(root, "")


def _below(folder: Path, package: str) -> Iterator[tuple[str, Path]]:
    """The modules in a folder and its packages, in the order of their names."""
    for entry in sorted(folder.iterdir()):
        name, dot = entry.name.removesuffix(".py"), "." if package else ""
        if entry.name.endswith(".py") and (name == "__init__" or name.isidentifier()):
            if name == "__init__":
                yield package, entry
            elif not name.startswith(("test_", "__editable__")) and name not in _SKIPPED:
                yield f"{package}{dot}{name}", entry
        elif entry.name.isidentifier() and entry.name not in _SKIPPED and entry.is_dir():
            yield from _below(entry, f"{package}{dot}{entry.name}")


def _pool(modules: dict[str, Path], count: int, held_out: set[str]) -> list[Row]:
    """`count` rows: a fixed share from related modules, evenly by subject; the rest evenly over all other packages."""
    target_names = [name for subject in SUBJECTS.values() for name in subject.targets]
    packages: dict[str | None, dict[str, list[str]]] = {name: {} for name in (*SUBJECTS, None)}  # None: unrelated
    for module in sorted(modules, key=_order):
        if not is_within(module, target_names):
            related_to = (name for name, subject in SUBJECTS.items() if is_within(module, subject.related))
            packages[next(related_to, None)].setdefault(module.partition(".")[0], []).append(module)
    taken: dict[str, Row] = {}
    for position, name in enumerate(SUBJECTS):
        # Cumulative, so that rounding loses no row.
        wanted = round(count * _RELATED_SHARE * (position + 1) / len(SUBJECTS))
        _fill(taken, wanted, modules, packages[name], held_out)
    _fill(taken, count, modules, packages[None], held_out)
    return sorted(taken.values(), key=lambda row: row.id)


def _fill(
    taken: dict[str, Row], wanted: int, modules: dict[str, Path], groups: dict[str, list[str]], held_out: set[str]
) -> None:
    """Take a few rows of one file of each group, round after round, until there are `wanted` in all."""
    streams = [_few_at_a_time(groups[name], modules) for name in sorted(groups, key=_order)]
    for batches in itertools.zip_longest(*streams, fillvalue=()):
        for row in itertools.chain(*batches):
            if len(taken) < wanted and row.response not in held_out:
                taken.setdefault(row.id, row)
        if len(taken) == wanted:
            return


def _few_at_a_time(names: Iterable[str], modules: dict[str, Path]) -> Iterator[Sequence[Row]]:
    """The rows of some modules, a few of one file at a time; an empty one takes its turn too."""
    for name in names:
        rows = sorted(_rows(name, modules[name]), key=lambda row: _order(row.id))
        for start in range(0, max(len(rows), 1), _ROWS_PER_FILE):
            yield rows[start : start + _ROWS_PER_FILE]


def _all_rows(modules: dict[str, Path], names: Iterable[str]) -> list[Row]:
    """Every row of the named modules, by id."""
    rows = [row for module in sorted(modules) if is_within(module, names) for row in _rows(module, modules[module])]
    return sorted({row.id: row for row in rows}.values(), key=lambda row: row.id)


def _rows(module: str, path: Path) -> Iterator[Row]:
    """The documented, public functions, methods and classes of a file; none if this Python cannot parse it."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        return
    try:
        text = path.read_text("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in other people's code
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return  # a template, another encoding, another version's syntax
    lines = text.split("\n")
    for node, name in _definitions(tree, ""):
        docstring = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
        response = _source(node, lines)
        prompt = f"{_signature(node, f'{module}.{name}')}\n\n{docstring}"
        if len(docstring) >= _MIN_DOCSTRING and response and max(len(prompt), len(response)) <= MAX_CHARACTERS:
            yield Row(f"{module}.{name}", prompt, response, module.partition(".")[0], module)


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _definitions(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[tuple[_Definition, str]]:
    """Public functions and classes with their qualified names."""
    for node in parent.body:
        if isinstance(node, _Definition) and not node.name.startswith("_"):
            yield node, prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, f"{prefix}{node.name}.")


def _signature(node: _Definition, name: str) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        return f"class {name}({bases})" if bases else f"class {name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{name}({ast.unparse(node.args)}){returns}"


def _source(node: _Definition, lines: list[str]) -> str:
    """The source without docstring and indentation; empty if the body is the docstring alone."""
    if len(node.body) < 2:
        return ""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    docstring = node.body[0]
    kept = lines[first - 1 : docstring.lineno - 1] + lines[docstring.end_lineno : node.end_lineno]
    indent = node.col_offset
    return "\n".join(line[indent:] if not line[:indent].strip() else line for line in kept).strip("\n")


def _order(name: str) -> bytes:
    """A key that sorts names in a fixed random order."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def _write(path: Path, rows: list[Row]) -> None:
    write_durably(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))
