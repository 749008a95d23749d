"""What is wrong with a recipe is said once the pool is read, before anything is encoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import RecipesFailed
from pipelines.recipes.check import check_recipe
from pipelines.run import run_all
from pipelines.runs import runs
from pipelines.stages.ingest import ingest
from storage.errors import BadInput
from storage.pool.condition import unknown_in
from tests.pipelines.conftest import change, opened

COLUMNS = ["prompt", "response", "topic", "x"]


@pytest.mark.parametrize(
    "expression",
    [
        "TOPIC = 'a' AND x BETWEEN 1 AND 2",
        "list_transform([1, 2], y -> y + 1)[1] > x",
        "len([q FOR q IN [1, 2] IF q > 1]) > 0",
        "x IN (SELECT max(x) FROM examples)",
        "examples.topic LIKE 'a%' AND NOT x::INT ** 2 // 3 > 1",
        "extract('year' FROM x) > 2000 OR trim(BOTH ' ' FROM prompt) ~ 'a'",
        "{'a': 1}.a = 1 AND CASE WHEN x > 1 THEN true ELSE false END",
    ],
)
def test_unknown_in__knows_what_duckdb_knows(expression: str) -> None:
    assert unknown_in(expression, COLUMNS) is None


def test_unknown_in__names_the_first_that_is_not_there() -> None:
    assert unknown_in("x > 1 AND topc = 'a'", COLUMNS) == "the column topc"
    assert unknown_in("lenght(prompt) > 1", COLUMNS) == "the function lenght"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("where: \"sorce = 'fox'\"", r"names the column sorce, which is not there \(did you mean `source`\?\)"),
        ("where: lenght(prompt) > 2", "names the function lenght, which is not there"),
        ("group_by: talk", "no column 'talk'; known are empty_response, "),
        ("quota: {by: lang, balance: water_fill}", "no column 'lang'"),
        ("allow: ids.txt", "ids.txt: line 1: 'nobody' names no row of the pool"),
    ],
)
def test_check_recipe__before_any_work(light: Path, wrong: str, message: str) -> None:
    (light / "ids.txt").write_text("nobody\n")
    change(light, "any: {steps: [random], budget: 8}", f"any: {{steps: [random], budget: 8, {wrong}}}")
    context = opened(light)
    ingest(context)
    context.reopen_pool()
    check_recipe(context.pool, context.config.recipes["near"])
    with pytest.raises(BadInput, match=message):
        check_recipe(context.pool, context.config.recipes["any"])


def test_run_all__says_it_before_the_others_are_embedded(light: Path) -> None:
    change(light, "any: {steps: [random], budget: 8}", "any: {steps: [random], budget: 8, where: lenght(prompt) > 2}")
    context = opened(light)
    with pytest.raises(RecipesFailed, match="recipe any: where: "):
        run_all(context)
    stages = [(run["stage"], run["status"]) for run in reversed(list(runs(context.store)))]
    assert stages[:2] == [("ingest", "ok"), ("select", "failed")]
    assert ("select", "ok") in stages  # the other is drawn
