"""The stages of labeling projects as Dagster assets: labels -> model -> batch, and the sensor that starts the next round."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg

from pipelines.config.load import Config, load_config
from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.errors import USER_ERRORS
from pipelines.orchestration.asset import as_sql, as_table, default_status, look, stage_asset
from pipelines.recipes.explain import FIRST_ROWS, excerpt
from pipelines.stages.fit import fit
from pipelines.stages.pull import label_files, pull
from pipelines.stages.push import push
from pipelines.stages.stage import Outcome
from storage.ids import from_arrow
from storage.labels.rounds import read_round_items, read_rounds
from storage.pool.snapshot import open_snapshot
from storage.store import Store, read_json


@dataclass(frozen=True)
class LabelingDefinitions:
    """What the labeling projects add to a code location."""

    keys: list[dg.AssetKey] = field(default_factory=list)
    assets: list[dg.AssetsDefinition] = field(default_factory=list)
    jobs: list[Any] = field(default_factory=list)
    sensors: list[dg.SensorDefinition] = field(default_factory=list)


def labeling_definitions(config: Config, config_path: Path) -> LabelingDefinitions:
    """Assets and a job a project, and one sensor for all."""
    found = LabelingDefinitions()
    for name, project in config.labeling.items():
        assets = _assets(name, project)
        found.assets.extend(assets)
        found.keys.extend(asset.key for asset in assets)
        found.jobs.append(
            dg.define_asset_job(
                job_name(name),
                dg.AssetSelection.assets(*(asset.key for asset in assets)),
                description=f"Takes in the labels of {name}, fits its model and sends out the next batch.",
            )
        )
    if config.labeling:
        found.sensors.append(_new_labels(config_path, found.jobs))
    return found


def job_name(project: str) -> str:
    """The job and the group of a project; Dagster's names have no `-`."""
    return f"label_{project.replace('-', '_')}"


def _assets(name: str, project: Labeling) -> list[dg.AssetsDefinition]:
    assert project.encoder is not None  # the configuration fills it in
    # A group a project, since the graph shows only the last part of a key.
    common: dict[str, Any] = {"group_name": job_name(name)}
    labels = stage_asset(
        pull,
        name,
        key=[name, "labels"],
        deps=[["pool"]],
        show=lambda _, __: {"sql": as_sql(_labels_sql(name))},
        description="The append-only log of labels, from the project's label files; what is known already changes nothing.",
        kinds={"parquet"},
        **common,
    )
    model = stage_asset(
        fit,
        name,
        key=[name, "model"],
        deps=[[name, "labels"], [project.encoder, "embeddings"]],
        show=lambda _, __: {"sql": as_sql(_model_sql(name))},
        description="The classifier on the labels, measured on the random arm, from which it does not learn.",
        kinds={"scikitlearn"},
        **common,
    )
    batch = stage_asset(
        push,
        name,
        key=[name, "batch"],
        deps=[[name, "model"], [project.encoder, "vector_index"]],
        show=_shown,
        description=f"The next {project.batch_size} rows to label, by {project.steps}; while a round is open, its batch again.",
        kinds={"winnow"},
        **common,
    )
    return [labels, model, batch]


def _shown(context: Context, outcome: Outcome) -> dict[str, Any]:
    """The first rows of a batch and a query for all; nothing before the first round."""
    store = context.store
    if not store.has("records", "rounds", outcome.subject):
        return {}
    items = read_round_items(store, outcome.subject)
    first = items.slice(0, FIRST_ROWS)
    ids = from_arrow(first["id"])
    snapshot = open_snapshot(store, _header(store, outcome.subject)["snapshot"])
    texts = {
        one: conversation[0][1]
        for found, turns in snapshot.turns(ids)
        for one, conversation in zip(found.tolist(), turns, strict=True)
    }
    rows = [
        {
            "rank": item["rank"],
            "arm": item["arm"],
            "prompt": excerpt(texts[one]),
            "prediction": item["prediction"] or "",
            "probability": item["probability"],
            "score": item["score"],
        }
        for one, item in zip(ids.tolist(), first.to_pylist(), strict=True)
    ]
    return {"first_rows": as_table(rows), "sql": as_sql(_batch_sql(outcome.subject)), "round_id": outcome.subject}


def _header(store: Store, round_id: str) -> dict[str, Any]:
    header: dict[str, Any] = read_json(store.path("records", "rounds", round_id, "round.json"))
    return header


def _labels_sql(name: str) -> str:
    return (
        f"SELECT *\nFROM annotators WHERE project = '{name}';\n\n"
        f"SELECT file, line, cause, excerpt\nFROM label_quarantine WHERE project = '{name}' LIMIT 20;"
    )


def _model_sql(name: str) -> str:
    return (
        "SELECT round, phase, labelled, found, metrics->>'accuracy' AS accuracy, spent\n"
        f"FROM rounds WHERE project = '{name}' ORDER BY round;"
    )


def _batch_sql(round_id: str) -> str:
    return (
        "SELECT i.rank, i.arm, i.prediction, i.probability, e.prompt, l.label, l.annotator\n"
        "FROM round_items i JOIN examples e USING (id) LEFT JOIN labels l ON l.id = i.id\n"
        f"WHERE i.round_id = '{round_id}' ORDER BY i.rank;"
    )


def _new_labels(config_path: Path, jobs: list[Any]) -> dg.SensorDefinition:
    """A run of a project's assets whenever its label files differ from those of the last look, or a lease has ended."""

    @dg.sensor(
        jobs=jobs,
        minimum_interval_seconds=30,
        default_status=default_status(dg.DefaultSensorStatus),
        description="Starts the next round when labels come in, or when the time for a batch is over.",
    )
    def new_labels(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        try:
            config = load_config(config_path)
        except USER_ERRORS as error:
            return dg.SkipReason(str(error))
        seen = {name: _seen(config, name) for name in config.labeling}
        before = json.loads(context.cursor) if context.cursor else {}
        known = {job.name for job in jobs}
        # What a first look finds is pulled too: that costs nothing where it is known, and sends out the first batch.
        changed = [name for name in seen if seen[name] != before.get(name) and job_name(name) in known]
        if not changed:
            return dg.SkipReason("no labels have come in")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(job_name=job_name(name)) for name in changed], cursor=json.dumps(seen)
        )

    return new_labels


def _seen(config: Config, name: str) -> str:
    """What a project's label files look like; and its newest round, once the time for it is over."""
    project = config.labeling[name]
    files = look([*label_files(project, config.root), *([project.gold] if project.gold else [])])
    rounds = read_rounds(Store(config.store), name)
    over = rounds and datetime.fromisoformat(rounds[-1]["lease_until"]) <= datetime.now(UTC)
    return f"{files} {rounds[-1]['round_id']}" if over else files
