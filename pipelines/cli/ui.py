"""`winnow ui`: the Dagster UI of a project."""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from pipelines.config.locate import ENVIRONMENT, find_config
from pipelines.terminal import printable

# As `pipelines.orchestration.own_pages` reads it, which a command does not import.
HOSTS = "WINNOW_UI_HOSTS"

# As `pipelines.orchestration.watching` reads it.
UI_URL = "WINNOW_UI_URL"

WORKSPACE = "workspace.yaml"
PACKAGES = str(Path(__file__).resolve().parents[2])

# Written once and then the user's: the history lives here, and one GPU step runs at a time.
INSTANCE = """\
# Dagster's settings for this project; yours to change. https://docs.dagster.io/deployment/oss/dagster-yaml
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: op
  runs:
    max_concurrent_runs: 4
run_monitoring:
  enabled: true
python_logs:
  python_log_level: INFO  # of the terminal; the page of a run has every event
retention:
  sensor:
    purge_after_days:  # a sensor that finds nothing is noted 2,880 times a day
      skipped: 1
      success: 90
      failure: 90
"""


def serve(config: Path | None, host: str, port: int, names: Sequence[str] = ()) -> None:
    """Replace this process by `dagster dev`: the web server, and the daemon that starts the runs.

    Args:
        names: further names that browsers may know this server by.

    Raises:
        ConfigError: the configuration is wrong; nothing is started.
    """
    from pipelines.config.load import load_config

    path = find_config(config)
    load_config(path)  # a mistake in it is a message here, and many pages in Dagster
    home = dagster_home(path.parent)
    environment = os.environ | {
        "DAGSTER_HOME": str(home),
        ENVIRONMENT: str(path),
        HOSTS: " ".join((host, *names)),
        UI_URL: f"http://{_reached_at(host)}:{port}",
        "PYTHONPATH": os.pathsep.join(filter(None, (PACKAGES, os.environ.get("PYTHONPATH")))),
        "PYTHONWARNINGS": "ignore",
    }
    line = f"winnow: {path} in the Dagster UI on http://{host}:{port} (history in {home}); Ctrl-C ends it"
    print(printable(line), flush=True)
    command = [sys.executable, "-m", "pipelines.orchestration.serve", "dagster", "dev", "-w", WORKSPACE]
    command += ["--host", host, "--port", str(port), "--log-level", "warning"]  # not a line for each look of a sensor
    os.chdir(home)
    os.execve(sys.executable, command, environment)  # noqa: S606


def _reached_at(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)


def dagster_home(project: Path) -> Path:
    """Make the project's own DAGSTER_HOME where it is missing, and write its workspace file.

    The workspace file names the folder that holds the packages, a checkout or an environment. It is written at each
    start, since that folder may have changed; the settings are written once.
    """
    home = project / ".winnow" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(INSTANCE, "utf-8")
    location = {
        "module_name": "pipelines.definitions",
        "working_directory": PACKAGES,
        "location_name": "winnow",
    }
    (home / WORKSPACE).write_text(yaml.safe_dump({"load_from": [{"python_module": location}]}), "utf-8")
    return home
