"""The stages in order: which run, what stops them, and what a plan says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipelines.context import Context, open_context
from pipelines.diff import diff_tables
from pipelines.errors import HeldBack, RecipesFailed, UnknownRecipe
from pipelines.plan import plan_lines
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from pipelines.runs import runs
from selection.errors import SelectionError
from storage.errors import MissingExtra, NotInStore
from storage.records import read_selection
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, write_vectors


def opened(project: Path, said: list[str] | None = None) -> Context:
    return open_context(project, Log((said if said is not None else []).append))


def stages_run(context: Context) -> list[str]:
    """What ran, in order."""
    found = [" ".join(filter(None, (run["stage"], run["target"]))) for run in runs(context.store)]
    return found[::-1]


def test_run_all__stages_in_order_and_only_those_the_recipes_need(light: Path) -> None:
    context = opened(light)
    run_all(context, ["any"])
    assert stages_run(context) == ["ingest", "select any", "publish"]
    run_all(context)
    assert stages_run(context)[3:] == [
        "ingest",
        "embed vectors",
        "index vectors",
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
    assert [line[-6:] for line in others] == ["got 81", "got 82"]
    assert stages_run(context)[-1] == "publish"


def test_run_all__what_is_held_back_stops_what_follows(light: Path) -> None:
    run_all(opened(light))
    change(light, "schedule:", "index: {kind: ivf, nprobe: 1, min_recall: 1.0}\nschedule:")
    context = opened(light)
    before = len(stages_run(context))
    with pytest.raises(HeldBack, match=r"vectors/vector_index is held back.* recall_above_floor: recall@10 0\.\d+"):
        run_all(context)
    assert stages_run(context)[before:] == ["ingest", "embed vectors", "index vectors"]
    newest = next(runs(context.store))
    assert (newest["status"], newest["error"]) == ("held_back", None)


def test_run_all__an_index_of_a_failed_check_is_not_the_last_good_one(light: Path) -> None:
    change(light, "schedule:", "index: {kind: ivf, nprobe: 1, min_recall: 1.0}\nschedule:")
    for _ in range(2):  # the index is there the second time, and still not good enough
        with pytest.raises(HeldBack):
            run_all(opened(light))


def test_plan_lines__changed_columns_are_a_changed_pool(light: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(score: float) -> None:
        pq.write_table(pa.table({"id": ["fox-1"], "score": [score]}), light / "scores.parquet")

    write(1.0)
    change(light, "pool:\n", "pool:\n  columns: scores.parquet\n")
    run_all(opened(light))
    assert plan_lines(opened(light))[-1] == "selection/any: drawn already, nothing to do"
    write(2.0)
    assert plan_lines(opened(light))[-1] == "the rest is known once the pool has been read"


def test_plan_lines__files_of_the_same_bytes_are_one(light: Path) -> None:
    (light / "data" / "copy.jsonl").write_bytes((light / "data" / "a.jsonl").read_bytes())
    run_all(opened(light))
    lines = plan_lines(opened(light))
    assert lines[:2] == ["pool: 3 files, 0 of them new or changed", "snapshot: 80 rows"]


def test_top_up__keeps_the_last_rows_in_order_and_adds_to_the_budget(light: Path) -> None:
    change(light, "steps: [rds_plus], budget: 10", "steps: [rds_plus], budget: 10, mode: top_up")
    (first,) = run_all(opened(light), ["near"])
    write_rows(light / "data" / "c.jsonl", [row(n, "fox") for n in range(10, 16)])
    change(light, "budget: 10", "budget: 14")
    (second,) = run_all(opened(light), ["near"])

    store = opened(light).store
    before, after = (read_selection(store, one.subject)[1] for one in (first, second))
    assert after["id"].to_pylist()[:10] == before["id"].to_pylist()
    assert after["gain"].to_pylist()[:10] == before["gain"].to_pylist()
    assert after["kind"].to_pylist() == ["kept"] * 10 + ["target"] * 4
    assert after["rank"].to_pylist() == list(range(1, 15))
    assert (second.metrics["kept_from_last"], second.metrics["new_rows"]) == (10, 4)


def test_top_up__with_nothing_new_is_the_same_selection(light: Path) -> None:
    change(light, "steps: [random], budget: 8", "steps: [random], budget: 8, mode: top_up")
    (first,) = run_all(opened(light), ["any"])
    assert plan_lines(opened(light))[-1] == "selection/any: drawn already, nothing to do"
    (second,) = run_all(opened(light), ["any"])
    change(light, "budget: 8", "budget: 9")
    (third,) = run_all(opened(light), ["any"])
    (fourth,) = run_all(opened(light), ["any"])
    assert second.subject == first.subject != third.subject == fourth.subject
    assert "the same 9 rows" in reproduce(opened(light), third.subject)


def test_top_up__rows_that_left_the_pool_are_replaced(light: Path) -> None:
    change(light, "steps: [random], budget: 8", "steps: [random], budget: 40, mode: top_up")
    (first,) = run_all(opened(light), ["any"])
    (light / "data" / "b.jsonl").unlink()
    (second,) = run_all(opened(light), ["any"])
    store = opened(light).store
    before, after = (read_selection(store, one.subject)[1]["id"].to_pylist() for one in (first, second))
    kept = second.metrics["kept_from_last"]
    assert after[:kept] == [one for one in before if one in after]
    assert kept + second.metrics["new_rows"] == len(after) == 40


def test_reproduce__target_sets_keep_their_turns(light: Path) -> None:
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (100, 101)])
    write_vectors(light / "vectors" / "dogs.npy", ["dog-100", "dog-101"])
    foxes = "  foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy}\n"
    change(light, foxes, foxes + foxes.replace("foxes", "dogs"))
    context = opened(light)
    (outcome,) = run_all(context, ["near"])
    assert read_selection(context.store, outcome.subject)[1]["ref"][0].as_py() == "foxes"
    assert "the same 10 rows in the same order" in reproduce(opened(light), outcome.subject)


def test_reproduce__of_a_changed_record_is_held_back(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (outcome,) = run_all(opened(light), ["any"])
    context = opened(light)
    header, items = read_selection(context.store, outcome.subject)
    reversed_ = items.set_column(1, "id", items["id"].take(list(range(len(items)))[::-1]))
    monkeypatch.setattr("pipelines.reproduce.read_selection", lambda *_: (header, reversed_))
    with pytest.raises(HeldBack, match=r"is not reproduced: 8 of 8 rows are the same\. It was drawn by"):
        reproduce(context, outcome.subject)


def test_diff_tables__of_what_is_not_published_yet_is_refused(light: Path) -> None:
    (first,) = run_all(opened(light), ["any"])
    from pipelines.stages.publish import publish
    from pipelines.stages.select import select

    change(light, "budget: 8", "budget: 9")
    second = select(opened(light), "any")
    store = opened(light).store
    with pytest.raises(NotInStore, match=f"no selection '{second.subject}' in the published catalog"):
        diff_tables(store, "any", None)
    publish(opened(light))
    assert diff_tables(store, "any", None)[0][0] == f"from {first.subject} to {second.subject}"
