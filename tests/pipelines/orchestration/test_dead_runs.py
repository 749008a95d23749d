"""Runs whose process is gone."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from pipelines.orchestration.dead_runs import GONE, end_dead_runs, is_alive
from pipelines.orchestration.definitions import build_definitions

FAILURE, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as made:
        made.event_log_storage.set_concurrency_slots("gpu", 1)
        yield made


def started(instance: dg.DagsterInstance, *processes: int) -> dg.DagsterRun:
    """A run that goes on in a process, or did so in several, and wants the card; one that has no process yet does not."""
    run: dg.DagsterRun = create_run_for_test(instance, status=STARTED)
    for pid in processes:
        instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
    if processes:
        instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "embeddings")
    return run


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    record = instance.get_run_by_id(run.run_id)
    assert record is not None
    return record.status


def holder_of_the_card(instance: dg.DagsterInstance) -> list[str]:
    return [claim.run_id for claim in instance.event_log_storage.get_concurrency_info("gpu").claimed_slots]


def test_dead_runs__end_and_give_the_card_to_the_next(instance: dg.DagsterInstance) -> None:
    lost = started(instance, os.getpid(), ended_process())
    waits, unborn = started(instance, ended_process(), os.getpid()), started(instance)
    assert holder_of_the_card(instance) == [lost.run_id]

    assert end_dead_runs(instance) == [lost.run_id]
    assert [status(instance, run) for run in (lost, waits, unborn)] == [FAILURE, STARTED, STARTED]
    assert instance.all_logs(lost.run_id)[-1].message == GONE
    instance.event_log_storage.claim_concurrency_slot("gpu", waits.run_id, "embeddings")
    assert holder_of_the_card(instance) == [waits.run_id]
    assert end_dead_runs(instance) == []


def test_dead_runs__what_ended_by_itself_is_left_alone_but_for_the_card(instance: dg.DagsterInstance) -> None:
    run = started(instance, ended_process())
    instance.report_run_failed(run, "Run execution process unexpectedly exited")
    assert holder_of_the_card(instance) == [run.run_id]
    assert end_dead_runs(instance) == []
    assert holder_of_the_card(instance) == []
    assert GONE not in [entry.message for entry in instance.all_logs(run.run_id)]


def test_dead_runs__a_run_that_ends_while_it_is_looked_at_has_not_failed(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(instance, os.getpid())

    def ends(*_: object) -> bool:
        instance.report_run_canceled(run)
        return False

    monkeypatch.setattr("pipelines.orchestration.dead_runs.is_alive", ends)
    assert end_dead_runs(instance) == []
    assert status(instance, run) == dg.DagsterRunStatus.CANCELED


def test_dead_runs__the_sensor_is_on_and_says_what_it_did(instance: dg.DagsterInstance, light: Path) -> None:
    sensors: Any = build_definitions(light / "winnow.yaml").sensors
    (sensor,) = (sensor for sensor in sensors if sensor.name == "dead_runs")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    context = dg.build_sensor_context(instance=instance)
    assert sensor(context).skip_message == "every run that goes on has its process"
    run = started(instance, ended_process())
    assert sensor(context).skip_message == f"ended {run.run_id}"


def test_is_alive__not_another_process_of_the_same_id() -> None:
    process = subprocess.Popen(["sleep", "60"])
    now = time.time()
    try:
        assert is_alive(process.pid, now)
        assert not is_alive(process.pid, now - 3600)
    finally:
        process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(process.pid, now)  # dead, though nobody asked how it ended
    process.wait()
    assert not is_alive(process.pid, now)
