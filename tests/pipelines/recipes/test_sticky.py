"""Recipes that replace at most a part of their last selection, over several nights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.diff import diff, noise_of, row_changes
from pipelines.plan import plan_lines
from pipelines.reproduce import reproduce
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.report import report
from pipelines.stages.select import select
from pipelines.why import why
from storage.catalog.query import query_catalog
from storage.ids import from_arrow
from storage.records import read_selection
from tests.conftest import write_rows
from tests.pipelines.conftest import change, opened

RECIPE = "{steps: [{column: {field: quality}}], budget: 10, mode: sticky, max_churn: 0.2}"


def scored(number: int, text: str = "of this quality") -> dict[str, Any]:
    return {"id": f"q{number}", "source": "s", "prompt": f"row {number}", "response": text, "quality": number}


def project_of(folder: Path, recipe: str, numbers: range) -> Path:
    write_rows(folder / "data" / "a.jsonl", [scored(number) for number in numbers])
    (folder / "winnow.yaml").write_text(f"pool: {{files: data/*.jsonl}}\nrecipes:\n  best: {recipe}\n")
    return folder


def night(project: Path, name: str | None = None) -> Any:
    """Ingest, draw and publish; `winnow run` does no more for such a recipe."""
    context = opened(project, invocation=name)
    ingest(context)
    outcome = select(context, "best")
    publish(context)
    return outcome


def numbers(project: Path, outcome: Any) -> list[int]:
    """The qualities of a selection's rows, in rank order."""
    query = "SELECT quality FROM selected_examples WHERE selection_id = ? ORDER BY rank"
    return [line["quality"] for line in query_catalog(opened(project).store, query, [outcome.subject]).to_pylist()]


@pytest.mark.slow
def test_sticky__five_nights_by_hand(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE, range(1, 21))
    first = night(project)
    assert numbers(project, first) == list(range(20, 10, -1))
    assert "sticky_stays" not in first.metrics  # there was nothing to stick to

    # Five better rows come; two may replace the two worst.
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 26)])
    second = night(project)
    assert numbers(project, second) == [25, 24, *range(20, 12, -1)]
    counts = {name: second.metrics[f"sticky_{name}"] for name in ("stays", "held", "replaced", "held_back")}
    assert counts == {"stays": 5, "held": 3, "replaced": 2, "held_back": 3}
    assert (second.metrics["drawn"], second.metrics["sticky_could_not_stay"]) == (7, 0)
    assert (
        "of the last selection 8 rows stay, 3 of them only for max_churn, 2 were replaced, 0 could not"
        in second.summary
    )

    # Nothing changes, so nothing is drawn: what is held back waits for the next change.
    assert night(project).subject == second.subject

    # Two rows leave the pool, whose places are free; one more row may be replaced.
    write_rows(project / "data" / "a.jsonl", [scored(number) for number in range(1, 19)])
    third = night(project)
    assert numbers(project, third) == [25, 24, 23, 22, 21, 18, 17, 16, 15, 14]
    assert third.metrics["sticky_could_not_stay"] == 2

    # A row gets another text, which is another row; it may not stay, and does not count.
    write_rows(project / "data" / "b.jsonl", [scored(24, "and another text"), *map(scored, (21, 22, 23, 25))])
    fourth = night(project)
    assert numbers(project, fourth) == numbers(project, third)
    assert (fourth.metrics["also_in_last"], fourth.metrics["sticky_could_not_stay"]) == (9, 1)

    # A denied row leaves at once, and four better ones come, of which two replace others.
    (project / "denied.txt").write_text("q25\n")
    change(project, "max_churn: 0.2", "max_churn: 0.2, deny: denied.txt")
    write_rows(project / "data" / "c.jsonl", [scored(number) for number in range(31, 35)])
    fifth = night(project)
    assert numbers(project, fifth) == [34, 33, 32, 24, 23, 22, 21, 18, 17, 16]
    for outcome in (first, second, third, fourth, fifth):
        assert "in the same order, with the same gains" in reproduce(opened(project), outcome.subject)


@pytest.mark.slow
def test_sticky__each_change_has_its_cause_in_diff_and_sql(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE.replace("0.2", "0.3"), range(1, 21))
    night(project, "first")
    (project / "denied.txt").write_text("q20\n")
    change(project, "max_churn: 0.3", "max_churn: 0.3, deny: denied.txt")
    write_rows(project / "data" / "a.jsonl", [scored(19, "another text"), *map(scored, range(1, 18)), scored(20)])
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(30, 35)])
    second = night(project, "second")
    report(opened(project, invocation="second"))
    publish(opened(project))

    store = opened(project).store
    page = store.path("report.html").read_text("utf-8")
    assert (
        "4 of the kept were chosen again, 0 stay only because max_churn is 0.3; 3 were replaced by others, "
        "3 could not stay, 0 were held back." in page
    )
    rows = row_changes(opened(project), diff(store, "best", None))
    id_of = {
        line["quality"]: str(line["id"])
        for line in query_catalog(store, "SELECT id, quality FROM pool_rows").to_pylist()
    }
    texts = "SELECT quality, response, id FROM pool_rows WHERE quality = 19 ORDER BY response"
    changed, original = (str(line["id"]) for line in query_catalog(store, texts).to_pylist())
    told = {(line["change"], line["prompt"]): (line["cause"], line["detail"]) for line in rows}
    # 20, 19 and 18 cannot stay, and 34, 33 and 32 take their places; 31, 30 and the new 19 those of 11, 12 and 13.
    assert numbers(project, second) == [34, 33, 32, 31, 30, 19, 17, 16, 15, 14]
    assert told == {
        **{("added", f"row {number}"): ("new_row", None) for number in (30, 31, 32, 33, 34)},
        ("added", "row 19"): ("changed_text", original),
        ("dropped", "row 19"): ("changed_text", changed),
        ("dropped", "row 20"): ("denied", str(project / "denied.txt")),
        ("dropped", "row 18"): ("gone", None),
        ("dropped", "row 11"): ("pushed_out", f"replaced by {id_of[31]}"),
        ("dropped", "row 12"): ("pushed_out", f"replaced by {id_of[30]}"),
        ("dropped", "row 13"): ("pushed_out", f"replaced by {changed}"),
    }
    query = "SELECT change, id, cause, detail FROM selection_changes WHERE invocation = 'second' AND change <> 'kept'"
    in_sql = {
        (line["change"], str(line["id"]), line["cause"], line["detail"])
        for line in query_catalog(store, query).to_pylist()
    }
    assert in_sql == {(line["change"], line["id"], line["cause"], line["detail"]) for line in rows}


@pytest.mark.slow
def test_sticky__a_row_that_was_held_back_says_so_when_it_comes(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE, range(1, 21))
    night(project)
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 25)])
    night(project)
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 26)])
    night(project)
    rows = row_changes(opened(project), diff(opened(project).store, "best", None))
    assert {line["prompt"]: line["cause"] for line in rows if line["change"] == "added"} == {
        "row 25": "new_row",
        "row 22": "held_by_max_churn",
    }


def test_sticky__why_says_of_each_row_what_became_of_it(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE, range(1, 21))
    night(project)
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 24)])
    night(project)

    def answer(name: str) -> Any:
        (said,) = why(opened(project), name)
        return said

    assert answer("q23").detail["sticky"] == f"new: replaces {answer('q11').id}"
    assert answer("q20").detail["sticky"] == "stays: the last selection has it at rank 1"
    held = answer("q13")
    assert (held.detail["reason"], held.detail["rank"]) == ("kept", 10)
    assert held.detail["sticky"] == "stays though the steps would not take it now: the last selection has it at rank 8"
    back = answer("q21")
    assert (back.rule, back.detail["rank_in_fresh_draw"], back.detail["max_churn"]) == ("held_back", 3, 0.2)
    out = answer("q12")
    assert (out.rule, out.detail["ref"], out.detail["ref_text"]) == ("replaced", answer("q22").id, "row 22")
    # Of a row that neither draw wants, the last row taken is one of the draw, not one that is held.
    assert answer("q5").detail["score_of_last_taken"] == 14


def test_sticky__plan_says_how_much_may_be_replaced(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE.replace("0.2", "0.25"), range(1, 21))
    night(project)
    assert plan_lines(opened(project))[-1] == "selection/best: drawn already, nothing to do"
    change(project, "budget: 10", "budget: 11")
    assert plan_lines(opened(project))[-1] == (
        "selection/best: to be drawn; at most 2 rows of the last selection are replaced by others (`max_churn`)"
    )


@pytest.mark.slow
def test_sticky__max_churn_1_is_the_fresh_selection(tmp_path: Path) -> None:
    items = {}
    for mode in ("fresh", "sticky, max_churn: 1"):
        project = project_of(tmp_path / mode[:5], f"{{steps: [random], budget: 10, mode: {mode}}}", range(1, 21))
        night(project)
        write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 41)])
        items[mode[:5]] = read_selection(opened(project).store, night(project).subject)
    (_, fresh), (header, sticky) = items.values()
    assert header["max_churn"] == 1
    columns = ["rank", "id", "gain", "kind", "ref", "ref_rank", "value"]
    assert sticky.select(columns).equals(fresh.select(columns))
    assert header["selection_id"] != items["fresh"][0]["selection_id"]


@pytest.mark.slow
def test_sticky__another_max_churn_or_last_selection_is_another_selection(tmp_path: Path) -> None:
    project = project_of(tmp_path, RECIPE, range(1, 21))
    first = night(project)
    change(project, "mode: sticky, max_churn: 0.2", "mode: fresh")
    assert night(project).subject == first.subject  # the first night has nothing to stick to
    change(project, "mode: fresh", "mode: sticky")
    assert night(project).subject == first.subject  # a fresh draw of the same inputs is what a sticky one would be
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 26)])
    default = night(project)
    assert numbers(project, default) == [25, *range(20, 11, -1)]  # 0.1 of 10
    change(project, "mode: sticky", "mode: sticky, max_churn: 0.2")
    more = night(project)
    assert more.subject != default.subject
    assert numbers(project, more) == [25, 24, 23, *range(20, 13, -1)]
    assert read_selection(opened(project).store, more.subject)[0]["previous"] == default.subject


@pytest.mark.slow
def test_noise__of_a_recipe_without_chance_is_1_and_of_random_what_two_seeds_share(tmp_path: Path) -> None:
    project = project_of(tmp_path / "exact", RECIPE, range(1, 21))
    night(project)
    write_rows(project / "data" / "b.jsonl", [scored(number) for number in range(21, 26)])
    night(project)
    assert noise_of(opened(project), diff(opened(project).store, "best", None)) == 1.0

    project = project_of(tmp_path / "random", "{steps: [random], budget: 10}", range(1, 21))
    night(project)
    change(project, "budget: 10", "budget: 10, seed: 3")
    second = night(project)
    context = opened(project)
    floor = noise_of(context, diff(context.store, "best", None))
    change(project, "seed: 3", "seed: 2")
    ours, theirs = (
        set(from_arrow(read_selection(context.store, each.subject)[1]["id"])) for each in (second, night(project))
    )
    assert floor == round(len(ours & theirs) / len(ours | theirs), 4) < 1
    query = "SELECT value FROM metrics WHERE selection_id = ? AND name = 'overlap_with_another_seed'"
    assert query_catalog(context.store, query, [second.subject]).to_pylist() == [{"value": floor}]
    assert noise_of(context, diff(context.store, second.subject, second.subject)) == floor
