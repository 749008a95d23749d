"""The wheel: it holds the three packages, and its command works where there is no checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

from tests.conftest import row, write_rows
from tests.end_to_end.dagster_client import serving

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PACKAGES = ("pipelines", "selection", "storage")


@pytest.fixture(scope="module")
def winnow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel built here, in an environment that sees our dependencies but not this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, sources / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    offline = ["--no-deps", "--no-index"]
    subprocess.run([*pip, "wheel", *offline, "--no-build-isolation", "-w", folder, sources], check=True)
    (wheel,) = folder.glob("*.whl")

    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", *offline, wheel], env=environment(), check=True)
    # A path in a .pth file is searched, but .pth files there, such as the one of an editable install, are not read.
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    return folder / "env" / "bin" / "winnow"


def environment() -> dict[str, str]:
    """The variables of this process without those that lead back to the checkout or to a project."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WINNOW_CONFIG")}


def run(program: Path, *arguments: str) -> str:
    folder = program.parents[2]
    command = [program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment(), check=True).stdout


@pytest.mark.slow
def test_wheel__the_command_works_outside_of_the_checkout(winnow: Path) -> None:
    assert run(winnow, "--version") == f"winnow {PROJECT['version']}\n"
    assert PROJECT["description"] in " ".join(run(winnow, "--help").split())
    (site,) = winnow.parents[1].glob("lib/python*/site-packages")
    for package in PACKAGES:
        sources = {path.relative_to(ROOT) for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".typed")}
        assert {path for path in sources if not (site / path).exists()} == set()
    assert (site / f"winnow_pool-{PROJECT['version']}.dist-info" / "licenses" / "LICENSE").is_file()


@pytest.mark.slow
def test_wheel__every_module_can_be_imported(winnow: Path) -> None:
    program = (
        "import importlib, pkgutil, pipelines, selection, storage\n"
        "for package in (pipelines, selection, storage):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if module.name.rpartition('.')[2] not in ('__main__', 'definitions'):\n"
        "            importlib.import_module(module.name)\n"
        "print(pipelines.__file__)\n"
    )
    python = winnow.with_name("python")
    assert Path(run(python, "-c", program).strip()).is_relative_to(winnow.parents[1].resolve())


@pytest.mark.slow
def test_wheel__the_ui_serves_a_project(winnow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    write_rows(tmp_path / "pool.jsonl", [row(number, "fox") for number in range(9)])
    recipes = "pool: {files: pool.jsonl}\nrecipes: {any: {steps: [random], budget: 3}}\n"
    (tmp_path / "winnow.yaml").write_text(recipes, "utf-8")
    with serving(tmp_path, timeout_s=300, command=(str(winnow),)) as dagster:
        assert dagster.asset_keys() == ["catalog", "pool", "report", "selection/any"]
    workspace = yaml.safe_load((tmp_path / ".winnow" / "dagster" / "workspace.yaml").read_text("utf-8"))
    (location,) = workspace["load_from"]
    assert Path(location["python_module"]["working_directory"]).is_relative_to(winnow.parents[1].resolve())


def test_changelog__begins_with_the_version() -> None:
    newest = re.search(r"^## (\S+) \(\d{4}-\d\d-\d\d\)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_pre_commit__runs_the_targets_of_the_makefile() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    commands = [hook["entry"].split() for hook in repository["hooks"]]
    assert [program for program, _ in commands] == ["make", "make"]
    assert {target for _, target in commands} == {"lint", "test"} <= set(targets)
