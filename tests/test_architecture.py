"""Imports run one way: pipelines -> storage and selection; storage -> selection.types; selection -> nothing of ours.

Inside a package, `ROOMS` says which room may import which. All imports count, also those inside functions.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("selection", "storage", "pipelines")
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]

FORBIDDEN = {
    "selection": {"storage", "pipelines", "dagster", "duckdb", "polars", "pyarrow", "faiss"},
    "storage": {"pipelines", "dagster"},
    "pipelines": set(),
}
ONLY_INSIDE_FUNCTIONS = {"torch", "sentence_transformers", "transformers", "sklearn", "faiss", "scipy", "ray"}
# A torch module is a class of torch's; only functions import this file, as the second test sees.
TORCH = {"selection/encoders/moments.py", "selection/encoders/pooling.py", "selection/encoders/projection.py"}
DAGSTER = "pipelines/orchestration/"
COMPILED = "selection/kernels/compiled"
NAMED = [*MODULES, *sorted((ROOT / "benchmarks").glob("*.py"))]
# A name is a noun that a reader can search for; these say nothing of what they hold.
EMPTY_NAMES = {"one", "found", "told", "here", "there"}

# Room -> the rooms of the same package that it may import besides itself. A room is a folder, or a module that stands
# apart from the others in its folder; the name of a folder stands for the modules directly in it.
BASE, COMMANDS = (
    "pipelines",
    {f"pipelines.{name}" for name in ("run", "plan", "projection", "diff", "reproduce", "explore", "why")},
)
STAGES = {
    BASE,
    "pipelines.config",
    "pipelines.classifiers",
    "pipelines.recipes",
    "pipelines.labeling",
    "pipelines.exports",
    "pipelines.exports.options",
    "pipelines.report",
    "pipelines.trials",
}
STEPS = {"selection", "selection.kernels", "selection.kernels.compiled"}
ROOMS: dict[str, set[str]] = {
    "selection": {"selection.kernels", "selection.kernels.device"},
    "selection.kernels": {"selection", "selection.kernels.compiled", "selection.kernels.device"},
    "selection.kernels.compiled": {"selection"},
    "selection.kernels.device": {"selection", "selection.kernels", "selection.kernels.compiled"},
    "selection.encoders": {"selection", "selection.kernels"},
    "selection.learning": {"selection"},
    "selection.scorers": STEPS | {"selection.learning"},
    "selection.selectors": STEPS | {"selection.scorers"},
    "selection.filters": STEPS | {"selection.scorers", "selection.selectors"},
    "storage": set(),
    "storage.files": {"storage"},
    "storage.pool": {"storage", "storage.files"},
    "storage.vectors": {"storage", "storage.files", "storage.pool"},
    "storage.labels": {"storage", "storage.files", "storage.pool", "storage.vectors"},
    "storage.catalog": {"storage", "storage.files", "storage.pool", "storage.vectors", "storage.labels"},
    "storage.upkeep": {
        "storage",
        "storage.files",
        "storage.pool",
        "storage.vectors",
        "storage.labels",
        "storage.catalog",
    },
    "pipelines": {"pipelines.config"},
    "pipelines.exports.options": {BASE},
    "pipelines.config": {BASE, "pipelines.exports.options"},
    "pipelines.classifiers": {BASE, "pipelines.config"},
    "pipelines.recipes": {BASE, "pipelines.config", "pipelines.classifiers"},
    "pipelines.labeling": {BASE, "pipelines.config", "pipelines.classifiers", "pipelines.recipes"},
    "pipelines.exports": {
        BASE,
        "pipelines.exports.options",
        "pipelines.config",
        "pipelines.classifiers",
        "pipelines.labeling",
        "pipelines.trials",
    },
    "pipelines.report": {BASE, "pipelines.config", "pipelines.recipes", "pipelines.labeling", "pipelines.trials"},
    "pipelines.compare": {BASE, "pipelines.config", "pipelines.recipes", "pipelines.report"},
    "pipelines.trials": {BASE, "pipelines.config", "pipelines.classifiers", "pipelines.recipes"},
    "pipelines.engine": {BASE},
    "pipelines.stages": STAGES | {"pipelines.engine"},
    **dict.fromkeys(COMMANDS, STAGES | {"pipelines.stages"}),
    "pipelines.upkeep": {
        BASE,
        "pipelines.config",
        "pipelines.recipes",
        "pipelines.exports",
        "pipelines.exports.options",
        "pipelines.report",
        "pipelines.stages",
        "pipelines.run",
    },
    "pipelines.demo": {BASE, "pipelines.run"},
    "pipelines.cli": (STAGES - {"pipelines.classifiers"})
    | COMMANDS
    | {"pipelines.stages", "pipelines.compare", "pipelines.demo", "pipelines.upkeep"},
    "pipelines.orchestration": {
        BASE,
        "pipelines.config",
        "pipelines.classifiers",
        "pipelines.recipes",
        "pipelines.report",
        "pipelines.stages",
        "pipelines.trials",
        "pipelines.run",
    },
    "pipelines.definitions": {"pipelines.config", "pipelines.orchestration"},
    "pipelines.__main__": {"pipelines.cli"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


NAMES = {module_name(path) for path in MODULES}


def room_of(module: str) -> str:
    while module not in ROOMS:
        module = module.rpartition(".")[0]
    return module


def modules_imported(path: Path) -> set[str]:
    """Modules of ours that a file imports, wherever in it."""
    modules = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in NAMES else node.module for name in names}
    return modules & NAMES


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def at_import_time(tree: ast.AST) -> Iterator[str]:
    """What is imported when the module is: everything outside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imported(ast.Module([node], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_import_time(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports__run_one_way(path: Path) -> None:
    name = path.relative_to(ROOT)
    package = name.parts[0]
    tree = tree_of(path)
    tops = {module.partition(".")[0] for module in imported(tree)}

    assert not tops & FORBIDDEN[package]
    if str(name) not in TORCH:
        assert not {module.partition(".")[0] for module in at_import_time(tree)} & ONLY_INSIDE_FUNCTIONS
    if package == "storage":
        assert {module for module in imported(tree) if module.startswith("selection")} <= {"selection.types"}
    if "dagster" in tops:
        assert str(name).startswith(DAGSTER)


@pytest.mark.parametrize("package", PACKAGES)
def test_rooms__import_only_what_they_may(package: str) -> None:
    modules = [path for path in MODULES if path.relative_to(ROOT).parts[0] == package]
    assert {module_name(path.parent) for path in modules} <= set(ROOMS)
    refused = [
        f"{module_name(path)} imports {module}"
        for path in modules
        for module in sorted(modules_imported(path))
        if module.partition(".")[0] == package
        and room_of(module) not in {room_of(module_name(path)), *ROOMS[room_of(module_name(path))]}
    ]
    assert refused == []


def test_rooms__are_there() -> None:
    assert [room for room in ROOMS if room not in NAMES] == []


def test_modules__import_in_no_circle() -> None:
    # Raises CycleError, which lists the circle.
    order = TopologicalSorter({module_name(path): modules_imported(path) for path in MODULES}).static_order()
    assert len(list(order)) >= len(MODULES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_numba__is_imported_where_its_cache_watches_the_sources(path: Path) -> None:
    tops = {module.partition(".")[0] for module in imported(tree_of(path))}
    assert path.parent == ROOT / COMPILED or not tops & {"numba", "llvmlite"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("selection", {"torch", "sklearn", "numba", "scipy"}),
        ("pipelines.cli.main", {"torch", "sklearn", "numba", "numpy", "dagster", "duckdb", "polars", "pyarrow"}),
        ("pipelines.config.locate", {"scipy", "duckdb", "polars", "pipelines.config.schema"}),
    ],
)
def test_import__leaves_heavy_packages_alone(module: str, heavy: set[str]) -> None:
    process = subprocess.run(
        [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert not heavy & set(process.stdout.split())


@pytest.mark.parametrize("path", NAMED, ids=lambda path: str(path.relative_to(ROOT)))
def test_names__say_what_they_hold(path: Path) -> None:
    nodes = list(ast.walk(tree_of(path)))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    names |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert not names & EMPTY_NAMES
