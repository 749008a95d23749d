"""The nightly schedule."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from pipelines.orchestration.definitions import build_definitions
from tests.pipelines.orchestration.conftest import KEYS


def job_keys(definitions: dg.Definitions, job: str) -> list[str]:
    return sorted(key.to_user_string() for key in definitions.resolve_job_def(job).asset_layer.selected_asset_keys)


def test_schedule__cron_timezone_and_what_it_materializes(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = build_definitions(light / "winnow.yaml")
    (schedule,) = definitions.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 3 * * *", "Europe/Vienna")
    assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
    assert job_keys(definitions, "nightly") == ["catalog", "pool", "report", "selection/any"]
    assert job_keys(definitions, "reselect") == KEYS
    for job in ("nightly", "reselect"):  # what makes a run red in which a recipe failed
        assert "report_every_stage_passed" in {node.name for node in definitions.resolve_job_def(job).nodes}

    monkeypatch.setenv("WINNOW_AUTOSTART", "1")
    (schedule,) = build_definitions(light / "winnow.yaml").schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_schedule__none_where_none_is_asked_for(light: Path) -> None:
    text = (light / "winnow.yaml").read_text()
    (light / "winnow.yaml").write_text(text[: text.index("schedule:")])
    assert not build_definitions(light / "winnow.yaml").schedules


def test_schedule__ends_in_the_exports_of_its_recipes(light: Path) -> None:
    with (light / "winnow.yaml").open("a") as file:
        file.write("exports: {mine: {recipe: any, to: ids}, other: {recipe: near, to: ids}}\n")
    definitions = build_definitions(light / "winnow.yaml")
    assert job_keys(definitions, "nightly") == ["catalog", "export/mine", "pool", "report", "selection/any"]
    assert job_keys(definitions, "reselect") == sorted([*KEYS, "export/mine", "export/other"])
