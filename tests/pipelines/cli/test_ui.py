"""What `winnow ui` sets up."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import yaml
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from pipelines.cli.ui import dagster_home


def test_dagster_home__dagster_reads_the_settings_and_the_user_keeps_theirs(tmp_path: Path) -> None:
    home = dagster_home(tmp_path)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED] == 1
        assert instance.get_tick_retention_settings(InstigatorType.SCHEDULE)[TickStatus.SUCCESS] == -1
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        assert instance.python_log_level == "INFO"
    (home / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    (home / "workspace.yaml").write_text("load_from: []\n")
    assert dagster_home(tmp_path) == home
    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: true}\n"
    assert yaml.safe_load((home / "workspace.yaml").read_text())["load_from"]
