"""The plan of `winnow run`: the work that it would do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.classifiers.entry import configured_classifier
from pipelines.classifiers.resolve import source_names
from pipelines.config.schema import OWN_VECTORS, Config
from pipelines.context import Context
from pipelines.costs import Costs, Work
from pipelines.errors import NothingYet
from pipelines.labeling.project import ProjectState, project_state
from pipelines.labeling.rounds import choice_text
from pipelines.messages import counted
from pipelines.pool_files import PoolFiles, damage_in, pool_files
from pipelines.recipes.contamination import contamination_spec
from pipelines.recipes.health import LEAST_ROWS, SAMPLE_ROWS
from pipelines.recipes.spec import SelectionSpec, encoders_of, models_of, resolve_spec
from pipelines.runs import last_run
from selection.encoders.postprocess import postprocess_of, without_postprocess
from selection.sticky import churn_limit
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.pool.columns import columns_id
from storage.vectors.index import kind_for, records
from storage.vectors.segments import missing_ids

COPY = "copy by `postprocess`, without the model"
LATER = "the rest is known once the pool has been read"
# What keeps a line of the plan from being known, and is said in its place.
_UNKNOWN = (StoreDamaged, NotInStore, NothingYet, BadInput)


@dataclass(frozen=True)
class Line:
    """A line of the plan, and the work that it stands for."""

    text: str
    work: Work | None = None


def plan_lines(context: Context) -> list[str]:
    """Describe what `run_all` would do, a line for each stage."""
    return [line.text for line in _lines(context, pool_files(context))]


def plan_with_costs(context: Context, *, probe: bool = True) -> Iterator[str]:
    """The plan, then how long it takes and what memory and disk it needs.

    Args:
        probe: try an encoder that has encoded nothing yet on a few rows, which loads its model.
    """
    files = pool_files(context)
    lines = list(_lines(context, files))
    yield from (line.text for line in lines)
    works = [line.work for line in lines if line.work is not None]
    works += _loads(works)
    encoders = encoders_of(context.config, context.config.recipes)
    yield from Costs(context, works, files.rows, encoders, files.turns, probe=probe).lines()


def _lines(context: Context, files: PoolFiles) -> Iterator[Line]:
    config, store = context.config, context.store
    yield Line(
        f"pool: {counted(files.count, 'file')}, {files.new} of them new or changed",
        Work("ingest", None, files.new_bytes),
    )
    yield from (Line(f"pool: {error}") for error in files.errors)
    damages = [damage_in(context, "pool", ingest) for ingest in sorted(files.ingests)]
    last = last_run(store, "ingest")
    if last is not None:
        damages.append(damage_in(context, "snapshots", last["subject"]))
    yield from (Line(f"pool: {damage}; it will be made again") for damage in damages if damage)
    if last is None or any(damages) or not store.has("records", "snapshots", last["subject"]):
        yield from _expected(context, files)
        return
    snapshot = context.pool.snapshot
    columns = {columns_id(store, file.url, file.id) for file in config.pool.columns}
    if files.ingests != set(snapshot.ingests) or columns != set(snapshot.columns):
        yield Line(f"snapshot: {len(snapshot):,} rows; its files have changed, a new one will be taken")
        yield from _expected(context, files)
        return
    yield Line(f"snapshot: {len(snapshot):,} rows")
    if config.decontamination is not None:
        yield _contamination(context)
    encoded: set[str] = set()
    for name in encoders_of(config, config.recipes):
        yield from _embeddings(context, name, encoded)
        yield from _index(context, name)
    for name in models_of(config, config.recipes):
        yield _token_scores(context, name)
    for name in source_names(config, config.recipes):
        yield Line(_source(context, name))
    for name in config.recipes:
        yield _selection(context, name)
    for name in config.labeling:
        yield from _labeling(context, name)


def _expected(context: Context, files: PoolFiles) -> Iterator[Line]:
    """What can be said before the pool is read: as many rows as the new files seem to have."""
    config, about = context.config, f"about {files.new_rows:,} rows"
    if files.new_rows:
        encoded = set()
        for name in encoders_of(config, config.recipes):
            base = name if name == OWN_VECTORS else context.pool.base_fingerprint(name)
            if base not in encoded:
                yield Line(f"{name}/embeddings: {about} to {_verb(name)}", Work("embed", name, files.new_rows))
            encoded.add(base)
            if name != OWN_VECTORS and postprocess_of(config.encoders[name]) is not None:
                yield Line(f"{name}/embeddings: {about} to {COPY}", Work("postprocess", name, files.new_rows))
            if _wants_index(config, name, files.rows):
                yield Line(f"{name}/vector_index: about {files.rows:,} vectors", Work("index", name, files.rows))
        for name in models_of(config, config.recipes):
            yield Line(f"{name}/token_scores: {about} to score", Work("token_scores", name, files.new_rows))
        for name, project in config.labeling.items():
            if project.encoder is not None and project.encoder not in encoders_of(config, config.recipes):
                yield _encoded_first(name, project.encoder, about)
    yield Line(LATER)


def _encoded_first(project: str, encoder: str, rows: str) -> Line:
    """What only a batch of a labeling project needs: no work of `winnow run`, which leaves it out."""
    return Line(f"{project}/batch: `winnow labels push` has {rows} to {_verb(encoder)} with {encoder} first")


def _verb(encoder: str) -> str:
    return "take in" if encoder == OWN_VECTORS else "encode"


def _loads(works: Sequence[Work]) -> list[Work]:
    """How often each model is loaded: once by a stage that has rows for it."""
    stages = ("embed", "embed_targets", "token_scores")
    loads = Counter(work.target for work in works if work.amount and work.stage in stages)
    return [Work("load", model, count) for model, count in loads.items() if model != OWN_VECTORS]


def _embeddings(context: Context, encoder: str, encoded: set[str]) -> Iterator[Line]:
    """Vectors of the pool, their copies by `postprocess`, their health, and vectors of the targets.

    Args:
        encoded: fingerprints of what the lines before encode already, of pool and targets; this encoder's are added.
    """
    view = context.pool
    rows, base, own = len(view.snapshot), view.base_fingerprint(encoder), view.fingerprint(encoder)
    read = _lacking(context, encoder, base, "embed", _verb(encoder))
    made = read if own == base else _lacking(context, encoder, own, "postprocess", COPY)
    if base in encoded:
        yield Line(f"{encoder}/embeddings: the vectors before `postprocess` are those of another encoder")
    else:
        yield read
    if own != base:
        yield made
    if rows >= LEAST_ROWS and made.work is not None and made.work.amount:
        sample = min(rows, SAMPLE_ROWS)
        yield Line(f"{encoder}/health: to be measured on {sample:,} rows", Work("health", encoder, sample))
    if encoder != OWN_VECTORS:
        yield from _target_embeddings(context, encoder, encoded)
    encoded.add(base)


def _lacking(context: Context, encoder: str, fingerprint: str, stage: str, verb: str) -> Line:
    """The rows of the pool that lack a vector."""
    ids, title = context.pool.snapshot.ids, f"{encoder}/embeddings"
    try:
        lacking = len(missing_ids(context.store, fingerprint, ids))
    except StoreDamaged as error:
        return Line(f"{title}: {error}; its vectors will be made again", Work(stage, encoder, len(ids)))
    text = f"{title}: {lacking:,} rows to {verb}, {len(ids) - lacking:,} in the store"
    return Line(text, Work(stage, encoder, lacking))


def _target_embeddings(context: Context, encoder: str, encoded: set[str]) -> Iterator[Line]:
    """A line if rows of target sets lack a vector."""
    spec = without_postprocess(context.config.encoders[encoder].for_targets()).fingerprint()
    if f"targets {spec}" in encoded:
        return
    encoded.add(f"targets {spec}")
    try:
        sets = context.pool.target_sets(context.config.targets_in(encoder))
        lacking = sum(len(missing_ids(context.store, spec, np.unique(each.ids))) for each in sets)
    except _UNKNOWN as error:
        yield Line(f"{encoder}/target_embeddings: {error}")
        return
    if lacking:
        text = f"{encoder}/target_embeddings: {lacking:,} rows to encode"
        yield Line(text, Work("embed_targets", encoder, lacking))


def _index(context: Context, encoder: str) -> Iterator[Line]:
    """A line if the snapshot has no index of these vectors yet."""
    view = context.pool
    rows = len(view.snapshot)
    if not _wants_index(context.config, encoder, rows):
        return
    indexed = {record.snapshot for record in records(context.store, view.fingerprint(encoder))}
    if view.current not in indexed:
        yield Line(f"{encoder}/vector_index: {rows:,} vectors to index", Work("index", encoder, rows))


def _wants_index(config: Config, encoder: str, rows: int) -> bool:
    kind = config.index.kind
    return config.is_indexed(encoder) and (kind_for(rows) if kind == "auto" else kind) != "flat"


def _contamination(context: Context) -> Line:
    spec, rows = contamination_spec(context.pool), len(context.pool.snapshot)
    assert spec is not None
    work = Work("decontaminate", None, rows)
    if not context.store.has("records", "contaminations", spec.contamination_id):
        return Line(f"decontamination: {rows:,} rows to search for evaluation texts", work)
    damage = damage_in(context, "contaminations", spec.contamination_id)
    if damage:
        return Line(f"decontamination: {damage}; to be searched again", work)
    return Line("decontamination: searched already, nothing to do")


def _token_scores(context: Context, model: str) -> Line:
    ids = context.pool.snapshot.ids
    lacking = len(missing_ids(context.store, context.pool.model_fingerprint(model), ids))
    text = f"{model}/token_scores: {lacking:,} rows to score, {len(ids) - lacking:,} in the store"
    return Line(text, Work("token_scores", model, lacking))


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


def _selection(context: Context, recipe: str) -> Line:
    title, work = f"selection/{recipe}", Work("select", recipe, len(context.pool.snapshot))
    try:
        spec = resolve_spec(context, recipe)
    except _UNKNOWN as error:
        return Line(f"{title}: {error}", work)
    selection_id = spec.selection_id
    if not context.store.has("records", "selections", selection_id):
        return Line(f"{title}: to be drawn{_most_churn(spec)}", work)
    damage = damage_in(context, "selections", selection_id)
    if damage:
        return Line(f"{title}: {damage}; to be drawn again", work)
    return Line(f"{title}: drawn already, nothing to do")


def _most_churn(spec: SelectionSpec) -> str:
    if spec.max_churn is None:
        return ""
    most = churn_limit(spec.max_churn, spec.budget)
    return f"; at most {most:,} {spec.constraints.unit} of the last selection are replaced by others (`max_churn`)"


def _labeling(context: Context, project: str) -> Iterator[Line]:
    """What `winnow labels push` would do. `winnow run` sends out no batch, so there is no work to count."""
    config, ids = context.config, context.pool.snapshot.ids
    encoder = config.labeling[project].encoder
    try:
        if encoder is not None and encoder not in encoders_of(config, config.recipes):
            lacking = len(missing_ids(context.store, context.pool.fingerprint(encoder), ids))
            if lacking:
                yield _encoded_first(project, encoder, f"{lacking:,} rows")
        yield Line(f"{project}/batch: {_batch(project_state(context, project))}")
    except _UNKNOWN as error:
        yield Line(f"{project}/batch: {error}")


def _batch(state: ProjectState) -> str:
    """The next batch, by the labels that were read so far; `steps: auto` chooses its steps once it has read the others."""
    if state.open_rounds:
        newest = state.open_rounds[-1]
        waiting = counted(int((state.missing_labels(newest) > 0).sum()), "row")
        return (
            f"round {newest['round']} is out, waiting for labels of {waiting}; `winnow labels push` reads labels first"
        )
    if state.left is not None and state.left <= 0:
        return "the budget is spent"
    steps = "steps chosen by the labels" if state.settings.steps == "auto" else "the project's steps"
    text = f"`winnow labels push` reads labels, then sends out round {len(state.rounds)} by {steps}"
    chosen = choice_text(state.rounds[-1]) if state.rounds else ""
    return f"{text}; the last round had {chosen}" if chosen else text
