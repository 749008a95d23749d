"""`dagster dev` on one project, spoken to over GraphQL as the UI does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

REPOSITORY = {"repositoryLocationName": "winnow", "repositoryName": "__repository__"}

ASSETS = "{ assetNodes { assetKey { path } description kinds groupName } }"

LAUNCH = """
mutation Launch($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""

STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"

EVENTS = """
query Events($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events {
    __typename
    ... on ExecutionStepFailureEvent { stepKey error { message } }
    ... on MaterializationEvent { assetKey { path } }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success assetKey { path } } }
  } } }
}
"""

RUNS = "{ runsOrError(limit: 100) { ... on Runs { results { runId jobName } } } }"

CANCEL = """
mutation Cancel($id: String!) { terminateRun(runId: $id, terminatePolicy: SAFE_TERMINATE) { __typename } }
"""

STEPS = """
query Steps($id: ID!) {
  logsForRun(runId: $id) { ... on EventConnection { events {
    __typename
    ... on StepEvent { stepKey }
    ... on StepWorkerStartedEvent { metadataEntries { label ... on TextMetadataEntry { text } } }
  } } }
}
"""

START_SCHEDULE = """
mutation Start($selector: ScheduleSelector!) { startSchedule(scheduleSelector: $selector) { __typename } }
"""

START_SENSOR = """
mutation Start($selector: SensorSelector!) { startSensor(sensorSelector: $selector) { __typename } }
"""

TICKS = """
query Ticks($selector: InstigationSelector!) {
  instigationStateOrError(instigationSelector: $selector) {
    ... on InstigationState { ticks { timestamp status runIds skipReason } }
  }
}
"""

# Python reads a module of this name when it starts.
SIMULATED = """
import os, sys

if {"dagster._daemon", "dagster_webserver"} & set(sys.orig_argv):
    from datetime import UTC, datetime
    from pathlib import Path
    from time import time

    import dagster._daemon.daemon
    import dagster._time
    from dagster._scheduler import scheduler

    def now():
        return time() + float(Path(os.environ["TEST_CLOCK"]).read_text())

    dagster._time._mockable_get_current_timestamp = now
    dagster._time._mockable_get_current_datetime = lambda: datetime.fromtimestamp(now(), UTC)
    scheduler._get_next_scheduler_iteration_time = lambda start: start + 1
"""


class Clock:
    """What the daemon and the web server take for the time, so that a night comes when a test wants it.

    Dagster's own switch for its tests works inside one process; this one holds in those that a test starts after it.
    The scheduler looks each second, not at each minute. The time must be in the past: runs begin at the true time, and
    one that began long ago is taken to hang.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder.mkdir()
        self._offset = folder / "offset"
        (folder / "sitecustomize.py").write_text(SIMULATED)
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        monkeypatch.setenv("TEST_CLOCK", str(self._offset))

    def set(self, now: datetime) -> None:
        """It is `now`, and time goes on from here."""
        beside = self._offset.with_suffix(".new")
        beside.write_text(str(now.timestamp() - time.time()))
        beside.replace(self._offset)

    def pass_until(self, what: Callable[[], T], timeout_s: float) -> T:
        """Let half minutes pass, after which sensors look again, until something is true."""

        def half_a_minute_later() -> T:
            self.set(datetime.fromtimestamp(time.time() + float(self._offset.read_text()) + 31, UTC))
            return what()

        return wait_for(half_a_minute_later, timeout_s)


def wait_for(what: Callable[[], T], timeout_s: float) -> T:
    """What is true at last."""
    until = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < until, f"not within {timeout_s} s"
        time.sleep(0.5)
    return answer


class Dagster:
    """A running instance."""

    def __init__(self, port: int, process: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"
        self.process = process

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            result = json.load(answer)
        assert "errors" not in result, result["errors"]
        return result["data"]

    def status(self, path: str, body: bytes | None = None, **headers: str) -> int:
        """The HTTP status of a plain request."""
        request = urllib.request.Request(self.url.removesuffix("/graphql") + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def power_cut(self) -> None:
        """Web server, daemon, runs and steps are gone."""
        os.killpg(self.process, signal.SIGKILL)

    def asset_keys(self) -> list[str]:
        return sorted("/".join(node["assetKey"]["path"]) for node in self.ask(ASSETS)["assetNodes"])

    def launch(self, keys: list[str]) -> str:
        selector = {
            **REPOSITORY,
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": key.split("/")} for key in keys],
        }
        answer = self.ask(LAUNCH, parameters={"mode": "default", "runConfigData": {}, "selector": selector})
        assert answer["launchRun"]["__typename"] == "LaunchRunSuccess", answer
        return answer["launchRun"]["run"]["runId"]

    def run_status(self, run_id: str) -> str:
        return str(self.ask(STATUS, id=run_id)["runOrError"]["status"])

    def wait(self, run_id: str, timeout_s: float) -> str:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            status = self.run_status(run_id)
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                return status
            time.sleep(1)
        return f"still {status} after {timeout_s} s"

    def runs(self, job: str) -> list[str]:
        """The runs of a job, the newest first."""
        return [run["runId"] for run in self.ask(RUNS)["runsOrError"]["results"] if run["jobName"] == job]

    def switch_on(self, kind: str, name: str) -> None:
        """As the switch of a schedule or a sensor does."""
        mutation, answer = (START_SCHEDULE, "startSchedule") if kind == "schedule" else (START_SENSOR, "startSensor")
        started = self.ask(mutation, selector={**REPOSITORY, f"{kind}Name": name})[answer]["__typename"]
        assert started in ("ScheduleStateResult", "Sensor")

    def ticks(self, name: str) -> list[dict[str, Any]]:
        """The ticks of a schedule or a sensor, the newest first."""
        return self.ask(TICKS, selector={**REPOSITORY, "name": name})["instigationStateOrError"]["ticks"]

    def cancel(self, run_id: str) -> None:
        """As the button *Terminate* of the UI does."""
        assert self.ask(CANCEL, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    def step_events(self, run_id: str, step: str) -> list[str]:
        """The kinds of a step's events."""
        events = self.ask(STEPS, id=run_id)["logsForRun"]["events"]
        return [event["__typename"] for event in events if event.get("stepKey") == step]

    def step_process(self, run_id: str, step: str) -> int:
        """The process that executes a step; 0 before it has begun."""
        for event in reversed(self.ask(STEPS, id=run_id)["logsForRun"]["events"]):
            for entry in event.get("metadataEntries", ()) if event.get("stepKey") == step else ():
                if entry["label"] == "pid":
                    return int(entry["text"])
        return 0

    def events(self, run_id: str) -> list[dict[str, Any]]:
        return self.ask(EVENTS, id=run_id)["logsForRun"]["events"]


@contextmanager
def serving(
    project: Path, timeout_s: float = 120, command: tuple[str, ...] = (sys.executable, "-m", "pipelines")
) -> Iterator[Dagster]:
    """The UI and its daemon, as `winnow ui` starts them; everything they started ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (project / "ui.log").open("w+")
    process = subprocess.Popen(
        [*command, "ui", "-c", str(project), "--port", str(port)],
        stdout=log,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    try:
        dagster = Dagster(port, process.pid)
        until = time.monotonic() + timeout_s
        while True:
            try:
                assert dagster.asset_keys()
                break
            except (OSError, AssertionError):
                if time.monotonic() > until or process.poll() is not None:
                    log.seek(0)
                    raise AssertionError(f"the UI did not start:\n{log.read()}") from None
                time.sleep(1)
        yield dagster
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
