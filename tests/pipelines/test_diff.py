"""`winnow diff`: the difference between two selections."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipelines.diff import diff
from pipelines.named import selection_of
from pipelines.run import run_all
from pipelines.stages.publish import publish
from pipelines.stages.select import select
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.store import Store
from tests.pipelines.conftest import Winnow, change, opened


def test_diff__of_what_is_not_published_yet_is_refused(light: Path) -> None:
    (first,) = run_all(opened(light), ["any"])
    change(light, "budget: 8", "budget: 9")
    second = select(opened(light), "any")
    store = opened(light).store
    with pytest.raises(NotInStore, match=f"no selection '{second.subject}' in the published catalog"):
        diff(store, "any", None)
    publish(opened(light))
    difference = diff(store, "any", None)
    assert [difference[key]["selection"] for key in "ab"] == [first.subject, second.subject]


def test_diff__totals_by_source_are_those_of_the_rows(winnow: Winnow, ran: Path) -> None:
    store = opened(ran).store
    rows = {
        name: query_catalog(
            store,
            "SELECT id::VARCHAR AS id, source FROM selected_examples WHERE selection_id = ?",
            [selection_of(store, name)],
        ).to_pylist()
        for name in ("any", "near")
    }
    any_, near = ({row["id"]: row["source"] for row in rows[name]} for name in ("any", "near"))
    difference = json.loads(winnow("diff", "any", "near", "--json", "-c", ran).out)
    assert (difference["a"]["recipe"], difference["b"]["rows"]) == ("any", 10)
    assert difference["kept"] == len(any_.keys() & near.keys())
    kept = Counter(any_[each] for each in any_.keys() & near.keys())
    before, after = Counter(any_.values()), Counter(near.values())
    for line in difference["sources"]:
        source = line["source"]
        assert (line["before"], line["after"], line["kept"]) == (before[source], after[source], kept[source])
        assert (line["dropped"], line["added"]) == (before[source] - kept[source], after[source] - kept[source])
    assert {line["source"] for line in difference["sources"]} == {*before, *after}


def test_selection_of__digits_must_tell_one_selection(ran: Path, tmp_path: Path) -> None:
    shutil.copytree(ran / "store" / "records" / "runs", tmp_path / "records" / "runs")
    selections = tmp_path / "records" / "selections"
    for name in ("0123456789", "0123ffffff", "abcd000000"):
        (selections / name).mkdir(parents=True)
    store = Store(tmp_path)
    assert selection_of(store, "abcd") == "abcd000000"
    assert selection_of(store, "01234") == "0123456789"
    with pytest.raises(NotInStore, match="'0123' is how 2 selections begin: 0123456789, 0123ffffff; give more digits"):
        selection_of(store, "0123")
    with pytest.raises(NotInStore, match="neither a recipe with a selection nor"):
        selection_of(store, "abc")


def test_selection_of__a_sweep_names_its_recipes(ran: Path, tmp_path: Path) -> None:
    runs = shutil.copytree(ran / "store" / "records" / "runs", tmp_path / "records" / "runs")
    for file in runs.rglob("run.json"):
        file.write_text(file.read_text().replace('"near"', '"near_seed0"'))
        (file.parent / "checksums.json").unlink()
    with pytest.raises(NotInStore, match="'near' has no selection of its own; name one of its recipes: near_seed0"):
        selection_of(Store(tmp_path), "near")


def test_diff__rows_and_noise_on_the_terminal_and_as_json(winnow: Winnow, ran: Path, tmp_path: Path) -> None:
    project = shutil.copytree(ran, tmp_path / "ran", symlinks=True)
    said = json.loads(winnow("diff", "any", "near", "--rows", "--noise", "--json", "-c", project).out)
    assert said["noise_floor"] == 1.0  # `near` has no chance in it
    assert Counter(line["change"] for line in said["rows"]) == {"added": said["added"], "dropped": said["dropped"]}
    assert {line["cause"] for line in said["rows"]} <= {"score", "budget", "recipe", "encoder"}
    out = winnow("diff", "any", "near", "--rows", "--noise", "-c", project).out
    assert "of two seeds on the same pool 100.0%: the change is more than chance" in out
    assert "each change by rank" in out
    assert "each change by rank" not in winnow("diff", "any", "near", "-c", project).out
