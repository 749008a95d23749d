"""The latest selection of a recipe becomes an earlier one again: in SQL, in its exports, for the next run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.errors import RecipesFailed, RollbackRefused
from pipelines.run import run_all
from pipelines.upkeep import rollback
from pipelines.upkeep.rollback import roll_back
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.store import Store
from tests.pipelines.conftest import Winnow, change, opened
from tests.pipelines.upkeep.conftest import drawn, night


def latest(project: Path, recipe: str) -> str:
    table = query_catalog(Store(project / "store"), f"SELECT selection_of('{recipe}') AS id")
    return str(table["id"][0])


def test_roll_back__goes_back_one_draw_at_a_time_and_forth(nights: Path) -> None:
    first, second, third = drawn(nights, "near")
    others = drawn(nights, "any")
    assert roll_back(opened(nights), "near").now == second
    assert latest(nights, "near") == second
    done = roll_back(opened(nights), "near", reason="leaks")
    assert (done.before, done.now, done.rows) == (second, first, 10)
    assert latest(nights, "near") == first
    with pytest.raises(RollbackRefused, match="near has no selection before"):
        roll_back(opened(nights), "near")
    assert f"winnow rollback near {second}" in done.summary
    assert roll_back(opened(nights), "near", third[:12]).now == third
    assert latest(nights, "near") == third
    assert latest(nights, "any") == others[-1]
    run = query_catalog(
        Store(nights / "store"), "SELECT facts->>'reason' AS reason, summary FROM runs WHERE summary LIKE '%leaks'"
    ).to_pylist()
    assert run == [{"reason": "leaks", "summary": f"rolled back from {second} to {first}: leaks"}]


def test_roll_back__the_next_run_that_passes_takes_its_place(nights: Path) -> None:
    third = drawn(nights, "near")[-1]
    roll_back(opened(nights), "near")
    run_all(opened(nights))
    assert latest(nights, "near") == third
    roll_back(opened(nights), "near")
    night(nights, 7)
    assert latest(nights, "near") not in drawn(nights, "near")[:3]


def test_roll_back__writes_the_exports_as_the_stage_does(nights: Path) -> None:
    with (nights / "winnow.yaml").open("a") as file:
        file.write(
            "exports: {chat: {recipe: near, to: ids, out: out/near}, other: {recipe: any, to: ids, out: out/any}}\n"
        )
    night(nights, 8)
    before = {name: (nights / "out" / name / "provenance.json").read_text() for name in ("near", "any")}
    roll_back(opened(nights), "near")
    provenance = json.loads((nights / "out" / "near" / "provenance.json").read_text())
    assert provenance["selection"] == drawn(nights, "near")[-2]
    assert (nights / "out" / "any" / "provenance.json").read_text() == before["any"]
    run_all(opened(nights))
    assert (nights / "out" / "near" / "provenance.json").read_text() == before["near"]
    (nights / "out" / "near" / "mine.txt").write_text("mine")
    with pytest.raises(RecipesFailed, match=r"mine\.txt in it is no file of the export"):
        roll_back(opened(nights), "near")
    assert latest(nights, "near") == drawn(nights, "near")[-2]
    (nights / "out" / "near" / "mine.txt").unlink()
    for back in (-2, -3):  # the same one, to its end; then one more
        assert roll_back(opened(nights), "near").now == drawn(nights, "near")[back]
        provenance = json.loads((nights / "out" / "near" / "provenance.json").read_text())
        assert provenance["selection"] == drawn(nights, "near")[back]


def test_roll_back__killed_before_it_is_published_is_ended_by_the_same_command(
    nights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = drawn(nights, "near")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    for name, expected in ((None, second), (first, first)):
        with monkeypatch.context() as patch:
            patch.setattr(rollback, "run_stage", killed)
            with pytest.raises(KeyboardInterrupt):
                roll_back(opened(nights), "near", name)
        assert latest(nights, "near") != expected
        assert roll_back(opened(nights), "near", name).now == expected
        assert latest(nights, "near") == expected
    assert roll_back(opened(nights), "near", third).before == first


def test_roll_back__refuses_what_was_never_published(nights: Path, winnow: Winnow) -> None:
    first, second, _ = drawn(nights, "near")
    with pytest.raises(RollbackRefused, match="never was the latest selection of near"):
        roll_back(opened(nights), "near", drawn(nights, "any")[0])
    with pytest.raises(RollbackRefused, match="is the latest selection of near already"):
        roll_back(opened(nights), "near", "near")
    Store(nights / "store").path("records", "selections", second, "items.parquet").write_bytes(b"")
    with pytest.raises(RollbackRefused, match=r"items\.parquet is empty"):
        roll_back(opened(nights), "near")
    change(nights, "budget: 10", "budget: 10, min_overlap: 1")
    with pytest.raises(RecipesFailed, match="is held back"):
        night(nights, 9)
    held = drawn(nights, "near")[-1]
    with pytest.raises(RollbackRefused, match="never was the latest"):
        roll_back(opened(nights), "near", held)
    with pytest.raises(NotInStore, match="drawn were: any, near"):
        roll_back(opened(nights), "nea")
    done = winnow("rollback", "near", first, "-c", nights)
    assert done.out.startswith(f"the latest of near is {first} again (10 rows)")


def test_pin__is_in_sql_with_its_note(nights: Path, winnow: Winnow) -> None:
    store, (first, *_) = Store(nights / "store"), drawn(nights, "near")
    assert winnow("pin", "near~2", "--note", "for the paper", "-c", nights).out == f"pinned {first}\n"
    assert query_catalog(store, "SELECT selection_id, recipe, note FROM pinned").to_pylist() == [
        {"selection_id": first, "recipe": "near", "note": "for the paper"}
    ]
    assert winnow("unpin", first, "-c", nights).out == f"unpinned {first}\n"
    assert winnow("unpin", first, "-c", nights).out == f"{first} is not pinned\n"
    assert query_catalog(store, "FROM pinned").num_rows == 0
