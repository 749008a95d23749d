"""A command that is killed at a system call, or to which one fails: the next run gives what it would have given.

A call is one that changes the disk below the project, Python's or that of DuckDB, Arrow or faiss: a write, an fsync, a
truncation, a new folder, a rename, a symlink.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from storage.catalog.query import open_catalog, query_catalog
from storage.damage import KINDS
from storage.records import read_selection
from storage.store import FORGETTING, Store
from tests.quick import torture_last
from tests.torture.commands import OF_THE_CATALOG, Commands
from tests.torture.scenarios import SCENARIOS

pytestmark = pytest.mark.slow

LEFTOVER = re.compile(r"\..+\.\d+\.[0-9a-f]{8}")
# Names that a run makes anew each time; of everything else, the same folders must be there.
OF_EACH_RUN = ("runs", "reports")


def held(project: Path) -> dict[str, list[str]]:
    """The rows of each selection, the files of the export, and the names of what is committed once, whoever ran."""
    store = Store(project / "store")
    contents = {name: [*map(str, read_selection(store, name)[1].to_pylist())] for name in store.records("selections")}
    written = [*(project / "train").glob("*.parquet"), *(project / "out").glob("*.jsonl")]
    contents |= {str(path.relative_to(project)): [path.read_bytes().hex()] for path in written}
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
        calls: those of the command that change the disk.
        held: what there is afterwards.
        published: the selections that the catalog has afterwards.
    """

    project: Path
    calls: list[str]
    held: dict[str, list[str]]
    published: list[str]

    def again(self) -> Path:
        shutil.rmtree(self.project)
        shutil.copytree(self.project.with_name("kept"), self.project, symlinks=True)
        return self.project


@pytest.fixture(scope="module")
def whole(command: Commands, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    @cache
    def of(name: str) -> Whole:
        scenario = SCENARIOS[name]
        project = scenario.make(tmp_path_factory.mktemp(name) / "light")
        for step in scenario.before:
            if callable(step):
                step(project)
            else:
                assert command(project, *step).code == 0
        shutil.copytree(project, project.with_name("kept"), symlinks=True)
        ended = command(project, *scenario.arguments(project))
        assert ended.code == 0, ended.said
        assert leftovers(project) == []
        return Whole(project, ended.calls, held(project), published(project))

    return of


# Shares of a command's calls. The first of each are few, and spread; the others fill the gaps.
SHARES = [0.05, 0.3, 0.55, 0.8, 0.97, *(number / 50 for number in range(50))]
FAULTS = ("kill", "EIO", "full", "EACCES", "ENOSPC")
CASES = [
    *(("run", fault, SHARES[number]) for number, fault in enumerate(FAULTS)),
    *(("push", fault, share) for fault, share in (("kill", 0.5), ("full", 0.3))),
    *(("push", fault, 0.0) for fault in OF_THE_CATALOG),
    ("forget", "kill", 0.6),
    *((name, "kill", share) for name in SCENARIOS for share in SHARES[5:]),
    *((name, fault, share) for name in ("run", "push") for fault in (*FAULTS[1:], "broken") for share in SHARES[5:]),
    *((name, "full", share) for name in SCENARIOS for share in SHARES[5::10]),
]


@pytest.mark.parametrize(("name", "fault", "share"), torture_last(10, CASES))
def test_a_call_of_any_writer__is_said_and_the_next_run_heals(
    command: Commands, whole: Callable[[str], Whole], name: str, fault: str, share: float
) -> None:
    expected = whole(name)
    project = expected.again()
    before = published(project)
    arguments = SCENARIOS[name].arguments(project)
    ended = command(project, *arguments, nth=1 + int(share * len(expected.calls)), fault=fault)
    assert ended.hit, "nothing happened: this test tests nothing"
    if fault == "kill":
        assert ended.code == -9
    else:
        assert "Traceback" not in ended.said, (ended.hit, ended.said)
        assert ended.code in (0, 2, 3, 5), (ended.hit, ended.said)
        assert ended.code == 0 or "winnow: " in ended.said
    if fault in ("EIO", "EACCES") and ended.hit[0].startswith(("fsync", "rename")):
        assert os.strerror(getattr(errno, fault)) in ended.said  # nothing is refused in silence
    # What was published is there, and readable, or something newer that is whole.
    if not Store(project / "store").has(*FORGETTING):  # else `winnow forget` has to end first
        assert set(before) & set(expected.published) <= set(published(project))

    again = command(project, *arguments)
    assert again.code in SCENARIOS[name].again, (ended.hit, again.said)
    assert leftovers(project) == []
    assert held(project) == expected.held
    assert published(project) == expected.published


@pytest.mark.parametrize("name", ["run", "push"])
def test_a_record__is_committed_by_a_rename_of_its_folder(whole: Callable[[str], Whole], name: str) -> None:
    calls = whole(name).calls
    renamed = {call.split(" ", 1)[1] for call in calls if call.startswith("rename")}
    folders = {str(folder.relative_to(whole(name).project)) for folder in committed(whole(name).project)}
    assert len(renamed & folders) >= 2
    # Nothing is written to where a record lies, other than its folder as a whole.
    inside = [call for call in calls if any(f" {folder}/" in call for folder in folders)]
    assert inside == []


@pytest.mark.parametrize("name", ["run", "push"])
def test_a_power_cut__finds_what_was_committed_on_the_disk(whole: Callable[[str], Whole], name: str) -> None:
    """Of a record all is flushed before its rename, and the entry of its folder after; so it is with a catalog."""
    project, calls = whole(name).project, whole(name).calls
    folders = [*committed(project), *(project / "store" / "packs").glob("*/*")]
    places = {str(folder.relative_to(project)): folder for folder in folders}
    last: dict[str, str] = {}  # path -> what was done to it last
    scratch, renamed = "", set()
    for number, call in enumerate(calls):
        done, path = call.split(" ", 1)
        if done.startswith("rename") and path in places:
            files = [scratch, *(f"{scratch}/{file.relative_to(places[path])}" for file in places[path].rglob("*"))]
            assert [file for file in files if last.get(file) != "fsync"] == []
            assert calls[number + 1] == f"fsync {Path(path).parent}"
            renamed.add(Path(path).parts[1])
        elif done.startswith("rename") and path == "store/winnow.duckdb":
            assert (last[f"{scratch}/next.duckdb"], calls[number - 2]) == ("fsync", "fsync store/catalog")
            assert calls[number + 1] == "fsync store"
            renamed.add("catalog")
        last[path] = done
        if done == "fsync" and path.startswith("store/tmp/"):
            scratch = "/".join(path.split("/")[:3])
    assert renamed >= {"records", "catalog"}


def committed(project: Path) -> list[Path]:
    """Every folder that is committed as a whole."""
    store = Store(project / "store")
    return [folder for kind in KINDS.values() for folder in kind.folders(store)]


def published(project: Path) -> list[str]:
    """The selections of the published catalog, all of whose rows are there, as are the files under every relation."""
    store = Store(project / "store")
    if not store.path("winnow.duckdb").exists():
        return []
    if not store.has(*FORGETTING):
        with open_catalog(store) as catalog:
            for (name,) in catalog.execute("SHOW TABLES").fetchall():
                catalog.execute(f'FROM "{name}"').fetchall()
    counts = query_catalog(
        store,
        "SELECT selection_id, n_items, (SELECT count(*) FROM selection_items i WHERE i.selection_id = s.selection_id)"
        " AS n FROM selections s ORDER BY ALL",
    ).to_pylist()
    # Rows that are half forgotten are gone from files before the catalog knows; nothing works on the store until the
    # end.
    assert all(row["n_items"] == row["n"] for row in counts) or store.has(*FORGETTING)
    return [row["selection_id"] for row in counts]
