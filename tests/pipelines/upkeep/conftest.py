"""A store of three nights: each night one file holds another row, and both recipes are drawn anew."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from pipelines.check import check_lines
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from pipelines.runs import runs
from pipelines.upkeep import garbage
from storage.catalog.publish import rebuild_catalog
from storage.catalog.query import open_catalog
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, make_light, opened, write_vectors


def night(project: Path, number: int) -> None:
    """A night: its row takes the place of the last night's, and everything is run."""
    write_rows(project / "data" / "c.jsonl", [row(50 + number, "fox")])
    names = [f"{subject}-{n}" for subject in SUBJECTS for n in range(10)]
    write_vectors(project / "vectors" / "pool.npy", [*names, f"fox-{50 + number}"])
    run_all(opened(project))


@pytest.fixture(scope="session")
def three_nights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For looking only."""
    project = make_light(tmp_path_factory.mktemp("nights") / "light")
    change(project, "pool:\n", "index: {kind: ivf}\npool:\n")
    for number in range(3):
        night(project, number)
    return project


@pytest.fixture
def nights(three_nights: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    project = tmp_path / "nights"
    shutil.copytree(three_nights, project, symlinks=True)
    rebuild_catalog(Store(project / "store"))
    return project


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is 40 days later."""
    now = time.time() + 40 * garbage.DAY_S
    monkeypatch.setattr(garbage.time, "time", lambda: now)


def drawn(project: Path, recipe: str) -> list[str]:
    """The selections of a recipe, the oldest first."""
    history = [run for run in runs(Store(project / "store")) if run["stage"] == "select" and run["target"] == recipe]
    return list(dict.fromkeys(run["subject"] for run in reversed(history)))


def files(project: Path) -> dict[str, bytes]:
    """File -> content, of what is committed."""
    root = project / "store"
    paths = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.parent.name != "locks"}


def assert_sound(project: Path) -> None:
    """No file is damaged, every relation of the catalog can be read whole, every selection is drawn again the same."""
    assert [line for line in check_lines(opened(project), deep=True) if "damaged" in line] == []
    with open_catalog(Store(project / "store")) as catalog:
        for (name,) in catalog.execute("SHOW TABLES").fetchall():
            catalog.execute(f'FROM "{name}"').fetchall()
    for selection in Store(project / "store").records("selections"):
        assert "the same" in reproduce(opened(project), selection)
