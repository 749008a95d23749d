"""The stages as Dagster assets: one each for the pool, an encoder's vectors and index, a recipe and the catalog."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import dagster as dg

from pipelines.classifiers.resolve import source_name
from pipelines.config.schema import OWN_VECTORS, Config
from pipelines.context import Context
from pipelines.orchestration.asset import (
    GPU_POOL,
    STALE,
    Project,
    as_sql,
    as_table,
    failed_stages,
    is_stale,
    stage_asset,
)
from pipelines.orchestration.schedule import freshness
from pipelines.recipes.explain import explain, ready_sql
from pipelines.recipes.spec import models_of, models_of_classifier, needs_vectors
from pipelines.report.write import make_report, read_document
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.export import export
from pipelines.stages.fit_classifier import fit_classifier
from pipelines.stages.health import health
from pipelines.stages.index import index
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.report import report
from pipelines.stages.select import select
from pipelines.stages.stage import Outcome
from pipelines.stages.token_scores import token_scores
from pipelines.stages.trial import trial
from pipelines.trials.records import finished_trial, trial_line
from pipelines.trials.trial import effect_rows
from storage.vectors.health import read_health

DECONTAMINATION = ["decontamination"]
TRIALS = "trials"
"""The group of trials, which only run when they are asked for."""


def pool_asset() -> dg.AssetsDefinition:
    """The asset `pool`: the snapshot of the candidates."""
    return stage_asset(
        ingest,
        key=["pool"],
        description="The candidates: every readable row of the pool's files, once, with every source that held it.",
        kinds={"parquet"},
        group_name="pool",
    )


def encoder_assets(encoder: str, *, targets: bool, indexed: bool, blocking: bool = False) -> list[dg.AssetsDefinition]:
    """The pool's vectors and their health; their index, and the vectors of the target sets, where these are asked for.

    Args:
        targets: whether there are target sets.
        indexed: whether an index is built, see `Config.is_indexed`.
        blocking: whether nothing is searched or drawn with vectors that are not sound.
    """
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
    sound = stage_asset(
        health,
        encoder,
        key=[encoder, "health"],
        deps=[[encoder, "embeddings"]],
        show=partial(_health_shown, encoder),
        observed=[encoder, "embeddings"],
        publishes=False,
        may_fail=not blocking,
        description="How sound the pool's vectors are, measured on a sample of its rows.",
        kinds=made_with,
        group_name="vectors",
        pool=GPU_POOL,
    )
    assets = [vectors, sound]
    if indexed:
        search_index = stage_asset(
            index,
            encoder,
            key=[encoder, "vector_index"],
            deps=[[encoder, "embeddings"], *([[encoder, "health"]] if blocking else [])],
            description="The FAISS index over the pool's vectors, with its recall measured against exact search; none "
            "while the pool is so small that every row is compared.",
            kinds={"faiss"},
            group_name="vectors",
            pool=GPU_POOL,
        )
        assets.append(search_index)
    if not targets:
        return assets
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
    return [*assets, target_vectors]


def ready_vectors(config: Config, encoder: str) -> list[list[str]]:
    """The keys of the assets that make an encoder's vectors ready to draw with: indexed, or sound, where that matters."""
    if config.is_indexed(encoder):
        return [[encoder, "vector_index"]]
    return [[encoder, "embeddings"], *([[encoder, "health"]] if config.health.blocking else [])]


def _health_shown(encoder: str, context: Context, outcome: Outcome) -> dict[str, Any]:
    """The groups of the sample, and the query for all measurements of this encoder."""
    record = read_health(context.store, outcome.subject)
    where = f"encoder = '{record['encoder']}'"
    shown: dict[str, Any] = {
        "encoder": encoder,
        "sql": as_sql(f"FROM representation_health WHERE {where} ORDER BY number DESC;"),
    }
    groups = sorted(record["groups"], key=lambda group: -group["share"])
    return shown | ({"by_group": as_table(groups)} if groups else {})


def searches(config: Config) -> list[list[str]]:
    """The keys of the assets that find what nothing may choose."""
    return [DECONTAMINATION] if config.decontamination is not None else []


def decontamination_asset(config: Config) -> dg.AssetsDefinition:
    """The asset `decontamination`: the rows of the pool that hold evaluation texts."""
    encoder = config.searched_encoder
    return stage_asset(
        decontaminate,
        key=DECONTAMINATION,
        deps=[["pool"], *([[encoder, "embeddings"], [encoder, "target_embeddings"]] if encoder else [])],
        description="The rows of the pool that hold evaluation texts, which nothing chooses; and how many of planted ones are "
        "found.",
        kinds={"parquet"},
        group_name="pool",
        pool=GPU_POOL if encoder else None,
    )


def token_scores_asset(model: str) -> dg.AssetsDefinition:
    """The asset `<model>/token_scores`: what a causal language model says of the pool's rows and the targets."""
    return stage_asset(
        token_scores,
        model,
        key=[model, "token_scores"],
        deps=[["pool"]],
        description="Log-likelihoods of the pool's rows, with their prompts and without; only rows that this model has not "
        "seen are scored.",
        kinds={"parquet", "huggingface"},
        group_name="scores",
        pool=GPU_POOL,
    )


# Which stages make what gives a recipe probabilities.
_STAGES_OF = {"classifier": ("fit_classifier",), "model": ("pull", "fit")}


def recipe_asset(config: Config, name: str) -> dg.AssetsDefinition:
    """The asset `selection/<name>`: a recipe's latest selection."""
    recipe = config.recipes[name]
    deps = [["pool"], *searches(config), *([model, "token_scores"] for model in models_of(config, [name]))]
    if recipe.encoder and needs_vectors(recipe):
        deps += ready_vectors(config, recipe.encoder)
        if recipe.targets:
            deps.append([recipe.encoder, "target_embeddings"])
    source, source_asset = source_name(recipe), "classifier" if recipe.probabilities in config.classifiers else "model"
    if source is not None:
        deps.append([source, source_asset])
    return stage_asset(
        select,
        name,
        key=["selection", name],
        deps=deps,
        description=f"{recipe.budget_line} by {recipe.steps}",
        kinds={"winnow"},
        group_name="selections",
        freshness_policy=freshness(config, name),
        pool=GPU_POOL if recipe.encoder and needs_vectors(recipe) else None,
        code_version=hashlib.blake2b(recipe.model_dump_json().encode(), digest_size=8).hexdigest(),
        show=_explained,
        may_fail=True,
        after=[(stage, source) for stage in _STAGES_OF[source_asset]] if source is not None else [],
    )


def classifier_asset(config: Config, name: str) -> dg.AssetsDefinition:
    """The asset `<name>/classifier`."""
    classifier = config.classifiers[name]
    deps = [["pool"], *([model, "token_scores"] for model in models_of_classifier(config, name))]
    if classifier.encoder is not None:
        deps.append([classifier.encoder, "embeddings"])
        if classifier.targets:
            deps.append([classifier.encoder, "target_embeddings"])
    return stage_asset(
        fit_classifier,
        name,
        key=[name, "classifier"],
        deps=deps,
        show=lambda _, __: {"sql": as_sql(f"FROM classifiers WHERE name = '{name}' ORDER BY number DESC;")},
        may_fail=True,
        description=f"Tells {' from '.join(classifier.classes)}; measured on examples that it does not learn from.",
        kinds={"scikitlearn"},
        group_name="classifiers",
        pool=GPU_POOL if classifier.encoder is not None else None,
    )


def _explained(context: Context, outcome: Outcome) -> dict[str, Any]:
    explanation = explain(context, outcome.subject)
    return {
        "by_source": as_table(explanation.by_source),
        "first_rows": as_table(explanation.first_rows),
        "sql": as_sql(ready_sql(outcome.subject)),
        "selection_id": outcome.subject,
        "trial": trial_line(context.store, outcome.subject),
    }


def trial_asset(name: str) -> dg.AssetsDefinition:
    """The asset `trial/<name>`: whether a recipe's selection helped."""
    return stage_asset(
        trial,
        name,
        key=["trial", name],
        deps=[["selection", name]],
        after=[("select", name)],
        description=f"Small models trained on the selection of {name} and on as many tokens of random rows: did it help?",
        kinds={"pytorch"},
        group_name=TRIALS,
        pool=GPU_POOL,
        show=lambda context, outcome: {
            "effects": as_table(effect_rows(finished_trial(context.store, outcome.subject)))
        },
        may_fail=True,
    )


def export_asset(config: Config, name: str) -> dg.AssetsDefinition:
    """The asset `export/<name>`: files for a trainer, written once the recipe's checks have passed."""
    entry = config.exports[name]
    reader = f", with the file that {entry.trainer} wants" if entry.trainer else ""
    return stage_asset(
        export,
        name,
        key=["export", name],
        deps=[["selection", entry.recipe]],
        after=[("select", entry.recipe)],
        description=f"The selection of {entry.recipe} as {entry.to} in {entry.out}{reader}; replaced at once.",
        kinds={"parquet" if entry.options.container == "parquet" else "json"},
        group_name="exports",
        code_version=hashlib.blake2b(entry.model_dump_json().encode(), digest_size=8).hexdigest(),
    )


def catalog_asset(config: Config, encoders: Sequence[str]) -> dg.AssetsDefinition:
    """The asset `catalog`, published once all recipes are drawn and the health of all vectors is measured."""
    return stage_asset(
        publish,
        key=["catalog"],
        deps=[*(["selection", name] for name in config.recipes), *([encoder, "health"] for encoder in encoders)],
        description="The DuckDB file that anyone may query, also while a run writes.",
        kinds={"duckdb"},
        group_name="catalog",
    )


def passed_check() -> dg.AssetChecksDefinition:
    """The last step of a run: it fails where a stage that may fail did, so that the run is red though the catalog is not."""

    @dg.asset_check(
        name="every_stage_passed",
        asset=dg.AssetKey(["report"]),
        blocking=True,
        description="no recipe, classifier or export of this run failed or was held back, and Dagster knows the present "
        "winnow.yaml",
    )
    def every_stage_passed(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> dg.AssetCheckResult:
        opened = project.open(context)
        failed, stale = failed_stages(opened), is_stale(context.run, opened)
        lines = [f"{' '.join(stage)}: {status.replace('_', ' ')}" for stage, status in failed.items()]
        return dg.AssetCheckResult(
            passed=not failed and not stale,
            severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
            metadata={"detail": "; ".join([*lines, *([STALE] if stale else [])]) or "all passed"},
        )

    return every_stage_passed


def report_asset() -> dg.AssetsDefinition:
    """The asset `report`, written once the catalog is published."""
    return stage_asset(
        report,
        key=["report"],
        deps=[["catalog"]],
        description="What this run chose, what changed since the last one and why: one page and one JSON document.",
        kinds={"html"},
        group_name="catalog",
        show=_reported,
        publishes=False,
    )


def _mixes(mix: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """What rows are divided by -> the groups."""
    yield "source", mix["source"]
    yield mix["language"]["column"] or "language, of a sample", mix["language"]["lines"]
    if mix["quota"] is not None:
        yield f"quota: {mix['quota']['by']}", mix["quota"]["lines"]


def _reported(context: Context, outcome: Outcome) -> dict[str, Any]:
    """The numbers of the page; as tables of plain values, which the UI does not read as Markdown."""
    document = read_document(make_report(context, outcome.subject))
    changes = ("kept", "added", "dropped", "jaccard")
    recipes = [
        {"recipe": recipe["name"], "status": recipe["status"], "rows": recipe["rows"] or 0}
        | {key: (recipe["changes"] or {}).get(key) for key in changes}
        for recipe in document["recipes"]
    ]
    causes = [
        {"recipe": recipe["name"], "change": change, "cause": line["words"], "rows": line["rows"]}
        for recipe in document["recipes"]
        for change in ("added", "dropped")
        for line in (recipe["changes"] or {}).get(f"{change}_causes", [])
    ]
    by_group = [
        {
            "recipe": recipe["name"],
            "by": by,
            "group": line["group"],
            "rows": line["selected"],
            "wanted": line.get("wanted"),
        }
        | {key: line[key] for key in ("share", "share_of_pool")}
        for recipe in document["recipes"]
        if recipe["mix"] is not None
        for by, lines in _mixes(recipe["mix"])
        for line in lines
    ]
    shown = {
        "verdict": document["verdict"]["line"],
        "setup": document["verdict"]["setup"],
        "page": dg.MetadataValue.path(str(outcome.metrics["path"])),
    }
    tables = {"by_recipe": recipes, "causes": causes, "mix": by_group}  # Dagster has no table without rows
    return shown | {name: as_table(rows) for name, rows in tables.items() if rows}
