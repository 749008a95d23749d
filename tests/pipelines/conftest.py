"""A project that needs no model, and the `winnow` command in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipelines.context import Context, open_context
from pipelines.progress import Log
from pipelines.run import run_all
from tests.conftest import SUBJECTS, row, write_rows

LIGHT = """\
store: ./store
pool:
  files: data/*.jsonl
  vectors: vectors/pool.npy
targets:
  foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy}
recipes:
  near: {steps: [rds_plus], budget: 10}
  any: {steps: [random], budget: 8}
schedule: {cron: "30 3 * * *", timezone: Europe/Vienna, recipes: [any]}
"""


def write_vectors(path: Path, names: list[str]) -> None:
    """A vector for each name that its subject and its number decide."""
    path.parent.mkdir(exist_ok=True)
    vectors = []
    for name in names:
        subject, number = name.split("-")
        noise = np.random.default_rng(int(number)).normal(size=16) * 0.2
        vectors.append(np.eye(16)[SUBJECTS.index(subject)] + noise)
    np.save(path, np.array(vectors, np.float32))
    path.with_suffix(".ids.txt").write_text("\n".join(names) + "\n")


def make_light(folder: Path) -> Path:
    """80 rows in two files, two targets, vectors for all of them; two recipes."""
    (folder / "data").mkdir(parents=True)
    (folder / "winnow.yaml").write_text(LIGHT)
    write_rows(folder / "data" / "a.jsonl", [row(n, s) for s in SUBJECTS[:4] for n in range(10)])
    write_rows(folder / "data" / "b.jsonl", [row(n, s) for s in SUBJECTS[4:] for n in range(10)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    write_vectors(folder / "vectors" / "pool.npy", [f"{s}-{n}" for s in SUBJECTS for n in range(20)])
    write_vectors(folder / "vectors" / "foxes.npy", ["fox-100", "fox-101"])
    return folder


def change(project: Path, old: str, new: str) -> None:
    """Edit the configuration."""
    path = project / "winnow.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def opened(project: Path, said: list[str] | None = None, invocation: str | None = None) -> Context:
    """The context of an invocation; its messages go to `said`."""
    return open_context(project, Log((said if said is not None else []).append), invocation)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Winnow = Callable[..., Ended]


@pytest.fixture
def light(tmp_path: Path) -> Path:
    """A project of its own, not run yet."""
    return make_light(tmp_path / "light")


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that was run once; for looking only."""
    project = make_light(tmp_path_factory.mktemp("ran") / "light")
    run_all(opened(project))
    return project


@pytest.fixture
def winnow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Winnow]:
    """The command as the shell calls it, in this process."""
    from pipelines.cli.main import main

    def run(*arguments: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["winnow", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Ended(int(ended.value.code or 0), said.out, said.err)

    monkeypatch.delenv("WINNOW_CONFIG", raising=False)
    return run
