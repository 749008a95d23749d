"""The stages of labeling projects as Dagster assets: labels -> model -> batch; and a job for each project."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.orchestration.asset import GPU_POOL, as_sql, as_table, stage_asset
from pipelines.recipes.explain import FIRST_ROWS, prompts
from pipelines.stages.fit import fit
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from pipelines.stages.stage import Outcome
from storage.damage import read_record
from storage.ids import from_arrow
from storage.labels.rounds import read_round_items
from storage.pool.snapshot import open_snapshot


def job_name(project: str) -> str:
    """The job and the group of a project; Dagster's names have no `-`.

    Each project has a group of its own since the graph shows only the last part of a key.
    """
    return f"label_{project.replace('-', '_')}"


def labeling_job(project: str) -> Any:
    """The job over the assets of one project."""
    return dg.define_asset_job(
        job_name(project),
        dg.AssetSelection.groups(job_name(project)),
        description=f"Takes in the labels of {project}, fits its model and sends out the next batch.",
    )


def labeling_assets(name: str, project: Labeling, after: Sequence[Sequence[str]] = ()) -> list[dg.AssetsDefinition]:
    """The assets `<name>/labels`, `<name>/model` and `<name>/batch`.

    Args:
        after: further assets that the batch depends on: the vectors, and what else it is drawn by.
    """
    assert project.encoder is not None  # the configuration fills it in
    labels = stage_asset(
        pull,
        name,
        key=[name, "labels"],
        deps=[["pool"]],
        show=lambda _, __: {"sql": as_sql(_labels_sql(name))},
        may_fail=True,
        description="The append-only log of labels, from the project's label files; what is known already changes nothing.",
        kinds={"parquet"},
        group_name=job_name(name),
    )
    model = stage_asset(
        fit,
        name,
        key=[name, "model"],
        deps=[[name, "labels"], [project.encoder, "embeddings"]],
        show=lambda _, __: {"sql": as_sql(_model_sql(name))},
        may_fail=True,
        after=[("pull", name)],
        description="The classifier on the labels, measured on the random arm, from which it does not learn.",
        kinds={"scikitlearn"},
        group_name=job_name(name),
    )
    batch = stage_asset(
        push,
        name,
        key=[name, "batch"],
        deps=[[name, "model"], *after],
        show=_first_rows,
        may_fail=True,
        after=[("pull", name), ("fit", name)],
        description=f"The next {project.batch_size} rows to label, by {project.steps}; while a round is open, its batch again.",
        kinds={"winnow"},
        group_name=job_name(name),
        pool=GPU_POOL,
    )
    return [labels, model, batch]


def _first_rows(context: Context, outcome: Outcome) -> dict[str, Any]:
    """The first rows of a batch and a query for all; nothing before the first round."""
    store, round_id = context.store, outcome.subject
    if not store.has("records", "rounds", round_id):
        return {}
    items = read_round_items(store, round_id).slice(0, FIRST_ROWS)
    snapshot = open_snapshot(store, read_record("rounds", store.path("records", "rounds", round_id))["snapshot"])
    rows = [
        {
            "rank": item["rank"],
            "arm": item["arm"],
            "prompt": prompt,
            "prediction": item["prediction"] or "",
            "probability": item["probability"],
            "score": item["score"],
        }
        for item, prompt in zip(items.to_pylist(), prompts(snapshot, from_arrow(items["id"])), strict=True)
    ]
    return {"first_rows": as_table(rows), "sql": as_sql(_batch_sql(round_id)), "round_id": round_id}


def _labels_sql(name: str) -> str:
    return (
        f"SELECT *\nFROM annotators WHERE project = '{name}';\n\n"
        f"SELECT file, line, cause, excerpt\nFROM label_quarantine WHERE project = '{name}' LIMIT 20;"
    )


def _model_sql(name: str) -> str:
    return (
        "SELECT round, phase, labelled, found, metrics->>'accuracy' AS accuracy, spent_before\n"
        f"FROM rounds WHERE project = '{name}' ORDER BY round;"
    )


def _batch_sql(round_id: str) -> str:
    return (
        "SELECT i.rank, i.arm, i.prediction, i.probability, e.prompt, l.label, l.annotator\n"
        "FROM round_items i JOIN examples e USING (id) LEFT JOIN labels l ON l.id = i.id\n"
        f"WHERE i.round_id = '{round_id}' ORDER BY i.rank;"
    )
