"""A command that is killed at a system call, or to which one fails: the next run gives what it would have given.

A call is one that changes the disk below the project, Python's or that of DuckDB, Arrow or faiss: a write, an fsync, a
truncation, a new folder, a rename, a symlink.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.catalog.query import query_catalog
from storage.ids import from_arrow, to_text
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import change, make_light
from tests.quick import torture_last
from tests.torture.commands import Commands

pytestmark = pytest.mark.slow

LABELING = "labeling:\n  kinds: {classes: [fox, other], steps: [entropy], batch_size: 10, labels: 'labels/*.jsonl'}\n"
LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
# Names that a run makes anew each time; of everything else, the same folders must be there.
OF_EACH_RUN = ("runs", "reports")


def make_project(folder: Path) -> Path:
    project = make_light(folder)
    change(project, "  files: data", "  columns: scores.parquet\n  files: data")
    change(project, "  any:", "  few: {steps: [{near_duplicates: {threshold: 0.5}}, random], budget: 5}\n  any:")
    ids = [f"{subject}-{n}" for subject in ("fox", "dog") for n in range(10)]
    pq.write_table(pa.table({"id": ids, "score": range(20)}), project / "scores.parquet")
    text = (project / "winnow.yaml").read_text()
    (project / "winnow.yaml").write_text(
        text + "exports:\n  train: {recipe: near, to: parquet, out: train}\n" + LABELING
    )
    return project


@dataclass(frozen=True)
class Scenario:
    """A command on a project, and what was run before it."""

    before: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]


SCENARIOS = {
    "run": Scenario((), ("run",)),
    "push": Scenario((("run",),), ("labels", "push", "kinds")),
}


def held(project: Path) -> dict[str, list[str]]:
    """The rows of each selection, the files of the export, and the names of what is committed once, whoever ran."""
    store = Store(project / "store")
    contents = {name: to_text(from_arrow(read_selection(store, name)[1]["id"])) for name in store.records("selections")}
    contents |= {
        f"bytes of {path.name}": [path.read_bytes().hex()] for path in sorted((project / "train").glob("*.parquet"))
    }
    kinds = [path.name for path in store.path("records").iterdir() if path.name not in OF_EACH_RUN]
    contents |= {kind: store.records(kind) for kind in kinds}
    return contents | {kind: store.committed(kind) for kind in ("pool", "indexes", "vectors")}


def leftovers(project: Path) -> list[str]:
    """What a dead process left: all below tmp/, and hidden names of our form."""
    hidden = [str(path) for path in project.rglob(".*") if LEFTOVER.fullmatch(path.name)]
    return hidden + [str(path) for path in (project / "store" / "tmp").glob("*")]


@dataclass(frozen=True)
class Whole:
    """A scenario without a fault.

    Attributes:
        project: as it was before the command; `again` puts that back.
        calls: how many calls of the command change the disk.
        held: what there is afterwards.
    """

    project: Path
    calls: int
    held: dict[str, list[str]]

    def again(self) -> Path:
        shutil.rmtree(self.project)
        shutil.copytree(self.project.with_name("kept"), self.project, symlinks=True)
        return self.project


@pytest.fixture(scope="module")
def whole(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    @cache
    def of(name: str) -> Whole:
        project = make_project(tmp_path_factory.mktemp(name) / "light")
        for arguments in SCENARIOS[name].before:
            assert command(project, *arguments).code == 0
        shutil.copytree(project, project.with_name("kept"), symlinks=True)
        ended = command(project, *SCENARIOS[name].command)
        assert ended.code == 0, ended.said
        assert leftovers(project) == []
        return Whole(project, len(ended.calls), held(project))

    return of


# Shares of a command's calls. The first of each are few, and spread; the others fill the gaps.
SHARES = [0.05, 0.3, 0.55, 0.8, 0.97, *(number / 50 for number in range(50))]
FAULTS = ("kill", "EIO", "full", "EACCES", "ENOSPC")
CASES = [
    *(("run", fault, SHARES[number]) for number, fault in enumerate(FAULTS)),
    *(("push", fault, share) for fault, share in (("kill", 0.5), ("full", 0.3))),
    *((name, fault, share) for name in SCENARIOS for fault in FAULTS for share in SHARES[5:]),
]


@pytest.mark.parametrize(("name", "fault", "share"), torture_last(7, CASES))
def test_a_call_of_any_writer__is_said_and_the_next_run_heals(
    command: Commands, whole: Callable[[str], Whole], name: str, fault: str, share: float
) -> None:
    expected = whole(name)
    project = expected.again()
    before = published(project)
    ended = command(project, *SCENARIOS[name].command, nth=1 + int(share * expected.calls), fault=fault)
    assert ended.hit, "nothing happened: this test tests nothing"
    if fault == "kill":
        assert ended.code == -9
    else:
        assert "Traceback" not in ended.said, (ended.hit, ended.said)
        assert ended.code in (0, 2, 3, 5), (ended.hit, ended.said)
        assert ended.code == 0 or "winnow: " in ended.said
    # What was published is there, and readable, or something newer that is whole.
    assert set(before) <= set(published(project))

    again = command(project, *SCENARIOS[name].command)
    assert again.code == 0, (ended.hit, again.said)
    assert leftovers(project) == []
    assert held(project) == expected.held


def published(project: Path) -> list[str]:
    """The selections of the published catalog, all of whose rows are there."""
    store = Store(project / "store")
    if not store.path("winnow.duckdb").exists():
        return []
    counts = query_catalog(
        store,
        "SELECT selection_id, n_items, (SELECT count(*) FROM selection_items i WHERE i.selection_id = s.selection_id)"
        " AS n FROM selections s",
    ).to_pylist()
    assert all(row["n_items"] == row["n"] for row in counts)
    return [row["selection_id"] for row in counts]
