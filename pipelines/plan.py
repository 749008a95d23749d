"""The plan of `winnow run`: the work that it would do."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.classifiers.entry import configured_classifier
from pipelines.classifiers.resolve import source_names
from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.errors import NothingYet
from pipelines.messages import counted
from pipelines.recipes.contamination import contamination_spec
from pipelines.recipes.spec import encoders_of, models_of, resolve_spec
from pipelines.runs import last_run
from storage.damage import KINDS, damage_of
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.pool.columns import columns_id
from storage.pool.ingest import ingest_id
from storage.vectors.segments import missing_ids

LATER = "the rest is known once the pool has been read"
# What keeps a line of the plan from being known, and is said in its place.
_UNKNOWN = (StoreDamaged, NotInStore, NothingYet, BadInput)


def plan_lines(context: Context) -> list[str]:
    """Describe what `run_all` would do, a line for each stage."""
    return list(_lines(context))


def _lines(context: Context) -> Iterator[str]:
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests = {ingest_id(store, spec) for spec in specs}
    new = sum(not store.has("pool", ingest) for ingest in ingests)
    yield f"pool: {len(specs)} files, {new} of them new or changed"
    damages = [_damage(context, "pool", ingest) for ingest in sorted(ingests)]
    last = last_run(store, "ingest")
    if last is not None:
        damages.append(_damage(context, "snapshots", last["subject"]))
    yield from (f"pool: {damage}; it will be made again" for damage in damages if damage)
    if last is None or any(damages) or not store.has("records", "snapshots", last["subject"]):
        yield LATER
        return
    snapshot = context.pool.snapshot
    columns = {columns_id(store, file.url, file.id) for file in config.pool.columns}
    if ingests != set(snapshot.ingests) or columns != set(snapshot.columns):
        yield f"snapshot: {len(snapshot):,} rows; its files have changed, a new one will be taken"
        yield LATER
        return
    yield f"snapshot: {len(snapshot):,} rows"
    if config.decontamination is not None:
        yield f"decontamination: {_contamination(context)}"
    for name in encoders_of(config, config.recipes):
        yield f"{name}/embeddings: {_embeddings(context, name)}"
    for name in models_of(config, config.recipes):
        yield f"{name}/token_scores: {_token_scores(context, name)}"
    for name in source_names(config, config.recipes):
        yield _source(context, name)
    for name in config.recipes:
        yield f"selection/{name}: {_selection(context, name)}"


def _damage(context: Context, kind: str, name: str) -> str | None:
    folder = context.store.path(*KINDS[kind].root, name)
    return damage_of(kind, folder) if folder.is_dir() else None


def _embeddings(context: Context, encoder: str) -> str:
    ids = context.pool.snapshot.ids
    try:
        lacking = len(missing_ids(context.store, context.pool.fingerprint(encoder), ids))
    except StoreDamaged as error:
        return f"{error}; its vectors will be made again"
    what = "take in" if encoder == OWN_VECTORS else "encode"
    return f"{lacking:,} rows to {what}, {len(ids) - lacking:,} in the store"


def _contamination(context: Context) -> str:
    spec = contamination_spec(context.pool)
    assert spec is not None
    if not context.store.has("records", "contaminations", spec.contamination_id):
        return f"{len(context.pool.snapshot):,} rows to search for evaluation texts"
    damage = _damage(context, "contaminations", spec.contamination_id)
    return f"{damage}; to be searched again" if damage else "searched already, nothing to do"


def _token_scores(context: Context, model: str) -> str:
    ids = context.pool.snapshot.ids
    lacking = len(missing_ids(context.store, context.pool.model_fingerprint(model), ids))
    return f"{lacking:,} rows to score, {len(ids) - lacking:,} in the store"


def _source(context: Context, name: str) -> str:
    """What gives recipes their probabilities."""
    if name in context.config.classifiers:
        return f"{name}/classifier: {_classifier(context, name)}"
    return f"{name}/model: label files to be read and the model to be fitted; with new labels, recipes that use it are drawn again"


def _classifier(context: Context, name: str) -> str:
    try:
        classifier = configured_classifier(context.pool, name)
    except _UNKNOWN as error:
        return str(error)
    examples = counted(len(classifier.examples.ids), "example")
    known = context.store.has("records", "classifiers", classifier.classifier_id)
    return f"fitted to the same {examples} already" if known else f"to be fitted to {examples}"


def _selection(context: Context, recipe: str) -> str:
    try:
        selection_id = resolve_spec(context, recipe).selection_id
    except _UNKNOWN as error:
        return str(error)
    if not context.store.has("records", "selections", selection_id):
        return "to be drawn"
    damage = _damage(context, "selections", selection_id)
    return f"{damage}; to be drawn again" if damage else "drawn already, nothing to do"
