"""A night of which a check fails keeps the selections and exports of the night before, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import HeldBack, RecipesFailed
from pipelines.run import run_and_report
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.health import health
from pipelines.stages.index import index
from pipelines.stages.ingest import ingest
from pipelines.stages.select import select
from pipelines.stages.stage import Stage
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened
from tests.pipelines.orchestration.conftest import failing, materialize
from tests.quick import torture_last

GATES = [
    (ingest, "rows_accounted_for"),
    (index, "recall_above_floor"),
    (select, "no_target_leaked"),
    (embed, "every_row_has_a_vector"),
    (embed_targets, "every_row_has_a_vector"),
    (health, "rows_are_apart"),
    (decontaminate, "recall_above_floor"),
    *((select, check) for check in select.checks if check != "no_target_leaked"),
]


def published(project: Path) -> dict[str, Any]:
    """What a reader of the catalog or of the export finds."""
    latest = "SELECT recipe, selection_id FROM latest_selections ORDER BY recipe"
    files = sorted(path for path in (project / "exports" / "near").rglob("*") if path.is_file())
    assert files
    return {
        "latest": query_catalog(Store(project / "store"), latest).to_pylist(),
        "export": [(path.name, path.read_bytes()) for path in files],
    }


def run_here(project: Path) -> str:
    with pytest.raises((HeldBack, RecipesFailed)) as raised:
        run_and_report(opened(project))
    return str(raised.value)


def run_in_dagster(project: Path) -> str:
    result = materialize(project)
    assert not result.success
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    return " ".join([check.check_name for check in failed])


@pytest.mark.slow
@pytest.mark.parametrize("run", [run_here, run_in_dagster])
@pytest.mark.parametrize(
    ("stage", "check"), torture_last(3, GATES), ids=lambda value: value.name if isinstance(value, Stage) else value
)
def test_gate__a_failed_check_keeps_what_was_published(light: Path, stage: Stage, check: str, run: Any) -> None:
    change(light, "any: {steps: [random], budget: 8}", "")
    change(light, "recipes: [any]", "recipes: [near]")
    change(light, "recipes:\n", "index: {kind: ivf}\nhealth: {blocking: true}\ndecontamination: {}\nrecipes:\n")
    change(light, "schedule:", "exports:\n  near: {recipe: near, to: messages}\nschedule:")
    run_and_report(opened(light))
    before = published(light)

    write_rows(light / "data" / "c.jsonl", [row(n, "fox") for n in range(10, 20)])  # which `near` would take
    with failing(stage, check):
        said = run(light)
    assert check in said
    assert published(light) == before
    run_and_report(opened(light))
    assert published(light) != before
