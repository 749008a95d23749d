"""The sensors: a run when the project's files change, and the next labeling round when labels come in.

(No postponed annotations in this module: Dagster reads the annotations of sensor bodies.)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import USER_ERRORS
from pipelines.orchestration.manifest import Seen, Unfinished, labeling_files, look, project_files
from pipelines.orchestration.schedule import default_status
from storage.labels.rounds import read_rounds
from storage.store import Store

READING = "reading what changed; the next look goes on"
WAITING = "files have just changed; a run starts when two looks find them the same"


def new_files_sensor(config_path: Path) -> dg.SensorDefinition:
    """A run of the job `reselect` whenever the files that the project reads have changed."""

    @dg.sensor(
        job_name="reselect",
        minimum_interval_seconds=30,
        default_status=default_status(dg.DefaultSensorStatus),
        description="Starts a run when a file that the project reads appears, vanishes or holds something else.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            before = _seen(context.cursor)
            seen, changed = look(project_files(load_config(config_path)), before)
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        except Unfinished:
            return dg.SkipReason(READING)
        cursor = json.dumps(asdict(seen))
        if changed:
            # No run key: files that come back to an earlier state are a change too.
            return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=cursor)
        if before is None:
            return dg.SensorResult(skip_reason="first look: remembered the files as they are", cursor=cursor)
        if seen.looked != seen.settled:
            return dg.SensorResult(skip_reason=WAITING, cursor=cursor)
        return dg.SensorResult(skip_reason="no file has changed", cursor=cursor)

    return new_files


def new_labels_sensor(config_path: Path, jobs: Mapping[str, Any]) -> dg.SensorDefinition:
    """A run of a project's job whenever its label files have changed, or the lease of its newest round has ended.

    Args:
        jobs: the job of each labeling project that was there when the definitions were built.
    """

    @dg.sensor(
        jobs=list(jobs.values()),
        minimum_interval_seconds=30,
        default_status=default_status(dg.DefaultSensorStatus),
        description="Starts the next round when labels come in, or when the time for a batch is over.",
    )
    def new_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before = json.loads(context.cursor) if context.cursor else {}
        try:
            config = load_config(config_path)
            looks = {name: _look_at_labels(config, name, before.get(name)) for name in config.labeling if name in jobs}
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        except Unfinished:
            return dg.SkipReason(READING)
        requests = [dg.RunRequest(job_name=jobs[name].name) for name, (_, changed) in looks.items() if changed]
        cursor = json.dumps({name: remembered for name, (remembered, _) in looks.items()})
        if requests:
            return dg.SensorResult(run_requests=requests, cursor=cursor)
        waiting = any(remembered["looked"] != remembered["settled"] for remembered, _ in looks.values())
        return dg.SensorResult(skip_reason=WAITING if waiting else "no labels have come in", cursor=cursor)

    return new_labels


def _seen(cursor: str | None) -> Seen | None:
    """What a cursor holds; one of an earlier version knows nothing but that there was a look."""
    if cursor is None:
        return None
    return Seen(**json.loads(cursor)) if cursor.startswith("{") else Seen()


def _look_at_labels(config: Config, name: str, before: Any) -> tuple[dict[str, str], bool]:
    """What to remember of a project, and whether to start its job.

    What a first look finds is pulled too: that costs nothing where it is known, and sends out the first batch.
    """
    files, ended = labeling_files(config.labeling[name], config.root), _ended_round(config, name)
    if not isinstance(before, dict):
        return asdict(look(files, None)[0]) | {"ended": ended}, True
    old = dict(before)
    known_end = old.pop("ended")
    seen, changed = look(files, Seen(**old))
    return asdict(seen) | {"ended": ended}, changed or ended not in ("", known_end)


def _ended_round(config: Config, name: str) -> str:
    """The newest round of a project, once its lease has ended; else empty."""
    rounds = read_rounds(Store(config.store), name)
    ended = rounds and datetime.fromisoformat(rounds[-1]["lease_until"]) <= datetime.now(UTC)
    return str(rounds[-1]["round_id"]) if ended else ""
