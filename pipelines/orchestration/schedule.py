"""The nightly schedule: it draws the recipes that `schedule.recipes` names again."""

import os
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster._utils.schedules import get_smallest_cron_interval

from pipelines.config.schema import Config
from pipelines.orchestration.asset import CONFIG_TAG

AUTOSTART = "WINNOW_AUTOSTART"
# A night that has not come so many hours after its time is overdue.
OVERDUE_H = 6


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
            job=dg.define_asset_job(
                "nightly",
                recipes.upstream() | results,
                description=f"{', '.join(config.schedule.recipes)} and all that they are drawn from, then the report.",
                tags={CONFIG_TAG: config.digest},
            ),
            cron_schedule=config.schedule.cron,
            execution_timezone=config.schedule.timezone,
            default_status=default_status(dg.DefaultScheduleStatus),
            description=f"Draws {', '.join(config.schedule.recipes)} again; only new rows cost work.",
        )
    ]


def freshness(config: Config, recipe: str) -> dg.FreshnessPolicy | None:
    """When the UI shows the selection of a recipe as overdue; None where the schedule does not draw it."""
    schedule = config.schedule
    if schedule is None or recipe not in schedule.recipes:
        return None
    deadline = _hours_later(schedule.cron, OVERDUE_H)
    if deadline is None:  # due by the next time
        return dg.FreshnessPolicy.cron(
            schedule.cron, get_smallest_cron_interval(schedule.cron), timezone=schedule.timezone
        )
    # An hour more, since clocks may be put back between the night and its deadline.
    return dg.FreshnessPolicy.cron(deadline, timedelta(hours=OVERDUE_H + 1), timezone=schedule.timezone)


def _hours_later(cron: str, hours: int) -> str | None:
    """The times of a cron once a day, some hours later; None of another one, or where that is another day of many.

    >>> _hours_later("30 3 * * 1-5", 6), _hours_later("0 22 * * *", 6), _hours_later("0 22 * * 5", 6)
    ('30 9 * * 1-5', '0 4 * * *', None)
    >>> _hours_later("*/5 * * * *", 6) is None
    True
    """
    minute, hour, *days = cron.split()
    if not (minute.isdigit() and hour.isdigit()):
        return None
    later = int(hour) + hours
    if later > 23 and days != ["*"] * 3:
        return None
    return " ".join([minute, str(later % 24), *days])


def default_status(status: Any) -> Any:
    """Schedules and sensors start switched off, unless WINNOW_AUTOSTART=1 asks otherwise."""
    return status.RUNNING if os.environ.get(AUTOSTART) == "1" else status.STOPPED
