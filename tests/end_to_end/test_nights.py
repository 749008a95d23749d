"""Nights as Dagster's daemon runs them: the schedule fires, a step is killed, a file is dropped, winnow.yaml changes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.end_to_end.dagster_client import serving, wait_for
from tests.pipelines.conftest import change, make_light


@pytest.mark.slow
@pytest.mark.torture
def test_nights__scheduled_killed_dropped_and_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINNOW_AUTOSTART", "1")
    light = make_light(tmp_path / "light")
    change(light, '"30 3 * * *"', '"* * * * *"')
    store = Store(light / "store")
    with serving(light) as dagster:
        with store.lock("ingest", "a test"):
            night = wait_for(lambda: dagster.runs("nightly"), timeout_s=120)[-1]
            os.kill(wait_for(lambda: dagster.step_process(night, "pool"), timeout_s=60), signal.SIGKILL)
            wait_for(
                lambda: dagster.step_events(night, "pool").count("ExecutionStepUpForRetryEvent") == 1, timeout_s=30
            )
        assert dagster.wait(night, timeout_s=600) == "SUCCESS"
        assert "ExecutionStepFailureEvent" not in dagster.step_events(night, "pool")

        change(light, '"* * * * *"', '"30 3 * * *"')
        change(light, "  any:", "  more: {steps: [random], budget: 5}\n  any:")
        wait_for(lambda: "selection/more" in dagster.asset_keys(), timeout_s=120)

        assert not dagster.runs("reselect")
        write_rows(light / "data" / "c.jsonl", [row(n, "fox") for n in range(10, 20)])
        run = wait_for(lambda: dagster.runs("reselect"), timeout_s=150)[0]
        assert dagster.wait(run, timeout_s=600) == "SUCCESS"
        nights = len(dagster.runs("nightly"))

    latest = query_catalog(store, "SELECT recipe, n_items FROM latest_selections ORDER BY recipe")[0].to_pylist()
    assert latest == [{"recipe": name, "n_items": rows} for name, rows in (("any", 8), ("more", 5), ("near", 10))]
    assert query_catalog(store, "SELECT count(*) AS n FROM examples")[0].to_pylist() == [{"n": 90}]
    assert nights <= 4  # none after the change
