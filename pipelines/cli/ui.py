"""`winnow ui`: the Dagster UI of a project."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipelines.config.locate import ENVIRONMENT, find_config

# Written once, then the user may edit it. One step of a pool (the GPU) runs at a time.
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
"""


def serve(config: Path | None, host: str, port: int) -> None:
    """Replace this process by `dagster dev`: the web server, and the daemon that starts the runs.

    Raises:
        ConfigError: the configuration is wrong; nothing is started.
    """
    from pipelines.config.load import load_config

    path = find_config(config)
    load_config(path)  # a mistake is a short message now, and a long traceback in Dagster
    home = dagster_home(path.parent)
    workspace = Path(__file__).resolve().parents[2] / "workspace.yaml"
    environment = os.environ | {"DAGSTER_HOME": str(home), ENVIRONMENT: str(path), "PYTHONWARNINGS": "ignore"}
    print(f"winnow: {path} in the Dagster UI on http://{host}:{port} (history in {home}); Ctrl-C ends it", flush=True)
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(workspace), "--host", host, "--port", str(port)]
    os.chdir(workspace.parent)
    os.execve(sys.executable, command, environment)  # noqa: S606


def dagster_home(project: Path) -> Path:
    """The project's own DAGSTER_HOME, created if it is missing."""
    home = project / ".winnow" / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    settings = home / "dagster.yaml"
    if not settings.exists():
        settings.write_text(INSTANCE, "utf-8")
    return home
