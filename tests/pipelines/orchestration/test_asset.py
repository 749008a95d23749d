"""One asset around one stage: what a failure of the stage becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.orchestration import asset as asset_module
from pipelines.stages import publish as publish_stage
from storage.catalog.publish import publish_catalog
from storage.store import Store
from tests.pipelines.orchestration.conftest import materialize


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
