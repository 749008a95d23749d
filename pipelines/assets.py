"""The stages as Dagster assets: one each for the pool, an encoder's vectors and index, a recipe and the catalog.

Assets pass handles through the store, never arrays, and each body is one call of a stage function. (No postponed
annotations in this module: Dagster reads the annotations of asset bodies.)
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines import stages
from pipelines.config import Config, Recipe, load_config
from pipelines.context import Context, Outcome, Stage, open_context
from pipelines.drawing import encoders_of, needs_vectors
from pipelines.errors import USER_ERRORS
from pipelines.explain import Explanation, explain, ready_sql
from pipelines.progress import Log
from pipelines.sections import OWN_VECTORS
from selection.registry import parse_steps

RETRIES, RETRY_AFTER_S = 2, 30
# Dagster runs at most so many steps of a pool at once; the instance's dagster.yaml sets how many.
GPU_POOL = "gpu"
AUTOSTART = "WINNOW_AUTOSTART"

CHECKS = {
    "pool": {"rows_accounted_for": "read = kept + duplicate + quarantined"},
    "vectors": {"every_row_has_a_vector": "finite and of unit length, as the store demands of each segment"},
    "index": {"recall_above_floor": "recall@10 against exact search, on a sample"},
    "selection": {
        "budget_met": "as many rows as asked for",
        "ids_unique": "no row twice",
        "ids_in_pool": "every row is in the pool's snapshot",
        "no_target_leaked": "no selected prompt is word for word a target's",
        "overlap_above_floor": "shares enough with the recipe's last selection",
    },
    "catalog": {"every_selection_listed": "it opens, and holds every selection that was committed before"},
}


class Project(dg.ConfigurableResource):  # type: ignore[type-arg]
    """One winnow project."""

    config_path: str

    def open(self, context: dg.AssetExecutionContext) -> Context:
        """The stages' context; all steps of a Dagster run share the configuration that its first step read."""
        return open_context(Path(self.config_path), Log(context.log.info), invocation=context.run.run_id)


def build_definitions(config_path: Path) -> dg.Definitions:
    """Assets, checks, the nightly schedule and the sensor for new files, from one winnow.yaml.

    Raises:
        ConfigError: the file is wrong.
    """
    config = load_config(config_path)
    assets = [
        _asset(
            stages.ingest,
            key=["pool"],
            checks=CHECKS["pool"],
            description="The candidates: every readable row of the pool's files, once, with every source that held it.",
            kinds={"parquet"},
            group_name="pool",
        )
    ]
    for encoder in encoders_of(config, config.recipes):
        assets += _encoder_assets(encoder, targets=bool(config.targets_in(encoder)))
    assets += [_recipe_asset(name, recipe) for name, recipe in config.recipes.items()]
    assets.append(
        _asset(
            stages.publish,
            key=["catalog"],
            deps=[["selection", name] for name in config.recipes],
            checks=CHECKS["catalog"],
            description="The DuckDB file that anyone may query, also while a run writes.",
            kinds={"duckdb"},
            group_name="catalog",
        )
    )
    reselect = dg.define_asset_job("reselect", dg.AssetSelection.all(), description="Every asset, in order.")
    return dg.Definitions(
        assets=assets,
        resources={"project": Project(config_path=str(config_path))},
        jobs=[reselect],
        schedules=_schedules(config),
        sensors=[_new_files(config_path)],
    )


def _encoder_assets(encoder: str, *, targets: bool) -> list[dg.AssetsDefinition]:
    own = encoder == OWN_VECTORS
    made_with = {"numpy"} if own else {"numpy", "huggingface"}
    vectors = _asset(
        stages.embed,
        encoder,
        key=[encoder, "embeddings"],
        deps=[["pool"]],
        checks=CHECKS["vectors"],
        description="The vectors that you brought for the pool; only rows that have none yet are taken in."
        if own
        else "The pool's vectors; only rows that this encoder has not seen are encoded.",
        kinds=made_with,
        group_name="vectors",
        pool=GPU_POOL,
    )
    index = _asset(
        stages.index,
        encoder,
        key=[encoder, "vector_index"],
        deps=[[encoder, "embeddings"]],
        checks=CHECKS["index"],
        description="The FAISS index over the pool's vectors, with its recall measured against exact search.",
        kinds={"faiss"},
        group_name="vectors",
        pool=GPU_POOL,
    )
    if not targets:
        return [vectors, index]
    target_vectors = _asset(
        stages.embed_targets,
        encoder,
        key=[encoder, "target_embeddings"],
        checks=CHECKS["vectors"],
        description="The target sets' vectors, "
        + ("as you brought them." if own else "from the same encoder and template as the pool's."),
        kinds=made_with,
        group_name="vectors",
        pool=GPU_POOL,
    )
    return [vectors, index, target_vectors]


def _recipe_asset(name: str, recipe: Recipe) -> dg.AssetsDefinition:
    deps = [["pool"]]
    if recipe.encoder and needs_vectors(recipe):
        deps.append([recipe.encoder, "vector_index"])
        if recipe.targets:
            deps.append([recipe.encoder, "target_embeddings"])
    return _asset(
        stages.select,
        name,
        key=["selection", name],
        deps=deps,
        checks=CHECKS["selection"],
        description=f"{recipe.asked} by {' -> '.join(step.name for step in parse_steps(recipe.steps))}",
        kinds={"winnow"},
        group_name="selections",
        code_version=hashlib.blake2b(recipe.model_dump_json().encode(), digest_size=8).hexdigest(),
        explained=True,
    )


def _asset(
    stage: Stage,
    *arguments: str,
    key: Sequence[str],
    deps: Sequence[Sequence[str]] = (),
    checks: Mapping[str, str] | None = None,
    explained: bool = False,
    **options: Any,
) -> dg.AssetsDefinition:
    """One asset around one stage; `checks` names the stage's checks with what each means."""
    asset_key = dg.AssetKey(list(key))

    def body(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:  # type: ignore[type-arg]
        try:
            opened = project.open(context)
            outcome = stage(opened, *arguments)
            if not explained:
                return _materialized(outcome, None)
            # Published at once, so that a recipe that fails does not keep the others from SQL.
            stages.publish(opened)
            return _materialized(outcome, explain(opened, outcome.subject))
        except USER_ERRORS as error:
            # Trying again would not mend a user's mistake, and its message says all: no traceback.
            raise dg.Failure(description=str(error), allow_retries=False) from None
        except OSError as error:
            # What may fail for a while and then work: a full disk, a network mount that is gone.
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_AFTER_S) from error

    decorate = dg.asset(
        key=asset_key,
        deps=[dg.AssetKey(list(dep)) for dep in deps],
        check_specs=[
            dg.AssetCheckSpec(name=name, asset=asset_key, blocking=True, description=meaning)
            for name, meaning in (checks or {}).items()
        ],
        owners=["team:data"],
        **options,
    )
    definition: dg.AssetsDefinition = decorate(body)
    return definition


def _materialized(outcome: Outcome, explanation: Explanation | None) -> dg.MaterializeResult[Any]:
    metadata: dict[str, Any] = {"summary": outcome.summary}
    if explanation is not None:
        metadata["by_source"] = _table(explanation.by_source)
        metadata["first_rows"] = _table(explanation.first_rows)
        metadata["sql"] = dg.MetadataValue.md(f"```sql\n{ready_sql(outcome.subject)}\n```")
        metadata["selection_id"] = outcome.subject
    metadata |= {name: value for name, value in outcome.facts.items() if value is not None}
    return dg.MaterializeResult(
        metadata=metadata,
        data_version=dg.DataVersion(outcome.subject),
        check_results=[
            dg.AssetCheckResult(
                check_name=check.name,
                passed=check.passed,
                severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
                metadata={"detail": check.detail},
            )
            for check in outcome.checks
        ],
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


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
            default_status=_status(dg.DefaultScheduleStatus),
            description=f"Draws {', '.join(config.schedule.recipes)} again; only new rows cost work.",
        )
    ]


def _new_files(config_path: Path) -> dg.SensorDefinition:
    """A run whenever the files that the project reads differ from those of the last look."""

    @dg.sensor(
        job_name="reselect",
        minimum_interval_seconds=60,
        default_status=_status(dg.DefaultSensorStatus),
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
    look = hashlib.blake2b(digest_size=16)
    for url in urls:
        path = Path(url)
        if path.is_file():
            status = path.stat()
            look.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        else:
            look.update(f"{url}\n".encode())
    return look.hexdigest()


def _status(kind: Any) -> Any:
    """Schedules and sensors start switched off, unless WINNOW_AUTOSTART=1 asks otherwise."""
    return kind.RUNNING if os.environ.get(AUTOSTART) == "1" else kind.STOPPED
