"""`winnow run`: the stages in order, and what stops them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pipelines.context import Context
from pipelines.errors import HeldBack, RecipesFailed, UnknownRecipe
from pipelines.run import run_all
from pipelines.runs import runs
from selection.errors import SelectionError
from storage.errors import MissingExtra
from tests.pipelines.conftest import change, opened


def stages_run(context: Context) -> list[str]:
    """The stages that ran and their targets, in order."""
    return [" ".join(filter(None, (run["stage"], run["target"]))) for run in runs(context.store)][::-1]


def test_run_all__stages_in_order_and_only_those_the_recipes_need(light: Path) -> None:
    context = opened(light)
    run_all(context, ["any"])
    assert stages_run(context) == ["ingest", "select any", "publish"]
    run_all(context)
    assert stages_run(context)[3:] == [
        "ingest",
        "embed vectors",
        "health vectors",
        "embed_targets vectors",
        "select near",
        "select any",
        "publish",
    ]


def test_run_all__an_unknown_recipe_stops_before_any_work(light: Path) -> None:
    context = opened(light)
    with pytest.raises(UnknownRecipe):
        run_all(context, ["any", "other"])
    assert stages_run(context) == []


def test_run_all__without_faiss_nothing_is_begun(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    change(light, "schedule:", "index: {kind: ivf}\nschedule:")
    context = opened(light)
    with pytest.raises(MissingExtra, match=r"faiss is not installed: pip install"):
        run_all(context)
    assert stages_run(context) == []
    run_all(context, ["any"])  # needs no vectors


def test_run_all__the_stage_that_failed_is_named(light: Path) -> None:
    change(light, "any: {steps: [random], budget: 8}", "any: {steps: [random], budget: 81}")
    said: list[str] = []
    with pytest.raises(RecipesFailed, match=r"^recipe any: .*got 81") as failure:
        run_all(opened(light, said), ["any"])
    assert isinstance(failure.value.errors["any"], SelectionError)
    assert "selection/any: failed" in said


def test_run_all__every_recipe_that_failed_is_named_with_its_error(light: Path) -> None:
    change(light, "any: {steps: [random], budget: 8}", "any: {steps: [random], budget: 81}")
    change(
        light, "recipes:\n", "recipes:\n  good: {steps: [random], budget: 3}\n  more: {steps: [random], budget: 82}\n"
    )
    context = opened(light)
    with pytest.raises(RecipesFailed) as failure:
        run_all(context, ["any", "good", "more"])
    first, *others = str(failure.value).splitlines()
    assert first == "2 of 3 recipes failed:"
    assert [line.split(": ")[0] for line in others] == ["recipe any", "recipe more"]
    assert [re.findall(r"got \d+", line) for line in others] == [["got 81"], ["got 82"]]
    assert stages_run(context)[-1] == "publish"


def test_run_all__what_is_held_back_stops_what_follows(light: Path) -> None:
    run_all(opened(light))
    change(light, "schedule:", "index: {kind: ivf, nprobe: 1, min_recall: 1.0}\nschedule:")
    context = opened(light)
    before = len(stages_run(context))
    with pytest.raises(HeldBack, match=r"vectors/vector_index is held back.* recall_above_floor: recall@10 0\.\d+"):
        run_all(context)
    assert stages_run(context)[before:] == ["ingest", "embed vectors", "health vectors", "index vectors"]
    newest = next(runs(context.store))
    assert (newest["status"], newest["error"]) == ("held_back", None)


def test_run_all__an_index_of_a_failed_check_is_not_the_last_good_one(light: Path) -> None:
    change(light, "schedule:", "index: {kind: ivf, nprobe: 1, min_recall: 1.0}\nschedule:")
    for _ in range(2):  # the index is there the second time, and still not good enough
        with pytest.raises(HeldBack):
            run_all(opened(light))
