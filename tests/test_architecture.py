"""Imports run one way: pipelines -> storage and selection; storage -> selection.types; selection -> nothing of ours."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
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
TORCH = {"selection/encoders/pooling.py"}
DAGSTER = "pipelines/orchestration/"


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


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
    tree = ast.parse(path.read_text("utf-8"))
    tops = {module.partition(".")[0] for module in imported(tree)}

    assert not tops & FORBIDDEN[package]
    if str(name) not in TORCH:
        assert not {module.partition(".")[0] for module in at_import_time(tree)} & ONLY_INSIDE_FUNCTIONS
    if package == "storage":
        assert {module for module in imported(tree) if module.startswith("selection")} <= {"selection.types"}
    if "dagster" in tops:
        assert str(name).startswith(DAGSTER)


@pytest.mark.parametrize("path", sorted((ROOT / "selection").rglob("*.py")), ids=lambda path: path.name)
def test_compiled_loops__are_cached_by_all_sources(path: Path) -> None:
    assert path.name == "jit.py" or not re.search(r"(?<!compiled\.)\bn?jit\b", path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("selection", {"torch", "sklearn", "numba", "scipy"}),
        ("pipelines.cli.main", {"torch", "sklearn", "numba", "dagster", "duckdb", "polars", "pyarrow"}),
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
