"""All that Dagster needs of one winnow.yaml: assets, checks, jobs, the nightly schedule and the sensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.load import load_config
from pipelines.orchestration.asset import CONFIG_TAG, EngineResource, Project
from pipelines.orchestration.assets import (
    TRIALS,
    catalog_asset,
    classifier_asset,
    decontamination_asset,
    encoder_assets,
    export_asset,
    passed_check,
    pool_asset,
    ready_vectors,
    recipe_asset,
    report_asset,
    searches,
    token_scores_asset,
    trial_asset,
)
from pipelines.orchestration.dead_runs import dead_runs_sensor
from pipelines.orchestration.labeling_assets import job_name, labeling_assets, labeling_job
from pipelines.orchestration.schedule import schedules
from pipelines.orchestration.sensors import new_files_sensor, new_labels_sensor
from pipelines.orchestration.watching import changed_configuration, unreported_runs
from pipelines.recipes.spec import encoders_of, models_of_project


# A step is a process that is forked from one in which Dagster and winnow are imported: two fifths less processor time
# for a night of a small pool than with new processes. That one opens nothing and starts no thread of ours.
@dg.configured(
    dg.multiprocess_executor,
    {
        "max_concurrent": dg.Field(
            int, is_required=False, description="How many steps of a run at once; all cores if not set."
        )
    },
)
def step_processes(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Each step is a process."""
    return {**config, "start_method": {"forkserver": {"preload_modules": [__name__]}}}


def build_definitions(config_path: Path) -> dg.Definitions:
    """Everything that Dagster shows and runs for one project.

    Raises:
        ConfigError: the file is wrong.
    """
    config = load_config(config_path)
    of_models = [project.encoder for project in config.labeling.values() if project.encoder is not None]
    of_models += [classifier.encoder for classifier in config.classifiers.values() if classifier.encoder is not None]
    assets = [pool_asset()]
    of_search = [config.searched_encoder] if config.searched_encoder else []
    encoders = list(dict.fromkeys([*encoders_of(config, config.recipes), *of_models, *of_search]))
    for encoder in encoders:
        targets = bool(config.targets_in(encoder))
        indexed = config.is_indexed(encoder)
        assets += encoder_assets(encoder, targets=targets, indexed=indexed, blocking=config.health.blocking)
    if config.decontamination is not None:
        assets.append(decontamination_asset(config))
    assets += map(token_scores_asset, config.models)
    assets += [classifier_asset(config, name) for name in config.classifiers]
    assets += [recipe_asset(config, name) for name in config.recipes]
    assets += [catalog_asset(config, encoders), report_asset()]
    if config.trials is not None:
        assets += map(trial_asset, config.recipes)
    assets += [export_asset(config, name) for name in config.exports]
    for name, project in config.labeling.items():
        scored = [[model, "token_scores"] for model in models_of_project(config, name)]
        assert project.encoder is not None  # the configuration fills it in
        ready = ready_vectors(config, project.encoder)
        assets += labeling_assets(name, project, [*ready, *searches(config), *scored])

    # Labels have jobs and a sensor of their own: a new file of the pool draws recipes again and sends nobody a batch.
    labeling_jobs = {name: labeling_job(name) for name in config.labeling}
    selected: dg.AssetSelection = dg.AssetSelection.all()
    if labeling_jobs:
        selected -= dg.AssetSelection.groups(*map(job_name, config.labeling))
    if config.trials is not None:
        selected -= dg.AssetSelection.groups(TRIALS)
    reselect = dg.define_asset_job(
        "reselect",
        selected,
        description="Every asset but those of labeling and trials, in order.",
        tags={CONFIG_TAG: config.digest},
    )
    sensors = [
        new_files_sensor(config_path),
        changed_configuration(config_path, config.digest),
        unreported_runs(config_path),
        dead_runs_sensor(),
    ]
    if labeling_jobs:
        sensors.append(new_labels_sensor(config_path, labeling_jobs))
    return dg.Definitions(
        assets=assets,
        asset_checks=[passed_check()],
        executor=step_processes,
        resources={"project": Project(config_path), "engine": EngineResource()},
        jobs=[reselect, *labeling_jobs.values()],
        schedules=schedules(config),
        sensors=sensors,
    )
