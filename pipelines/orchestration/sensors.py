"""The sensors: a run when the project's files change, and the next labeling round when labels come in.

(No postponed annotations in this module: Dagster reads the annotations of sensor bodies.)
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.errors import USER_ERRORS
from pipelines.orchestration.schedule import default_status
from pipelines.stages.pull import label_files
from storage.labels.rounds import read_rounds
from storage.store import Store


def new_files_sensor(config_path: Path) -> dg.SensorDefinition:
    """A run of the job `reselect` whenever the files that the project reads have changed."""

    @dg.sensor(
        job_name="reselect",
        minimum_interval_seconds=60,
        default_status=default_status(dg.DefaultSensorStatus),
        description="Starts a run when a file that the project reads appears, changes or vanishes.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            state = _pool_state(load_config(config_path))
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        if context.cursor is None:
            return dg.SensorResult(skip_reason="first look: remembered the files as they are", cursor=state)
        if state == context.cursor:
            return dg.SkipReason("no file has changed")
        # No run key: files that come back to an earlier state are a change too.
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=state)

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
        try:
            config = load_config(config_path)
            states = {name: _labels_state(config, name) for name in config.labeling if name in jobs}
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        before = json.loads(context.cursor) if context.cursor else {}
        # What a first look finds is pulled too: that costs nothing where it is known, and sends out the first batch.
        changed = [name for name in states if states[name] != before.get(name)]
        if not changed:
            return dg.SkipReason("no labels have come in")
        requests = [dg.RunRequest(job_name=jobs[name].name) for name in changed]
        return dg.SensorResult(run_requests=requests, cursor=json.dumps(states))

    return new_labels


def _pool_state(config: Config) -> str:
    """The state of all files that the pool, the targets and the recipes name."""
    specs = config.pool.specs(config.root)
    for target in config.targets.values():
        specs += target.specs(config.root)
    urls = [spec.url for spec in specs] + [column.url for column in config.pool.columns]
    urls += [url for name in (None, *config.targets) for file in config.vector_files(name) for url in file.urls]
    urls += [file for recipe in config.recipes.values() for file in (recipe.allow, recipe.deny) if file]
    return _files_state(urls)


def _labels_state(config: Config, name: str) -> str:
    """The state of a project's label files; with its newest round, once the lease of that has ended."""
    project = config.labeling[name]
    files = _files_state([*label_files(project, config.root), *([project.gold] if project.gold else [])])
    rounds = read_rounds(Store(config.store), name)
    ended = rounds and datetime.fromisoformat(rounds[-1]["lease_until"]) <= datetime.now(UTC)
    return f"{files} {rounds[-1]['round_id']}" if ended else files


def _files_state(urls: Sequence[str]) -> str:
    """A digest of the files' names, sizes and times of change; what is no local file counts by its name alone."""
    digest = hashlib.blake2b(digest_size=16)
    for url in urls:
        path = Path(url)
        if path.is_file():
            status = path.stat()
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        else:
            digest.update(f"{url}\n".encode())
    return digest.hexdigest()
