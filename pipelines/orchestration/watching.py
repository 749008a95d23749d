"""Two sensors that start no run: one reads a changed winnow.yaml, one reports runs that ended before their report.

They are on from the start. (No postponed annotations in this module: Dagster reads those of sensor bodies.)
"""

import json
import os
import urllib.request
from pathlib import Path

import dagster as dg

from pipelines.config.load import load_config
from pipelines.context import open_context
from pipelines.errors import USER_ERRORS
from pipelines.progress import Log
from pipelines.run import write_report
from pipelines.runs import runs
from storage.store import Store

# Where `winnow ui` answers; not set by others that start Dagster.
UI_URL = "WINNOW_UI_URL"
PRESS = "press Reload definitions (Deployment, Code locations)"
_RELOAD = """
mutation { reloadRepositoryLocation(repositoryLocationName: "winnow") {
  __typename ... on PythonError { message } ... on UnauthorizedError { message }
} }
"""


def changed_configuration(config_path: Path, digest: str) -> dg.SensorDefinition:
    """Reloads the definitions when winnow.yaml says something else, or says that somebody must.

    Args:
        digest: of the configuration that the definitions are built from.
    """

    @dg.sensor(
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Reloads the definitions when winnow.yaml has changed. Starts no run.",
    )
    def winnow_yaml(_context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            same = load_config(config_path).digest == digest
        except USER_ERRORS as error:
            return dg.SkipReason(f"winnow.yaml cannot be used, so Dagster keeps what it read last: {error}")
        if same:
            return dg.SkipReason("these definitions are those of winnow.yaml")
        return dg.SkipReason(f"winnow.yaml has changed: {reload_definitions()}")

    return winnow_yaml


def reload_definitions() -> str:
    """Ask the web server to build the definitions anew; gives what came of it."""
    if UI_URL not in os.environ:
        return PRESS
    request = urllib.request.Request(  # noqa: S310 - our own web server
        f"{os.environ[UI_URL]}/graphql", json.dumps({"query": _RELOAD}).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=45) as answer:  # noqa: S310
            message = json.load(answer)["data"]["reloadRepositoryLocation"].get("message")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        message = str(error)
    return "reloaded the definitions" if message is None else f"{PRESS}; reloading failed: {message}"


def unreported_runs(config_path: Path) -> dg.SensorDefinition:
    """Writes the report, and sends the notification, of a run that failed before it came to its own."""

    @dg.run_failure_sensor(
        name="unreported_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Writes the report and sends the notification of a run that ended before its own. Starts no run.",
    )
    def report_failed(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run_id = context.dagster_run.run_id
        try:
            store = Store(load_config(config_path).store)
            stages = {run["stage"] for run in runs(store) if run["invocation"] == run_id}
            if not stages or "report" in stages:
                return None
            write_report(open_context(config_path, Log(context.log.info), run_id))
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        return None

    return report_failed
