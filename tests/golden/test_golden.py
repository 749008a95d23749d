"""What winnow stores, and what it draws, is what it was when the golden files were made.

Everything goes through the command line and is read with json, pyarrow and duckdb, so that the modules behind it
may move. If a test is red, the code has changed what is stored or drawn: mend the code. `make_golden` says when the
files may change instead.
"""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.golden import archive, contents
from tests.golden.commands import Winnow, environment, winnow_in
from tests.golden.project import PROJECTS
from tests.golden.replay import replay

EXPECTED: dict[str, Any] = json.loads(Path(__file__).with_name("expected.json").read_text("utf-8"))
"""The archived store: what it holds."""
CHANGES: dict[str, Any] = json.loads(Path(__file__).with_name("fresh.json").read_text("utf-8"))
FRESH: dict[str, Any] = EXPECTED | {
    part: {name: value for name, value in (EXPECTED[part] | changes).items() if value is not None}
    for part, changes in CHANGES.items()
}
"""A fresh run of the same inputs: steps whose algorithm has changed since draw otherwise."""
# Recipes whose steps have another algorithm since the store was archived.
CHANGED_STEPS = {"caps", "filtered", "keep_top_combine", "outliers", "rds_max", "rds_mean", "rds_plus"} | {
    "rds_plus_advance",
    "semdedup",
}
SAME_WRITERS = EXPECTED["made_with"] == contents.versions()
MOST_SHOWN = 12
MOST_LINES = 16


@pytest.fixture
def archived(tmp_path: Path) -> Path:
    """The archived project and its store, unpacked."""
    project = tmp_path / "archived"
    archive.unpack(project)
    return project


@pytest.mark.slow
def test_a_fresh_run__stores_and_draws_what_it_did(tmp_path: Path) -> None:
    project, before = tmp_path / "fresh", tmp_path / "archived"
    archive.unpack_inputs(project)
    replay(project)
    archive.unpack(before)
    found = contents.files_of(project)

    # What was drawn comes first: where that differs, most files do.
    differences = [
        *_different("recipe", FRESH["recipes"], contents.drawn(project)),
        *_different("rounds of", FRESH["rounds"], contents.rounds(project)),
        *_different_files(found, project, contents.files_of(before), before, FRESH["files"]),
        *_different_schema(contents.catalog_schema(project), FRESH["catalog"]),
        *_different("rows of", FRESH["rows"], contents.catalog_rows(project)),
    ]
    _none(differences)


@pytest.mark.slow
def test_the_resolved_configuration__is_what_it_was(tmp_path: Path) -> None:
    project = tmp_path / "some" / "folder"
    archive.unpack_inputs(project)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "run", "short"],
        cwd=project,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    (kept,) = (project / "store" / "configs").glob("*.yaml")
    before = tmp_path / "archived"
    archive.unpack(before)
    files = {"configs/<digest>.yaml": kept}
    expected = {name: facts for name, facts in FRESH["files"].items() if name.startswith("configs/")}
    _none(_different_files(files, project, contents.files_of(before), before, expected))

    # It is itself a configuration, of the same digest.
    moved = tmp_path / "moved.yaml"
    moved.write_text(kept.read_text("utf-8"), "utf-8")
    with winnow_in(project) as winnow:
        winnow("run", "short", "--config", str(moved))
    assert [one.name for one in (project / "store" / "configs").glob("*.yaml")] == [kept.name]


@pytest.mark.slow
def test_an_archived_store__opens_and_reproduces_every_selection(archived: Path) -> None:
    stored = contents.selection_ids(archived)
    arms = [one[arm] for some in EXPECTED["rounds"].values() for one in some for arm in ARMS if one[arm]]
    drawn = [one for some in EXPECTED["recipes"].values() for one in some]
    assert {*arms, *drawn} <= set(stored)  # an arm for which no money was left is in no round

    with winnow_in(archived) as winnow:
        winnow("catalog", "rebuild")
        rows = contents.catalog_rows(archived)
        assert rows.pop("runs").startswith(f"{len(list((archived / 'store/records/runs').iterdir()))} rows ")
        # Columns were added since; what the relations hold is as much as it was.
        assert {name: rows[name].split(" rows ")[0] for name in EXPECTED["rows"] if name != "runs"} == {
            name: said.split(" rows ")[0] for name, said in EXPECTED["rows"].items() if name != "runs"
        }
        assert "published" in winnow("status", "--limit", "400").out
        assert _asked(winnow, "SELECT count(*) AS n FROM selections") == [{"n": len(stored)}]
        assert _asked(winnow, "SELECT count(*) AS n FROM rounds") == [{"n": sum(map(len, EXPECTED["rounds"].values()))}]
        not_reproduced = []
        for selection in stored:
            said = winnow("reproduce", selection, code=None)
            if "in the same order, with the same gains" not in said.out:
                not_reproduced.append(f"{_drawn_for(archived, selection)} {selection}: {said.out} {said.err[-1500:]}")
        _none(not_reproduced)


@pytest.mark.slow
def test_an_archived_store__draws_anew_only_what_changed(archived: Path) -> None:
    before = {name for name in contents.files_of(archived) if not name.startswith(("records/runs", "configs/"))}
    (archived / "store" / "configs").rename(archived / "configs")  # of another folder, so of another digest
    with winnow_in(archived) as winnow:
        winnow("run")
        for name in PROJECTS:
            said = winnow("labels", "push", name).err
            assert f"{name}/batch: round " in said or "no further batch" in said, said
        assert "rounds" in winnow("labels", "status", "topics").out
    drawn = contents.drawn(archived)
    anew = {name: ids[-1] for name, ids in drawn.items() if ids[-1] != EXPECTED["recipes"][name][-1]}
    assert set(anew) == CHANGED_STEPS
    new = set(anew.values())
    after = {name for name in contents.files_of(archived) if not name.startswith(("records/runs", "configs/"))}
    after = {name for name in after if not name.startswith("records/health_measurements/")}
    measured = {name for name in after - before if name.startswith("records/metrics/")}
    assert len(measured) == len(new)  # one record of metrics for each selection
    _none([f"{name} is new" for name in sorted(after - before - measured) if not new & set(name.split("/"))])
    _none(_different("rounds of", EXPECTED["rounds"], contents.rounds(archived)))


# ---- what differs

ARMS = ("selection_id", "random_selection_id")


def _none(found: Iterable[str]) -> None:
    differences = list(found)
    if differences:
        more = len(differences) - MOST_SHOWN
        shown = "\n".join(differences[:MOST_SHOWN]) + (f"\n... and {more} more" if more > 0 else "")
        pytest.fail(f"{len(differences)} differences\n{shown}", pytrace=False)


def _different(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        one, other = expected.get(name), found.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _different(f"{what} {name},", one, other)
        elif one != other:
            yield f"{what} {name}:\n    expected {one}\n    found    {other}"


def _different_files(
    found: Mapping[str, Path], root: Path, before: Mapping[str, Path], before_root: Path, expected: Mapping[str, Any]
) -> Iterator[str]:
    """Files that are not as expected; each with its first lines that differ from the archived one."""
    for name in sorted({*expected, *found}):
        if name not in found or name not in expected:
            yield f"{name} is {'missing' if name not in found else 'not expected'}"
            continue
        facts = contents.facts_of(found[name], root)
        kinds = [kind for kind in {**expected[name], **facts} if facts.get(kind) != expected[name].get(kind)]
        if not SAME_WRITERS:
            kinds = [kind for kind in kinds if kind not in ("bytes", "layout")]
        if kinds:
            lines = (
                contents.shown(before[name], before_root) if name in before else [],
                contents.shown(found[name], root),
            )
            diff = list(difflib.unified_diff(*lines, "expected", "found", lineterm="", n=0))
            yield "\n    ".join([f"{_named(name, found[name])}: {', '.join(kinds)}", *diff[2:MOST_LINES]])


def _different_schema(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for kind, names in expected.items():
        yield from _different(f"catalog, {kind}:", names, found[kind])


def _named(name: str, path: Path) -> str:
    """A file with the recipe or project that it was made for, where its record says so."""
    for record in (path.with_name("selection.json"), path.with_name("round.json"), path.with_name("model.json")):
        if record.is_file():
            about = json.loads(record.read_text("utf-8"))
            return f"{about.get('recipe') or about.get('project')}: {name}"
    return name


def _drawn_for(project: Path, selection: str) -> str:
    path = project / "store" / "records" / "selections" / selection / "selection.json"
    return str(json.loads(path.read_text("utf-8"))["recipe"])


def _asked(winnow: Winnow, query: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in winnow("sql", "--json", query).out.splitlines()]
