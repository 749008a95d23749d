"""The nightly schedule: it draws the recipes that `schedule.recipes` names again."""

import os
from typing import Any

import dagster as dg

from pipelines.config.schema import Config

AUTOSTART = "WINNOW_AUTOSTART"


def schedules(config: Config) -> list[dg.ScheduleDefinition]:
    """The nightly schedule; none where the configuration has no `schedule`."""
    if config.schedule is None:
        return []
    recipes = dg.AssetSelection.assets(*(["selection", name] for name in config.schedule.recipes))
    exports = [["export", name] for name, entry in config.exports.items() if entry.recipe in config.schedule.recipes]
    results = dg.AssetSelection.assets(["catalog"], ["report"], *exports)
    return [
        dg.ScheduleDefinition(
            name="nightly_reselection",
            job=dg.define_asset_job("nightly", recipes.upstream() | results),
            cron_schedule=config.schedule.cron,
            execution_timezone=config.schedule.timezone,
            default_status=default_status(dg.DefaultScheduleStatus),
            description=f"Draws {', '.join(config.schedule.recipes)} again; only new rows cost work.",
        )
    ]


def default_status(status: Any) -> Any:
    """Schedules and sensors start switched off, unless WINNOW_AUTOSTART=1 asks otherwise."""
    return status.RUNNING if os.environ.get(AUTOSTART) == "1" else status.STOPPED
