"""The stages as Dagster assets: one each for the pool, an encoder's vectors and index, a recipe and the catalog.

Those of labeling projects are in `pipelines.orchestration.labeling_assets`.
"""

import hashlib
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.load import Config, Recipe, load_config
from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.errors import USER_ERRORS
from pipelines.orchestration.asset import GPU_POOL, Project, as_sql, as_table, default_status, look, stage_asset
from pipelines.orchestration.labeling_assets import labeling_definitions
from pipelines.recipes.explain import explain, ready_sql
from pipelines.recipes.spec import encoders_of, needs_vectors
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.index import index
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.select import select
from pipelines.stages.stage import Outcome


def build_definitions(config_path: Path) -> dg.Definitions:
    """Assets, checks, jobs, the nightly schedule and the sensors for new files and labels, from one winnow.yaml.

    Raises:
        ConfigError: the file is wrong.
    """
    config = load_config(config_path)
    assets = [
        stage_asset(
            ingest,
            key=["pool"],
            description="The candidates: every readable row of the pool's files, once, with every source that held it.",
            kinds={"parquet"},
            group_name="pool",
        )
    ]
    learned = [project.encoder for project in config.labeling.values() if project.encoder is not None]
    for encoder in dict.fromkeys([*encoders_of(config, config.recipes), *learned]):
        assets += _encoder_assets(encoder, targets=bool(config.targets_in(encoder)))
    assets += [_recipe_asset(name, recipe) for name, recipe in config.recipes.items()]
    assets.append(
        stage_asset(
            publish,
            key=["catalog"],
            deps=[["selection", name] for name in config.recipes],
            description="The DuckDB file that anyone may query, also while a run writes.",
            kinds={"duckdb"},
            group_name="catalog",
        )
    )
    labeling = labeling_definitions(config, config_path)
    # Labels have a sensor of their own: a new file of the pool draws recipes again and sends nobody a batch.
    recipes: dg.AssetSelection = dg.AssetSelection.all()
    if labeling.keys:
        recipes -= dg.AssetSelection.assets(*labeling.keys)
    reselect = dg.define_asset_job("reselect", recipes, description="Every asset but those of labeling, in order.")
    return dg.Definitions(
        assets=[*assets, *labeling.assets],
        resources={"project": Project(config_path=str(config_path))},
        jobs=[reselect, *labeling.jobs],
        schedules=_schedules(config),
        sensors=[_new_files(config_path), *labeling.sensors],
    )


def _encoder_assets(encoder: str, *, targets: bool) -> list[dg.AssetsDefinition]:
    own = encoder == OWN_VECTORS
    made_with = {"numpy"} if own else {"numpy", "huggingface"}
    vectors = stage_asset(
        embed,
        encoder,
        key=[encoder, "embeddings"],
        deps=[["pool"]],
        description="The vectors that you brought for the pool; only rows that have none yet are taken in."
        if own
        else "The pool's vectors; only rows that this encoder has not seen are encoded.",
        kinds=made_with,
        group_name="vectors",
        pool=GPU_POOL,
    )
    indexed = stage_asset(
        index,
        encoder,
        key=[encoder, "vector_index"],
        deps=[[encoder, "embeddings"]],
        description="The FAISS index over the pool's vectors, with its recall measured against exact search.",
        kinds={"faiss"},
        group_name="vectors",
        pool=GPU_POOL,
    )
    if not targets:
        return [vectors, indexed]
    target_vectors = stage_asset(
        embed_targets,
        encoder,
        key=[encoder, "target_embeddings"],
        description="The target sets' vectors, "
        + ("as you brought them." if own else "from the same encoder and template as the pool's."),
        kinds=made_with,
        group_name="vectors",
        pool=GPU_POOL,
    )
    return [vectors, indexed, target_vectors]


def _recipe_asset(name: str, recipe: Recipe) -> dg.AssetsDefinition:
    deps = [["pool"]]
    if recipe.encoder and needs_vectors(recipe):
        deps.append([recipe.encoder, "vector_index"])
        if recipe.targets:
            deps.append([recipe.encoder, "target_embeddings"])
    return stage_asset(
        select,
        name,
        key=["selection", name],
        deps=deps,
        description=f"{recipe.budget_line} by {recipe.steps}",
        kinds={"winnow"},
        group_name="selections",
        code_version=hashlib.blake2b(recipe.model_dump_json().encode(), digest_size=8).hexdigest(),
        show=_explained,
    )


def _explained(context: Context, outcome: Outcome) -> dict[str, Any]:
    explanation = explain(context, outcome.subject)
    return {
        "by_source": as_table(explanation.by_source),
        "first_rows": as_table(explanation.first_rows),
        "sql": as_sql(ready_sql(outcome.subject)),
        "selection_id": outcome.subject,
    }


def _schedules(config: Config) -> list[dg.ScheduleDefinition]:
    if config.schedule is None:
        return []
    chosen = dg.AssetSelection.assets(*(["selection", name] for name in config.schedule.recipes)).upstream()
    nightly = dg.define_asset_job("nightly", chosen | dg.AssetSelection.assets(["catalog"]))
    return [
        dg.ScheduleDefinition(
            name="nightly_reselection",
            job=nightly,
            cron_schedule=config.schedule.cron,
            execution_timezone=config.schedule.timezone,
            default_status=default_status(dg.DefaultScheduleStatus),
            description=f"Draws {', '.join(config.schedule.recipes)} again; only new rows cost work.",
        )
    ]


def _new_files(config_path: Path) -> dg.SensorDefinition:
    """A run whenever the files that the project reads differ from those of the last look."""

    @dg.sensor(
        job_name="reselect",
        minimum_interval_seconds=60,
        default_status=default_status(dg.DefaultSensorStatus),
        description="Starts a run when a file that the project reads appears, changes or vanishes.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            seen = _fingerprint(load_config(config_path))
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        if context.cursor is None:
            return dg.SensorResult(skip_reason="first look: remembered the files as they are", cursor=seen)
        if seen == context.cursor:
            return dg.SkipReason("no file has changed")
        # No run key: files that come back to an earlier state are a change too.
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=seen)

    return new_files


def _fingerprint(config: Config) -> str:
    """What all files that the project names look like from outside: names, sizes, times of change."""
    specs = config.pool.specs(config.root)
    for target in config.targets.values():
        specs += target.specs(config.root)
    urls = [spec.url for spec in specs] + [brought.url for brought in config.pool.columns]
    urls += [url for of in (None, *config.targets) for file in config.vector_files(of) for url in file.urls]
    urls += [file for recipe in config.recipes.values() for file in (recipe.allow, recipe.deny) if file]
    return look(urls)
