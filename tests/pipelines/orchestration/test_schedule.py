"""The nightly schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions import freshness_evaluator
from dagster._utils.schedules import cron_string_iterator

from pipelines.config.load import load_config
from pipelines.orchestration.definitions import build_definitions
from pipelines.orchestration.schedule import freshness
from tests.pipelines.conftest import change
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


def nights(cron: str, zone: str, first: str, count: int) -> list[datetime]:
    """The times from midnight of a day at which Dagster starts a schedule."""
    midnight = datetime.fromisoformat(first).replace(tzinfo=ZoneInfo(zone))
    times: Iterator[datetime] = cron_string_iterator(midnight.timestamp(), cron, zone)
    return [next(times) for _ in range(count)]


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 2 * * *", "0 3 * * *", "30 1 * * *"])
@pytest.mark.parametrize(
    ("zone", "spring", "autumn"),
    [
        ("Europe/Vienna", "2026-03-28", "2026-10-24"),
        ("America/New_York", "2026-03-07", "2026-10-31"),
        ("Australia/Lord_Howe", "2026-10-03", "2026-04-04"),  # half an hour
    ],
)
def test_schedule__each_night_comes_once_where_clocks_are_changed(
    cron: str, zone: str, spring: str, autumn: str
) -> None:
    for first in (spring, autumn):
        dates = [date.fromisoformat(first) + timedelta(days=n) for n in range(4)]
        assert [time.date() for time in nights(cron, zone, first, 4)] == dates
    night = nights("30 2 * * *", "Europe/Vienna", "2026-03-29", 1)[0]
    assert night.isoformat() == "2026-03-29T03:00:00+02:00"  # there is no 02:30
    night = nights("30 2 * * *", "Europe/Vienna", "2026-10-25", 1)[0]
    assert night.isoformat() == "2026-10-25T02:30:00+01:00"  # of two, the second


def state_at(policy: dg.FreshnessPolicy, now: datetime, made: datetime, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Dagster says at a time of an asset that was made at another."""

    async def record(*_: object) -> SimpleNamespace:
        event = SimpleNamespace(timestamp=made.timestamp())
        return SimpleNamespace(asset_entry=SimpleNamespace(last_materialization=event))

    monkeypatch.setattr(freshness_evaluator.AssetRecord, "gen", record)
    monkeypatch.setattr(freshness_evaluator, "get_current_datetime", lambda zone: now.astimezone(ZoneInfo(zone)))
    node = SimpleNamespace(freshness_policy_or_from_metadata=policy, key=None)
    evaluator = freshness_evaluator.CronFreshnessPolicyEvaluator()
    return str(asyncio.run(evaluator.evaluate_freshness(None, node)).value)  # type: ignore[arg-type]


@pytest.mark.parametrize("first", ["2026-03-28", "2026-10-24", "2026-06-01"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 22 * * *", "*/30 * * * *"])
def test_freshness__a_night_that_did_not_come_is_overdue(
    light: Path, monkeypatch: pytest.MonkeyPatch, first: str, cron: str
) -> None:
    change(light, '"30 3 * * *"', f'"{cron}"')
    policy = freshness(load_config(light), "any")
    assert policy is not None
    times, took = nights(cron, "Europe/Vienna", first, 5), timedelta(minutes=5)
    allowed = timedelta(hours=6) if cron.startswith(("30 2", "0 22")) else timedelta(minutes=30)
    for last, night in pairwise(times):
        for late in (timedelta(0), timedelta(hours=3), timedelta(hours=6, minutes=1)):  # after midnight of the next one
            now = min(night + late, times[-1])
            assert state_at(policy, now, max(t for t in times if t + took <= now) + took, monkeypatch) == "PASS"
        overdue = night + allowed + timedelta(minutes=1)
        assert state_at(policy, overdue, last + took if allowed > timedelta(hours=1) else last, monkeypatch) == "FAIL"


def test_freshness__only_what_the_schedule_draws(light: Path) -> None:
    graph = build_definitions(light / "winnow.yaml").resolve_asset_graph()
    policies = {key.to_user_string(): graph.get(key).freshness_policy for key in graph.materializable_asset_keys}
    drawn = dg.FreshnessPolicy.cron("30 9 * * *", timedelta(hours=7), timezone="Europe/Vienna")
    assert {name: policy for name, policy in policies.items() if policy} == {"selection/any": drawn}
