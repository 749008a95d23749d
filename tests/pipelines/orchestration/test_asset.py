"""One asset around one stage: what a failure of the stage becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines import runs as runs_module
from pipelines.orchestration import asset as asset_module
from pipelines.orchestration.asset import failed_stages
from pipelines.stages import publish as publish_stage
from pipelines.stages.index import index
from pipelines.stages.stage import record_run
from storage.catalog.publish import publish_catalog
from storage.damage import readable
from storage.store import Store
from tests.pipelines.conftest import change, opened
from tests.pipelines.orchestration.conftest import failing, materialize


def test_materialize__a_users_mistake_is_a_failure_without_traceback_or_retry(light: Path) -> None:
    (light / "data" / "a.jsonl").write_text("no JSON\n")
    result = materialize(light, ["pool", "selection/any"])
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure: Any = event.event_specific_data
    assert failure.error.cls_name == "Failure"
    assert failure.error.cause is None
    assert failure.error.context is None
    assert "not JSON" in failure.user_failure_data.description
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_materialize__what_the_disk_refuses_is_tried_again(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def full_at_first(store: Store) -> Path:
        if not failed:
            failed.append(1)
            raise OSError(28, "No space left on device")
        return publish_catalog(store)

    monkeypatch.setattr(publish_stage, "publish_catalog", full_at_first)
    monkeypatch.setattr(asset_module, "RETRY", dg.RetryPolicy(max_retries=3))
    result = materialize(light, ["pool", "selection/any", "catalog"])
    assert result.success
    assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 1


def test_retry__waits_longer_each_time_and_not_together() -> None:
    assert asset_module.RETRY.max_retries == 3
    waits = [[asset_module.RETRY.calculate_delay(n) for _ in range(200)] for n in (1, 2, 3)]
    assert [(min(each) // 30 * 30, max(each) // 30 * 30) for each in waits] == [(0, 30), (60, 90), (180, 210)]


def test_materialize__a_defect_is_not_tried_again(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(store: Store) -> Path:
        raise TypeError("a defect")

    monkeypatch.setattr(publish_stage, "publish_catalog", wrong)
    monkeypatch.setattr(asset_module, "RETRY", dg.RetryPolicy(max_retries=3))
    result = materialize(light, ["pool"])
    assert result.success
    result = materialize(light, ["pool", "selection/any"])
    (event,) = [event for event in result.all_events if event.is_step_failure]
    failure: Any = event.event_specific_data
    assert failure.user_failure_data.description == "TypeError: a defect"
    assert failure.error.cause.cls_name == "TypeError"
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_materialize__a_failed_check_is_not_tried_again(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asset_module, "RETRY", dg.RetryPolicy(max_retries=3))
    change(light, "pool:\n", "index: {kind: ivf}\npool:\n")
    with failing(index):
        result = materialize(light, ["pool", "vectors/embeddings", "vectors/vector_index"])
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["vectors__vector_index"]
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_failed_stages__of_this_run_without_reading_the_nights_before(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def noted(store: Store, kind: str, name: str) -> Any:
        read.append(name)
        return readable(store, kind, name)

    monkeypatch.setattr(runs_module, "readable", noted)
    for name in ("night 1", "night 2", "night 3"):
        night = opened(light, invocation=name)
        record_run(night, "select", "any", status="failed")
        record_run(night, "select", "near", status="held_back")
        record_run(night, "select", "any")
        again = opened(light, invocation=name)  # a later step
        assert failed_stages(again) == {("select", "near"): "held_back"}
    assert len(read) == 9

    pinned = night.store.path("configs", "runs", "night 3")
    pinned.write_text(pinned.read_text().split()[0])  # a run that an earlier version began
    assert failed_stages(opened(light, invocation="night 3")) == {("select", "near"): "held_back"}
