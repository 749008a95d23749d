"""Recipes that add to their last selection."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.plan import plan_lines
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from storage.records import read_selection
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened


def test_top_up__keeps_the_last_rows_in_order_and_adds_to_the_budget(light: Path) -> None:
    change(light, "steps: [rds_plus], budget: 10", "steps: [rds_plus], budget: 10, mode: top_up")
    (first,) = run_all(opened(light), ["near"])
    write_rows(light / "data" / "c.jsonl", [row(n, "fox") for n in range(10, 16)])
    change(light, "budget: 10", "budget: 14")
    (second,) = run_all(opened(light), ["near"])

    store = opened(light).store
    before, after = (read_selection(store, outcome.subject)[1] for outcome in (first, second))
    assert after["id"].to_pylist()[:10] == before["id"].to_pylist()
    assert after["gain"].to_pylist()[:10] == before["gain"].to_pylist()
    assert after["kind"].to_pylist() == ["kept"] * 10 + ["target"] * 4
    assert after["rank"].to_pylist() == list(range(1, 15))
    assert (second.metrics["kept_by_top_up"], second.metrics["drawn"]) == (10, 4)


@pytest.mark.slow
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
    before, after = (read_selection(store, outcome.subject)[1]["id"].to_pylist() for outcome in (first, second))
    kept = second.metrics["kept_by_top_up"]
    assert after[:kept] == [row_id for row_id in before if row_id in after]
    assert kept + second.metrics["drawn"] == len(after) == 40
