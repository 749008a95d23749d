from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines.errors import NothingYet
from pipelines.recipes.drawn import Drawn, unit
from pipelines.report import gather as gather_module
from pipelines.report.changes import ADDED, DROPPED, words_of
from pipelines.report.quality import highest_cosines
from pipelines.report.write import read_document
from storage.errors import NotInStore
from storage.ids import to_text
from storage.records import read_selection
from storage.store import Store
from tests.pipelines.conftest import change, opened
from tests.pipelines.report.conftest import HOSTILE, Nights


def items(project: Path, selection_id: str) -> list[str]:
    return [str(row["id"]) for row in read_selection(Store(project / "store"), selection_id)[1].to_pylist()]


def test_gather__has_the_keys_that_its_docstring_lists(nights: Nights) -> None:
    text = gather_module.__doc__ or ""
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("    ") and line[4:5].strip()]
    assert [key for key in nights.second if key not in listed] == []
    recipe_keys = [key for line in text.split("A recipe:")[1].splitlines() for key in line.replace(",", " ").split()]
    assert [key for key in nights.recipe("near") if key not in recipe_keys] == []
    json.dumps(nights.second, allow_nan=False)


def test_verdict__says_what_changed(nights: Nights) -> None:
    assert nights.first["verdict"]["line"] == "Published: 2 recipes, 50 rows."
    assert nights.first["verdict"]["setup"] == "The first run of this store: there is nothing to compare with."
    assert nights.second["verdict"]["changed"] == ["recipes.any.where"]
    assert nights.second["previous_run"] == nights.first["run"]


def test_funnel__every_row_is_accounted_for(nights: Nights) -> None:
    pool = {stop["key"]: stop for stop in nights.second["pool"]["funnel"]}
    assert pool["read"]["rows"] == pool["duplicate"]["rows"] + pool["quarantined"]["rows"] + pool["pool"]["rows"]
    assert pool["pool"]["delta"] == len(HOSTILE) - 5
    for recipe in nights.second["recipes"]:
        left = 0
        for stop in recipe["funnel"]:
            if stop["key"] in ("eligible", "rows"):
                assert left == stop["rows"], stop
            left = stop["rows"] if stop["total"] else left - stop["rows"]


@pytest.mark.parametrize("name", ["near", "any"])
def test_changes__are_those_of_sets_and_each_has_the_cause_that_a_reader_would_give(nights: Nights, name: str) -> None:
    changes, before = nights.recipe(name)["changes"], next(r for r in nights.first["recipes"] if r["name"] == name)
    ours, theirs = (set(items(nights.project, each["selection_id"])) for each in (nights.recipe(name), before))
    assert (changes["kept"], changes["added"], changes["dropped"]) == (
        len(ours & theirs),
        len(ours - theirs),
        len(theirs - ours),
    )
    assert changes["jaccard"] == round(len(ours & theirs) / len(ours | theirs), 4)
    assert sum(line["rows"] for line in changes["added_causes"]) == changes["added"]

    view = opened(nights.project).pool
    pools = [set(to_text(view.snapshot_of(each["pool"]["snapshot"]).ids)) for each in (nights.first, nights.second)]
    folder = nights.project / "store" / "records" / "reports" / nights.second["run"]
    rows = [row for row in pq.read_table(folder / "changes.parquet").to_pylist() if row["recipe"] == name]
    assert {str(row["id"]) for row in rows if row["change"] == "added"} == ours - theirs
    for row in rows:
        if row["change"] == "added":
            assert row["cause"] == ("moved_up" if str(row["id"]) in pools[0] else "new_row")
        else:
            assert row["cause"] == ("pushed_out" if str(row["id"]) in pools[1] else "gone")


def test_words_of__every_cause_has_words() -> None:
    assert words_of("denied", ADDED) == "was in the deny list"
    assert words_of("denied", DROPPED) == "in the deny list now"


def test_quality__is_what_a_naive_search_gives(nights: Nights) -> None:
    view = opened(nights.project).pool
    drawn = Drawn(view, nights.recipe("near")["selection_id"])
    vectors = unit(drawn.vectors(drawn.spec.encoder or "").take(np.arange(len(drawn.snapshot))))
    chosen = vectors[drawn.rows]
    naive = np.array([max(float(row @ other) for other in chosen) for row in vectors])
    np.testing.assert_allclose(highest_cosines(vectors, chosen), naive, atol=1e-6)
    quality = nights.recipe("near")["quality"]
    expected = np.sqrt(np.maximum(2 - 2 * naive, 0)).mean()
    assert quality["sample_rows"] == quality["pool_rows"] == len(vectors)
    assert quality["coverage"][0]["selected"] == pytest.approx(expected, abs=1e-3)
    assert [line["half"] for line in quality["targets"]] == ["selecting"]
    assert set(quality["targets"][0]) >= {"selected", "random", "before"}


def test_quality__a_recipe_without_vectors_is_measured_with_those_of_another(nights: Nights) -> None:
    assert nights.recipe("any")["quality"]["coverage"][0]["random"] > 0
    assert nights.recipe("any")["quality"]["targets"] == []


def test_rows_to_read__have_reasons_and_the_text_of_the_target(nights: Nights) -> None:
    rows = nights.recipe("near")["rows_to_read"]
    assert 0 < len(rows) <= 20
    assert rows[0]["why"].startswith("target foxes/fox-10")
    assert rows[0]["ref_text"].startswith("the fox jumps over 10")
    assert rows[0]["nearest_target"] is None  # the reason names one
    dropped = [row for row in nights.recipe("any")["rows_to_read"] if row["note"] == "dropped"]
    assert dropped
    assert all(row["cause"] and row["rank"] is None and row["text"] for row in dropped)


@pytest.mark.slow
def test_rows_to_read__name_the_target_that_won_as_winnow_why_does(light: Path) -> None:
    from pipelines.report.gather import gather
    from pipelines.run import run_and_report
    from pipelines.why import why

    change(light, "recipes:\n", "recipes:\n  most: {steps: [rds_max], budget: 6}\n")
    context = opened(light)
    run_and_report(context)
    document, _ = gather(opened(light), context.invocation)
    rows = next(recipe for recipe in document["recipes"] if recipe["name"] == "most")["rows_to_read"]
    assert len(rows) == 6
    for line in rows:
        (answer,) = why(opened(light), line["id"], "most")
        assert line["nearest_target"] == answer.detail["nearest_target"]
        assert line["similarity"] == pytest.approx(answer.detail["similarity"], abs=1e-5)
        assert line["target_text"].startswith("the fox")
        assert line["ref"] is None


def test_maps__are_drawn_in_the_same_plane_every_night(nights: Nights) -> None:
    (first,), (second,) = nights.first["maps"].values(), nights.second["maps"].values()
    assert first["map"] == second["map"]
    assert first["frame"] == second["frame"]
    left, right, bottom, top = second["frame"]
    points = [point for recipe in nights.second["recipes"] for point in recipe["map"]["selected"]]
    assert len(points) == 50
    assert all(left <= x <= right and bottom <= y <= top for x, y, _, _ in points)
    assert sum(rows for _, _, rows in second["density"]) == second["sampled_rows"]


def test_gather__a_run_with_a_recipe_that_failed_says_why(light: Path) -> None:
    from pipelines.errors import RecipesFailed
    from pipelines.run import run_and_report

    text = (light / "winnow.yaml").read_text()
    (light / "winnow.yaml").write_text(text.replace("budget: 8}", "budget: 8000}"))
    said: list[str] = []
    with pytest.raises(RecipesFailed):
        run_and_report(opened(light, said))
    assert said[-1].startswith("report: Published: 1 recipe, 10 rows; failed: select any: ")
    run = (light / "store" / "report.html").resolve().stem
    document = read_document(light / "store" / "records" / "reports" / run)
    assert document["verdict"]["state"] == "partly"
    assert [recipe["status"] for recipe in document["recipes"]] == ["ok", "failed"]


def test_gather__no_run_or_an_unknown_one(light: Path, nights: Nights) -> None:
    with pytest.raises(NothingYet, match="`winnow run` makes the first report"):
        gather_module.gather(opened(light))
    with pytest.raises(NotInStore, match=f"no run 'nosuch' in .*; the last ones are: {nights.second['run']}, "):
        gather_module.gather(opened(nights.project), "nosuch")
