"""The stages as Dagster assets."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pytest

from pipelines.runs import runs
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.pipelines.conftest import change, opened
from tests.pipelines.orchestration.conftest import KEYS, materialize


def test_materialize__all_assets_pass_their_checks_and_fill_the_catalog(light: Path) -> None:
    result = materialize(light)
    assert result.success
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert sorted(made) == KEYS
    checks = result.get_asset_check_evaluations()
    assert all(check.passed for check in checks)
    assert len(checks) == 2 + 1 + 1 + 6 + 2 * 7 + 1 + 2

    near = made["selection/near"].materialization
    metadata = near.metadata
    chosen = metadata["selection_id"].value
    assert near.tags["dagster/data_version"] == chosen
    assert metadata["rows"].value == 10
    assert len(metadata["first_rows"].records) == 10
    assert chosen in metadata["sql"].value

    # The steps of one Dagster run are one invocation with one configuration; what the UI has, SQL has.
    recorded = list(runs(Store(light / "store")))
    assert {run["invocation"] for run in recorded} == {result.run_id}
    assert len({run["config_digest"] for run in recorded}) == 1
    found = query_catalog(Store(light / "store"), "SELECT selection_id FROM latest_selections WHERE recipe = 'near'")
    assert found[0].to_pylist() == [chosen]


@pytest.mark.slow
def test_materialize__with_the_tiny_model(project: Path) -> None:
    result = materialize(project, ["pool", "tiny/embeddings"])
    assert result.success
    event = result.get_asset_materialization_events()[-1]
    assert event.materialization.metadata["encoded"].value == 120


def test_materialize__a_failed_recipe_leaves_the_others_the_catalog_and_the_report_green(light: Path) -> None:
    change(light, "budget: 8", "budget: 800")  # `any` fails
    change(light, "schedule:", "exports: {a: {recipe: any, to: messages}, n: {recipe: near, to: messages}}\nschedule:")
    result = materialize(light)
    assert not result.success
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert sorted(made) == sorted([*KEYS, "export/n"])
    assert made["selection/any"].materialization.tags["dagster/data_version"] == "none"
    failed = {event.step_key for event in result.all_events if event.is_step_failure}
    assert failed == {"export__a", "report_every_stage_passed"}
    checks = {
        (check.asset_key.to_user_string(), check.check_name): check for check in result.get_asset_check_evaluations()
    }
    assert not checks["selection/any", "made"].passed
    assert "800" in str(checks["selection/any", "made"].metadata["detail"].value)
    assert all(check.passed for (asset, _), check in checks.items() if asset in ("selection/near", "catalog", "pool"))
    assert checks["report", "every_stage_passed"].metadata["detail"].value == "select any: failed"
    assert (
        made["report"]
        .materialization.metadata["verdict"]
        .value.startswith("Published: 1 recipe, 10 rows; failed: select any")
    )


@pytest.mark.slow
def test_materialize__a_recipe_that_is_held_back_leaves_the_catalog_green(light: Path) -> None:
    keys = ["pool", "selection/any", "catalog"]
    assert materialize(light, keys).success
    latest = "SELECT selection_id FROM latest_selections"
    before = query_catalog(Store(light / "store"), latest)
    change(light, "budget: 8", "budget: 8, seed: 1, min_overlap: 1.0")
    result = materialize(light, keys)
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == [
        "overlap_above_floor"
    ]
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert "catalog" in made
    summary = made["selection/any"].materialization.metadata["summary"].value
    assert summary.startswith("held back, what was made before stays (overlap_above_floor: Jaccard ")
    assert query_catalog(Store(light / "store"), latest).equals(before)


@pytest.mark.slow
def test_materialize__evaluation_texts_are_looked_for_before_what_chooses_rows(light: Path) -> None:
    change(light, "recipes:\n", "decontamination: {recall_floor: 0.5}\nrecipes:\n")
    result = materialize(light, ["pool", "decontamination", "selection/any", "catalog"])
    assert result.success
    made = [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]
    assert made.index("decontamination") < made.index("selection/any")
    checks = [
        check.check_name
        for check in result.get_asset_check_evaluations()
        if check.asset_key.to_user_string() == "decontamination"
    ]
    assert checks == ["recall_above_floor", "planted_examples_similar"]
    recall = query_catalog(Store(light / "store"), "SELECT recall FROM contamination_recall WHERE promised").to_pylist()
    assert [each["recall"] for each in recall] == [1.0] * 3


@pytest.mark.slow
def test_materialize__texts_of_rows_stand_in_no_markdown(light: Path) -> None:
    hostile = "# heading <script>alert(1)</script> [link](javascript:alert(1)) ```\n| a |"
    rows = [
        {"id": f"hostile-{n}", "source": hostile, "prompt": f"{hostile} {n}", "response": hostile} for n in range(3)
    ]
    with (light / "data" / "a.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    change(light, "budget: 8}", "budget: 83}")
    result = materialize(light, ["pool", "selection/any", "catalog", "report"])
    assert result.success
    made = {
        event.asset_key.to_user_string(): event.materialization for event in result.get_asset_materialization_events()
    }
    kinds = {dg.MarkdownMetadataValue, dg.TextMetadataValue, dg.TableMetadataValue}
    shown = [value for each in made.values() for value in each.metadata.values() if type(value) in kinds]
    holding = [value for value in shown if "<script>" in str(value)]
    assert {type(value) for value in holding} == {dg.TableMetadataValue}
    report = made["report"].metadata
    assert report["verdict"].value == "Published: 1 recipe, 83 rows."
    assert report["by_recipe"].records[0].data["rows"] == 83


def test_materialize__a_run_says_where_its_work_is_done(light: Path) -> None:
    change(light, "pool:\n", "engine: {kind: ray, address: 'nowhere:1', workers: 2}\npool:\n")
    result = materialize(light, ["pool"], {"resources": {"engine": {"config": {"kind": "local"}}}})
    assert result.success
    (recorded,) = runs(Store(light / "store"))
    assert recorded["config_digest"] == opened(light).config.digest

    result = materialize(light, ["pool"], {"resources": {"engine": {"config": {"kind": "spark"}}}})
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert "override: engine.kind: must be one of local, ray, found 'spark'" in event.step_failure_data.error.message
