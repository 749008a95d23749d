"""What `winnow gc` removes, what it keeps and why, and what a kill or a run under way leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.run import run_all
from pipelines.upkeep.garbage import collect
from pipelines.upkeep.pins import pin, unpin
from storage.catalog.query import query_catalog
from storage.damage import set_aside
from storage.errors import StoreDamaged
from storage.ids import from_bytes, to_arrow
from storage.labels.rounds import ITEM_COLUMNS, commit_round
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import Winnow, change, opened
from tests.pipelines.upkeep.conftest import assert_sound, drawn, files
from tests.quick import quick_first

pytestmark = pytest.mark.usefixtures("later")


def left(project: Path) -> set[str]:
    return set(Store(project / "store").records("selections"))


def latest(project: Path) -> set[str]:
    return {drawn(project, recipe)[-1] for recipe in ("near", "any")}


def test_collect__lists_and_changes_nothing(nights: Path) -> None:
    before = files(nights)
    cleaning = collect(opened(nights), 30)
    assert {entry["kind"]: entry["things"] for entry in cleaning.removed} == {
        "configs": 1,  # the copy's folder is another one
        "encoders": 1,  # the first holds what the last one shares with it
        "health_measurements": 2,
        "index_parts": 2,
        "indexes": 2,
        "ingests": 2,
        "metrics": 2,
        "selections": 4,
        "snapshots": 2,
    }
    assert cleaning.summary.startswith("18 things of ")
    assert {"kind": "selections", "why": "latest of select near", "things": 1} in [
        {key: value for key, value in entry.items() if key != "size"} for entry in cleaning.kept
    ]
    assert files(nights) == before


def test_collect__removes_all_that_is_old_and_needed_by_nothing(nights: Path) -> None:
    summary = collect(opened(nights), 30, delete=True).summary
    assert summary.endswith("removed")
    store = Store(nights / "store")
    assert left(nights) == latest(nights)
    assert [len(store.committed(kind)) for kind in ("indexes", "vectors", "pool", "quarantine")] == [1, 3, 3, 3]
    assert len(store.records("snapshots")) == 1
    assert query_catalog(store, "SELECT count(*) AS n FROM runs WHERE stage = 'select'")["n"].to_pylist() == [6]
    assert_sound(nights)
    said: list[str] = []
    run_all(opened(nights, said))
    assert any("the same inputs as before, so the same 10 rows" in line for line in said)
    assert collect(opened(nights), 30).removed == []


def test_collect__keeps_what_is_young(nights: Path) -> None:
    store = Store(nights / "store")
    set_aside(store, store.path("indexes", store.committed("indexes")[0]), "a fault")
    assert collect(opened(nights), 41, delete=True).removed == []


def by_pin(project: Path, selection: str, winnow: Winnow) -> None:
    assert winnow("pin", selection, "-c", project, "--note", "the good one").code == 0


def by_export(project: Path, selection: str, winnow: Winnow) -> None:
    assert winnow("export", selection, "--out", project / "out", "-c", project).code == 0


def by_comparison(project: Path, selection: str, winnow: Winnow) -> None:
    assert winnow("compare", selection, "near", "--record", "-c", project).code == 0


def by_scores(project: Path, selection: str, winnow: Winnow) -> None:
    (project / "scores.json").write_text(json.dumps({"seed": 1, "mmlu": 0.5}))
    assert winnow("result", "add", selection, project / "scores.json", "-c", project).code == 0


@pytest.mark.parametrize("hold", quick_first(1, [by_pin, by_export, by_comparison, by_scores]))
def test_collect__keeps_a_selection_that_is_in_use_and_all_that_draws_it_again(
    nights: Path, winnow: Winnow, hold: Callable[[Path, str, Winnow], None]
) -> None:
    first = drawn(nights, "near")[0]
    hold(nights, first, winnow)
    collect(opened(nights), 30, delete=True)
    assert left(nights) == latest(nights) | {first}
    assert len(Store(nights / "store").records("snapshots")) == 2
    assert_sound(nights)


@pytest.mark.slow
def test_collect__an_export_that_was_replaced_holds_its_selection_no_more(nights: Path, winnow: Winnow) -> None:
    first, second, _ = drawn(nights, "near")
    for selection in (first, second):
        by_export(nights, selection, winnow)
    collect(opened(nights), 30, delete=True)
    assert left(nights) == latest(nights) | {second}


def test_collect__a_selection_without_its_pin_goes(nights: Path) -> None:
    first = drawn(nights, "near")[0]
    pin(opened(nights), first)
    assert unpin(opened(nights), first) == first
    collect(opened(nights), 30, delete=True)
    assert left(nights) == latest(nights)


@pytest.mark.slow
def test_collect__keeps_a_round_and_its_snapshot(nights: Path) -> None:
    store = Store(nights / "store")
    snapshot = read_selection(store, drawn(nights, "any")[0])[0]["snapshot"]
    values = [[1], to_arrow(from_bytes([b"0" * 16])), ["random"], [1], ["fox"], [0.5], [0.5], [0.5]]
    items = pa.table(values, names=list(ITEM_COLUMNS))
    commit_round(store, {"round_id": "f" * 32, "project": "p", "round": 0, "snapshot": snapshot}, items)
    collect(opened(nights), 30, delete=True)
    assert snapshot in store.records("snapshots")
    assert store.records("rounds") == ["f" * 32]
    assert_sound(nights)


@pytest.mark.slow
def test_collect__encoders_and_selections_of_a_recipe_that_is_no_more_go(nights: Path) -> None:
    change(nights, "  near: {steps: [rds_plus], budget: 10}\n", "")
    collect(opened(nights), 30, delete=True)
    assert left(nights) == {drawn(nights, "any")[-1]}
    assert Store(nights / "store").committed("vectors") == []
    assert_sound(nights)


def test_collect__debris_goes(nights: Path) -> None:
    store = Store(nights / "store")
    set_aside(store, store.path("indexes", store.committed("indexes")[0]), "a fault")
    lonely = store.path("quarantine", "0" * 32)
    store.path("quarantine", store.committed("quarantine")[0]).rename(lonely)
    (store.path("configs") / f"{'0' * 32}.yaml").write_text("store: old\n")
    collect(opened(nights), 30, delete=True)
    assert not lonely.exists()
    assert not list(store.path("set-aside").rglob("*.*"))
    assert [path.stem for path in store.path("configs").glob("*.yaml")] == []


def test_collect__what_a_killed_one_moved_away_last_goes_with_the_next(nights: Path) -> None:
    store = Store(nights / "store")
    collect(opened(nights), 30, delete=True)
    killed = "import os, sys; from storage.store import Store\nwith Store(sys.argv[1]).scratch('gc-runs'): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", killed, str(store.root)], check=False).returncode == 9
    assert len(list(store.path("tmp").iterdir())) == 1
    assert collect(opened(nights), 30, delete=True).removed == []
    assert list(store.path("tmp").iterdir()) == []


@pytest.mark.parametrize("moves", quick_first(1, [6, 1, 11, 16]))
def test_collect__killed_leaves_a_sound_store_and_the_next_one_ends(nights: Path, moves: int) -> None:
    count, rename = 0, Path.rename

    def killed(path: Path, target: Path) -> Path:
        nonlocal count
        count += "gc-" in str(target)
        if count == moves:
            raise KeyboardInterrupt
        return rename(path, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(opened(nights), 30, delete=True)
    assert_sound(nights)
    assert len(left(nights)) > 2 or moves > 6
    collect(opened(nights), 30, delete=True)
    assert left(nights) == latest(nights)
    assert_sound(nights)


def test_collect__refuses_while_a_run_holds_a_lock(nights: Path, winnow: Winnow) -> None:
    before = files(nights)
    with Store(nights / "store").lock("embed-main", "winnow embed main"):
        refused = winnow("gc", "--delete", "-c", nights)
    assert refused.code == 5
    assert "is in use: winnow embed main, process " in refused.err
    assert files(nights) == before
    with Store(nights / "store").in_use():
        assert "a run is between two stages" in winnow("gc", "--delete", "-c", nights).err


def test_collect__removes_nothing_while_it_cannot_know_what_is_needed(nights: Path) -> None:
    before = files(nights)
    record = Store(nights / "store").path("records", "selections", drawn(nights, "near")[-1], "selection.json")
    text = record.read_text()
    record.write_text(text.replace('"snapshot"', '"snapshut"'))
    with pytest.raises(StoreDamaged, match=r"selection\.json is not what was committed"):
        collect(opened(nights), 30, delete=True)
    record.write_text(text)
    assert files(nights) == before
    run = Store(nights / "store").path("records", "runs", Store(nights / "store").records("runs")[0], "run.json")
    run.write_text("{")
    with pytest.raises(StoreDamaged, match="it may say what has to stay"):
        collect(opened(nights), 30, delete=True)


def test_collect__keeps_all_vectors_while_it_cannot_know_which_are_needed(nights: Path) -> None:
    store, old = Store(nights / "store"), drawn(nights, "near")[0]
    pin(opened(nights), old)
    ids = store.path("records", "snapshots", read_selection(store, old)[0]["snapshot"], "ids.npy")
    data = bytearray(ids.read_bytes())
    data[-1] ^= 1
    ids.chmod(0o644)
    ids.write_bytes(data)
    said: list[str] = []
    cleaning = collect(opened(nights, said), 30, delete=True)
    assert any(str(ids) in line and "those of all encoders that stay do" in line for line in said)
    removed = {entry["kind"] for entry in cleaning.removed}
    assert "selections" in removed
    assert "segments" not in removed
    assert old in left(nights)


@pytest.mark.slow
def test_gc__prints_what_goes_and_why_the_rest_stays(nights: Path, winnow: Winnow) -> None:
    listed = winnow("gc", "-c", nights).out
    assert "latest of select near" in listed
    assert "18 things of " in listed
    assert "To remove them: winnow gc --delete" in listed
    assert "18 things of " in winnow("gc", "--delete", "-c", nights).out
    assert "0 things of 0 B would be removed" in winnow("gc", "-c", nights).out
