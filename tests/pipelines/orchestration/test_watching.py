"""The sensors that start no run: a changed winnow.yaml, runs without a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import pytest

from pipelines.orchestration.asset import CONFIG_TAG, STALE
from pipelines.orchestration.definitions import build_definitions
from pipelines.orchestration.watching import UI_URL, reload_definitions
from pipelines.runs import runs
from storage.store import Store
from tests.pipelines.conftest import change
from tests.pipelines.orchestration.conftest import materialize


def sensor_of(project: Path, name: str) -> dg.SensorDefinition:
    (sensor,) = (s for s in build_definitions(project / "winnow.yaml").sensors or () if s.name == name)
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    return sensor


def said(sensor: dg.SensorDefinition) -> str:
    result: Any = sensor(dg.build_sensor_context())
    return str(result.skip_message)


@contextmanager
def web_server(answer: dict[str, Any] | None) -> Iterator[tuple[str, list[str]]]:
    """What stands in for Dagster's: its address, and the orders that came."""
    orders: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            orders.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": {"reloadRepositoryLocation": answer}}).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", orders
    finally:
        server.shutdown()
        server.server_close()


def test_winnow_yaml__a_change_is_read_again_and_what_does_not_parse_is_not(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = sensor_of(light, "winnow_yaml")
    with web_server({"__typename": "WorkspaceLocationEntry"}) as (url, orders):
        monkeypatch.setenv(UI_URL, url)
        assert said(sensor) == "these definitions are those of winnow.yaml"
        change(light, "schedule:", "# a remark\nschedule:")
        assert said(sensor) == "these definitions are those of winnow.yaml"
        change(light, "budget: 8", "bugdet: 8")
        assert "winnow.yaml cannot be used, so Dagster keeps what it read last" in said(sensor)
        assert orders == []
        change(light, "bugdet: 8", "budget: 9")
        assert said(sensor) == "winnow.yaml has changed: reloaded the definitions"
    assert len(orders) == 1
    assert 'reloadRepositoryLocation(repositoryLocationName: "winnow")' in orders[0]


def test_winnow_yaml__says_what_to_press_where_it_cannot_reload(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    press = "press Reload definitions (Deployment, Code locations)"
    sensor = sensor_of(light, "winnow_yaml")
    change(light, "budget: 8", "budget: 9")
    monkeypatch.delenv(UI_URL, raising=False)
    assert said(sensor) == f"winnow.yaml has changed: {press}"
    with web_server({"message": "no"}) as (url, _):
        monkeypatch.setenv(UI_URL, url)
        assert reload_definitions() == f"{press}; reloading failed: no"
    assert reload_definitions().startswith(f"{press}; reloading failed: ")  # nobody listens any more
    with web_server(None) as (url, _):
        monkeypatch.setenv(UI_URL, url)
        assert reload_definitions().startswith(f"{press}; reloading failed: ")


def run_job(project: Path, edit: Callable[[], None]) -> dg.AssetCheckEvaluation:
    """`nightly` as it was before an edit; the last check."""
    job = build_definitions(project / "winnow.yaml").resolve_job_def("nightly")
    assert CONFIG_TAG in job.tags
    edit()
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance)
    assert result.success
    return result.get_asset_check_evaluations()[-1]


@pytest.mark.slow
def test_stale_definitions__a_run_warns_that_winnow_yaml_says_something_else(light: Path) -> None:
    check = run_job(light, lambda: change(light, "  any:", "  more: {steps: [random], budget: 3}\n  any:"))
    assert (check.check_name, check.passed, check.severity) == (
        "every_stage_passed",
        False,
        dg.AssetCheckSeverity.WARN,
    )
    assert check.metadata["detail"].value == STALE
    check = run_job(light, lambda: None)
    assert (check.passed, check.metadata["detail"].value) == (True, "all passed")


@pytest.mark.slow
def test_unreported_runs__a_run_that_ended_before_its_report_gets_one(light: Path) -> None:
    change(light, "schedule:", f"notify: {{command: [cp, /dev/stdin, {light / 'told.json'}]}}\nschedule:")
    with (light / "data" / "a.jsonl").open("a") as file:
        file.write("no JSON\n" * 9)
    result = materialize(light)
    assert not result.success
    assert not (light / "told.json").exists()
    for _ in range(2):  # once is enough
        _tell(light, result)
        stages = [run["stage"] for run in runs(Store(light / "store")) if run["invocation"] == result.run_id]
        assert stages.count("report") == 1
        assert "select" not in stages
    assert "ingest" in json.loads((light / "told.json").read_text())["text"]
    assert (light / "store" / "report.html").exists()


def _tell(project: Path, result: dg.ExecuteInProcessResult) -> None:
    """What the daemon does at the failure of a run."""
    with dg.instance_for_test() as instance:
        context = dg.build_run_status_sensor_context(
            sensor_name="unreported_runs",
            dagster_event=result.all_events[-1],
            dagster_instance=instance,
            dagster_run=result.dagster_run,
        ).for_run_failure()
        sensor: Any = sensor_of(project, "unreported_runs")
        sensor(context)
