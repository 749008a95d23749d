"""The demo's pool is real, varied, the same each time, and free of its targets."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo import harvest as module
from pipelines.demo.harvest import SUBJECTS, harvest, is_within
from pipelines.errors import PipelineError


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def harvested(tmp_path_factory: pytest.TempPathFactory) -> tuple[module.HarvestReport, list[dict[str, Any]]]:
    report = harvest(1500, tmp_path_factory.mktemp("harvest"))
    return report, read(report.pool)


def small_installation(root: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation that holds these files and nothing else."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    monkeypatch.setattr(module.sysconfig, "get_path", lambda key: str(root))


@pytest.mark.slow
def test_harvest__gives_the_rows_asked_for_with_unique_ids(harvested: Any) -> None:
    report, rows = harvested
    assert report.rows == len(rows) == 1500
    assert len({row["id"] for row in rows}) == 1500
    assert all(row["prompt"].strip() and row["response"].strip() and row["source"] for row in rows)


@pytest.mark.slow
def test_harvest__no_package_dominates(harvested: Any) -> None:
    _, rows = harvested
    counts = Counter(row["source"] for row in rows)
    assert len(counts) > 150
    assert counts.most_common(1)[0][1] <= 75  # a twentieth


@pytest.mark.slow
def test_harvest__targets_are_held_out_of_the_pool_entirely(harvested: Any) -> None:
    report, rows = harvested
    targets = [name for subject in SUBJECTS.values() for name in subject.targets]
    assert not [row["id"] for row in rows if is_within(row["module"], targets)]
    target_code = {row["response"] for path in report.targets.values() for row in read(path)}
    assert target_code
    assert target_code.isdisjoint(row["response"] for row in rows)


@pytest.mark.slow
def test_harvest__every_subject_has_targets_and_enough_related_rows_to_find(harvested: Any) -> None:
    report, rows = harvested
    assert list(report.targets) == list(SUBJECTS)
    for name, path in report.targets.items():
        assert len(read(path)) >= 10
        assert report.related_rows[name] == sum(is_within(row["module"], report.related[name]) for row in rows)
    assert 150 <= sum(report.related_rows.values()) <= 225
    assert json.loads((report.pool.parent / "related.json").read_text()) == {
        name: list(subject.related) for name, subject in SUBJECTS.items()
    }


@pytest.mark.slow
@pytest.mark.slow
def test_harvest__the_same_installation_gives_the_same_files(harvested: Any, tmp_path: Path) -> None:
    report, _ = harvested
    again = harvest(1500, tmp_path)
    assert again.pool.read_bytes() == report.pool.read_bytes()
    assert {k: v.read_bytes() for k, v in again.targets.items()} == {
        k: v.read_bytes() for k, v in report.targets.items()
    }


@pytest.mark.slow
def test_harvest__imports_nothing_that_it_reads(harvested: Any) -> None:
    _, rows = harvested
    read_modules = {row["module"] for row in rows}
    assert "antigravity" not in sys.modules
    assert len(read_modules - set(sys.modules)) > 100


def test_harvest__a_row_is_the_documented_function_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '''
class Tank:
    """A tank that holds a volume of something wet."""

    @property
    def volume(self) -> float:
        """The volume that is in the tank at this moment.

            indented

        End.
        """
        text = """
  keeps its own indentation"""
        return len(text)

    def _hidden(self):
        """Private functions are not part of the demo's pool."""
        return 1

    def short(self):
        """Too short."""
        return 1

    def abstract(self):
        """Nothing but a docstring is in this function's body."""


async def drain(tank: Tank, *, by: int = 3) -> None:
    """Drain a tank by a number of litres, slowly and surely."""
    await tank
'''
    statistics = (
        'def mean(data):\n    """The arithmetic mean of the data, as everybody knows."""\n    return sum(data)\n'
    )
    files = {
        "wet/tank.py": source,
        "wet/tests/test_tank.py": source,
        "copy.py": statistics,
        "broken.py": "def f(:",
        "latin.py": "# coding: latin-1\n",
        "statistics.py": statistics,
        "calendar.py": statistics.replace("sum", "max"),
    }
    small_installation(tmp_path, files, monkeypatch)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n")
    report = harvest(10, tmp_path / "out")
    rows = {row["id"]: row for row in read(report.pool)}
    # copy.mean has the code of a target, so it is held out although its module is not.
    assert sorted(rows) == ["wet.tank.Tank", "wet.tank.Tank.volume", "wet.tank.drain"]
    assert rows["wet.tank.drain"] == {
        "id": "wet.tank.drain",
        "prompt": "wet.tank.drain(tank: Tank, *, by: int=3) -> None\n\n"
        "Drain a tank by a number of litres, slowly and surely.",
        "response": "async def drain(tank: Tank, *, by: int = 3) -> None:\n    await tank",
        "source": "wet",
        "module": "wet.tank",
    }
    assert rows["wet.tank.Tank.volume"]["prompt"].endswith("at this moment.\n\n    indented\n\nEnd.")
    assert rows["wet.tank.Tank.volume"]["response"] == (
        '@property\ndef volume(self) -> float:\n    text = """\n  keeps its own indentation"""\n    return len(text)'
    )
    assert report.rows == 3
    assert report.summary.startswith("harvested 3 documented functions and classes of 1 modules and packages")


def test_harvest__without_library_sources_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_installation(tmp_path, {"json.py": ""}, monkeypatch)
    with pytest.raises(PipelineError, match=r"^no source code of statistics in .*--pool$"):
        harvest(10, tmp_path / "out")
