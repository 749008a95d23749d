"""The stages as Dagster sees them: assets, checks, schedule and sensor of one project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.orchestration import asset as asset_module
from pipelines.orchestration.asset import Project
from pipelines.orchestration.assets import build_definitions
from pipelines.runs import runs
from pipelines.stages import publish as publish_stage
from storage.catalog.publish import publish_catalog
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change

KEYS = [
    "catalog",
    "pool",
    "selection/any",
    "selection/near",
    "vectors/embeddings",
    "vectors/target_embeddings",
    "vectors/vector_index",
]


def materialize(project: Path, keys: list[str] | None = None) -> dg.ExecuteInProcessResult:
    """All assets, or some, in this process; no retry waits."""
    definitions = build_definitions(project / "winnow.yaml")
    return dg.materialize(
        list(definitions.assets or ()),
        resources={"project": Project(config_path=str(project / "winnow.yaml"))},
        selection=keys,
        raise_on_error=False,
    )


def store_of(project: Path) -> Store:
    return Store(project / "store")


def job_keys(definitions: dg.Definitions, job: str) -> list[str]:
    return sorted(key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.selected_asset_keys)


@pytest.mark.parametrize("kind", ["own vectors", "a model"])
def test_definitions__every_asset_is_described_owned_and_checked(light: Path, project: Path, kind: str) -> None:
    definitions = build_definitions((light if kind == "own vectors" else project) / "winnow.yaml")
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    checked = {check.asset_key for check in graph.asset_check_keys}
    assert len(graph.materializable_asset_keys) == len(KEYS) + (kind == "a model")
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert node.kinds, key
        assert node.group_name in {"pool", "vectors", "selections", "catalog"}, key
        assert node.owners == ["team:data"], key
        assert key in checked, key
    for asset in definitions.assets or ():
        assert isinstance(asset, dg.AssetsDefinition)
        for spec in asset.check_specs:
            assert spec.blocking, spec
            assert spec.description, spec


def test_definitions__lineage_and_a_code_version_that_follows_the_recipe(light: Path) -> None:
    def versions() -> dict[str, str | None]:
        graph = build_definitions(light / "winnow.yaml").resolve_asset_graph()
        return {
            key.to_user_string(): graph.get(key).code_version
            for key in graph.materializable_asset_keys
            if key.path[0] == "selection"
        }

    graph = build_definitions(light / "winnow.yaml").resolve_asset_graph()
    assert sorted(key.to_user_string() for key in graph.materializable_asset_keys) == KEYS
    parents = {
        key.to_user_string(): sorted(parent.to_user_string() for parent in graph.get(key).parent_keys)
        for key in graph.materializable_asset_keys
    }
    assert parents["selection/near"] == ["pool", "vectors/target_embeddings", "vectors/vector_index"]
    assert parents["selection/any"] == ["pool"]
    assert parents["catalog"] == ["selection/any", "selection/near"]

    before = versions()
    change(light, "budget: 8", "budget: 9")
    after = versions()
    assert before["selection/near"] == after["selection/near"]
    assert before["selection/any"] != after["selection/any"]


def test_definitions__a_wrong_configuration_is_its_message(light: Path) -> None:
    change(light, "budget: 8", "bugdet: 8")
    with pytest.raises(ValueError, match=r"recipes\.any\.bugdet: unknown key"):
        build_definitions(light / "winnow.yaml")


def test_materialize__all_assets_pass_their_checks_and_fill_the_catalog(light: Path) -> None:
    result = materialize(light)
    assert result.success
    made = {event.asset_key.to_user_string(): event for event in result.get_asset_materialization_events()}
    assert sorted(made) == KEYS
    checks = result.get_asset_check_evaluations()
    assert all(check.passed for check in checks)
    assert len(checks) == 1 + 1 + 1 + 1 + 2 * 5 + 1

    near = made["selection/near"].materialization
    metadata = near.metadata
    chosen = metadata["selection_id"].value
    assert near.tags["dagster/data_version"] == chosen
    assert metadata["rows"].value == 10
    assert len(metadata["first_rows"].records) == 10
    assert chosen in metadata["sql"].value

    # The steps of one Dagster run are one invocation with one configuration; what the UI has, SQL has.
    recorded = list(runs(store_of(light)))
    assert {run["invocation"] for run in recorded} == {result.run_id}
    assert len({run["config_digest"] for run in recorded}) == 1
    found = query_catalog(store_of(light), "SELECT selection_id FROM latest_selections WHERE recipe = 'near'")
    assert found[0].to_pylist() == [chosen]


def test_materialize__with_the_tiny_model(project: Path) -> None:
    result = materialize(project, ["pool", "tiny/embeddings"])
    assert result.success
    event = result.get_asset_materialization_events()[-1]
    assert event.materialization.metadata["encoded"].value == 120


def test_materialize__a_users_mistake_is_a_failure_without_traceback_or_retry(light: Path) -> None:
    change(light, "budget: 8", "budget: 800")
    result = materialize(light, ["pool", "selection/any"])
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure: Any = event.event_specific_data
    assert failure.error.cls_name == "Failure"
    assert failure.error.cause is None
    assert failure.error.context is None
    assert "800" in failure.user_failure_data.description
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_materialize__what_the_disk_refuses_is_tried_again(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def full_at_first(store: Store) -> Path:
        if not failed:
            failed.append(1)
            raise OSError(28, "No space left on device")
        return publish_catalog(store)

    monkeypatch.setattr(publish_stage, "publish_catalog", full_at_first)
    monkeypatch.setattr(asset_module, "RETRY_AFTER_S", 0)
    result = materialize(light, ["pool", "selection/any", "catalog"])
    assert result.success
    assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 1


def test_materialize__a_failed_check_blocks_what_follows(light: Path) -> None:
    keys = ["pool", "selection/any", "catalog"]
    assert materialize(light, keys).success
    latest = "SELECT selection_id FROM latest_selections"
    before = query_catalog(Store(light / "store"), latest)
    change(light, "budget: 8", "budget: 8, seed: 1, min_overlap: 1.0")
    result = materialize(light, keys)
    assert not result.success
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == [
        "overlap_above_floor"
    ]
    assert "catalog" not in {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert query_catalog(Store(light / "store"), latest).equals(before)


def test_schedule__cron_timezone_and_what_it_materializes(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = build_definitions(light / "winnow.yaml")
    (schedule,) = definitions.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 3 * * *", "Europe/Vienna")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert job_keys(definitions, "nightly") == ["catalog", "pool", "selection/any"]
    assert job_keys(definitions, "reselect") == KEYS

    monkeypatch.setenv("WINNOW_AUTOSTART", "1")
    (schedule,) = build_definitions(light / "winnow.yaml").schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_schedule__none_where_none_is_asked_for(light: Path) -> None:
    text = (light / "winnow.yaml").read_text()
    (light / "winnow.yaml").write_text(text[: text.index("schedule:")])
    assert not build_definitions(light / "winnow.yaml").schedules


def look(project: Path, cursor: str | None) -> Any:
    (sensor,) = build_definitions(project / "winnow.yaml").sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    return sensor(dg.build_sensor_context(cursor=cursor))


def test_sensor__remembers_at_first_and_then_asks_for_a_run_at_each_change(light: Path) -> None:
    first = look(light, None)
    assert not first.run_requests
    assert isinstance(look(light, first.cursor), dg.SkipReason)

    cursor, new = first.cursor, light / "data" / "c.jsonl"
    for step in ("a new file", "it is gone again", "it is back", "a target", "a vector", "a list of ids"):
        if step == "a new file":
            write_rows(new, [row(11, "fox")])
        elif step == "it is gone again":
            new.rename(light / "aside")
        elif step == "it is back":
            (light / "aside").rename(new)
        elif step == "a target":
            write_rows(light / "targets" / "foxes.jsonl", [row(100, "fox"), row(101, "fox"), row(102, "fox")])
        elif step == "a vector":
            (light / "vectors" / "foxes.ids.txt").write_text("fox-101\nfox-100\nfox-102\n")
        else:
            (light / "deny.txt").write_text("fox-1\n")
            change(light, "budget: 8", "budget: 8, deny: deny.txt")
        seen = look(light, cursor)
        assert len(seen.run_requests) == 1, step
        assert seen.run_requests[0].run_key is None
        assert isinstance(look(light, seen.cursor), dg.SkipReason), step
        cursor = seen.cursor


def test_sensor__a_configuration_that_is_wrong_just_now_is_a_reason_to_skip(light: Path) -> None:
    (sensor,) = build_definitions(light / "winnow.yaml").sensors or ()
    assert isinstance(sensor, dg.SensorDefinition)
    for file in (light / "data").iterdir():
        file.unlink()
    skipped = sensor(dg.build_sensor_context(cursor="x"))
    assert isinstance(skipped, dg.SkipReason)
    assert "no file matches 'data/*.jsonl'" in (skipped.skip_message or "")
