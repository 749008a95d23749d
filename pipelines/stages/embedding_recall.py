"""How much the rule on vectors of the filter `decontaminate` finds of rows that hold an example of a target set."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context
from pipelines.errors import USER_ERRORS
from pipelines.recipes.contamination import question_of
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.planted_rows import ALONE, INSIDE, Carriers, PlantedTexts, planted_rows, recall_by_vectors
from pipelines.recipes.spec import SelectionSpec
from pipelines.recipes.targets import example_vectors
from pipelines.stages.encode import embed
from pipelines.stages.stage import Check
from selection.filters.decontaminate import Decontaminate
from storage.damage import committed_whole
from storage.pool.contamination import commit_embedding_recall, read_embedding_recall
from storage.vectors.segments import StoredVectors

# Of the plants, so that every recipe of a pool shares them, and what was encoded for another is there.
SEED = 0
VERBATIM = "planted_examples_similar"
# The least recall of examples that stand alone, word for word. It is 1 where targets are encoded as the pool is; where they are
# not, the threshold may be one that no row can reach.
FLOOR = 0.95


def embedding_recall(context: Context, recipe: str, spec: SelectionSpec) -> list[dict[str, Any]]:
    """What the recipe's rule on vectors finds of planted rows, as `EMBEDDING_RECALL_COLUMNS`.

    Nothing where the recipe has no such rule, and where vectors are the user's own: what is planted has to be encoded.
    Measured once for a selection. Planted rows that were encoded before are not encoded again, whatever the threshold.
    A failure is reported, and does not stop the draw.
    """
    steps = [step for step in spec.steps if isinstance(step, Decontaminate) and step.similarity is not None]
    encoder = context.config.recipes[recipe].encoder
    if not steps or encoder is None or encoder == OWN_VECTORS:
        return []
    store, selection_id = context.store, spec.selection_id
    try:
        if not committed_whole(store, "embedding_recalls", selection_id):
            assert spec.encoder is not None
            commit_embedding_recall(store, selection_id, spec.encoder, _measured(context, encoder, spec, steps))
        return read_embedding_recall(store, selection_id)
    except (*USER_ERRORS, ImportError, OSError) as error:
        context.report.say(f"{recipe}: what `similarity` finds of planted examples could not be measured: {error}")
        return []


def _measured(context: Context, encoder: str, spec: SelectionSpec, steps: list[Decontaminate]) -> pa.Table:
    inputs = DrawInputs(context.pool, spec)
    stored = inputs.vectors
    assert stored is not None
    assert spec.encoder is not None
    carriers = Carriers.of(inputs.snapshot, SEED, without=stored.failed_rows)
    planted = planted_rows(inputs.target_sets, carriers.turns, seed=SEED)
    texts = PlantedTexts("planted examples", planted)
    title = f"embed planted examples with {encoder}"
    embed(context.store, context.config.encoders[encoder], texts, on_progress=partial(context.report.progress, title))
    targets = [
        (
            each.name,
            [question_of(each.conversations[place]) for place in each.selecting.tolist()],
            example_vectors(context.pool, spec, each, each.selecting),
        )
        for each in inputs.target_sets
    ]
    vectors = StoredVectors(context.store, spec.encoder, texts.ids)
    carrier_vectors = StoredVectors(context.store, spec.encoder, inputs.snapshot.ids[carriers.rows])
    return pa.concat_tables(
        recall_by_vectors(planted, vectors, carriers, carrier_vectors, targets, step.rules, step.similarity)
        for step in steps
        if step.similarity is not None
    )


def recall_metrics(recall: list[dict[str, Any]]) -> dict[str, float]:
    """The share of planted rows that are found in each form, over all kinds and sets, and of rows that hold no example."""
    metrics = {}
    for form in (ALONE, INSIDE):
        of_form = [each for each in recall if each["form"] == form]
        if of_form:
            metrics[f"embedding_recall_{form}"] = round(_share(of_form, "found", "planted"), 4)
    if any(each["negatives"] for each in recall):
        metrics["embedding_false_positives"] = round(_share(recall, "false_positives", "negatives"), 6)
    return metrics


def recall_check(recall: list[dict[str, Any]]) -> Check:
    """Whether the rule finds rows that are an example word for word, of each target set."""
    verbatim = [each for each in recall if (each["form"], each["kind"]) == (ALONE, "verbatim")]
    low = [each for each in verbatim if each["recall"] < FLOOR]
    if not verbatim:
        return Check(VERBATIM, True, "no rule on vectors, or nothing that could be planted", blocking=False)
    worst = low or [min(verbatim, key=lambda each: each["recall"])]
    named = "; ".join(
        f"{each['target_set']}: {each['found']} of {each['planted']} at a cosine of {each['threshold']}"
        for each in worst
    )
    return Check(VERBATIM, not low, f"{'below' if low else 'least'}: {named}; floor {FLOOR}", blocking=False)


def _share(recall: list[dict[str, Any]], part: str, whole: str) -> float:
    return float(sum(each[part] for each in recall) / sum(each[whole] for each in recall))
