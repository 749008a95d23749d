"""How much a rule on vectors finds of rows that hold an evaluation text: that of a recipe's filter, or of the pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from pipelines.stages.postprocess import embed_with
from pipelines.stages.stage import Check
from selection.contamination import ContaminationRules
from selection.filters.decontaminate import Decontaminate
from selection.types import Array, Rows
from storage.damage import committed_whole
from storage.pool.contamination import commit_embedding_recall, read_embedding_recall
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors

# Of the plants, so that every recipe of a pool shares them, and what was encoded for another is there.
SEED = 0
VERBATIM = "planted_examples_similar"
# The least recall of examples that stand alone, word for word. It is 1 where targets are encoded as the pool is; where
# they are not, the threshold may be one that no row can reach.
FLOOR = 0.95


@dataclass(frozen=True)
class VectorRule:
    """A rule on vectors, and the examples that it is held against.

    Attributes:
        encoder: its name in winnow.yaml.
        fingerprint: of the pool's vectors.
        snapshot: of the pool.
        without_vector: rows of the snapshot.
        examples: target sets, each with the places of the examples that count.
        vectors: of these examples, (m, d) for each set.
        thresholds: the least cosine, and the rules by which a row of the pool holds a question word for word.
        paraphrases: as `planted_rows`.
    """

    encoder: str
    fingerprint: str
    snapshot: Snapshot
    without_vector: Rows
    examples: Sequence[tuple[TargetSet, Rows]]
    vectors: Sequence[Array]
    thresholds: Sequence[tuple[float, ContaminationRules]]
    paraphrases: Sequence[tuple[int, int, str]] = ()


def embedding_recall(context: Context, recipe: str, spec: SelectionSpec) -> list[dict[str, Any]]:
    """What the recipe's rule on vectors finds of planted rows, as `EMBEDDING_RECALL_COLUMNS`; nothing without a rule."""
    steps = [step for step in spec.steps if isinstance(step, Decontaminate) and step.similarity is not None]
    encoder = context.config.recipes[recipe].encoder
    if not steps or encoder is None:
        return []

    def rule() -> VectorRule:
        inputs = DrawInputs(context.pool, spec)
        assert inputs.vectors is not None
        assert spec.encoder is not None
        examples = [(each, each.selecting) for each in inputs.target_sets]
        return VectorRule(
            encoder=encoder,
            fingerprint=spec.encoder,
            snapshot=inputs.snapshot,
            without_vector=inputs.vectors.failed_rows,
            examples=examples,
            vectors=[example_vectors(context.pool, spec, *each) for each in examples],
            thresholds=[(step.similarity, step.rules) for step in steps if step.similarity is not None],
        )

    return measured_once(context, recipe, encoder, spec.selection_id, rule)


def measured_once(
    context: Context, subject: str, encoder: str, record_id: str, rule: Callable[[], VectorRule]
) -> list[dict[str, Any]]:
    """What a rule finds of planted rows, as `EMBEDDING_RECALL_COLUMNS`.

    Nothing where vectors are the user's own: what is planted has to be encoded. Measured once for a record. Planted
    rows that were encoded before are not encoded again, whatever the threshold. A failure is reported, and stops
    nothing.

    Args:
        subject: what has the rule, for messages.
        record_id: of the selection, or of the search of the pool.
        rule: called only where it has not been measured.
    """
    store = context.store
    if encoder == OWN_VECTORS:
        return []
    try:
        if not committed_whole(store, "embedding_recalls", record_id):
            measured = rule()
            commit_embedding_recall(store, record_id, measured.fingerprint, _measured(context, measured))
        return read_embedding_recall(store, record_id)
    except (*USER_ERRORS, ImportError, OSError) as error:
        context.report.say(
            f"{subject}: what its rule on vectors finds of planted examples could not be measured: {error}"
        )
        return []


def _measured(context: Context, rule: VectorRule) -> pa.Table:
    carriers = Carriers.of(rule.snapshot, SEED, without=rule.without_vector)
    planted = planted_rows(rule.examples, carriers.turns, seed=SEED, paraphrases=rule.paraphrases)
    texts = PlantedTexts("planted examples", [row.turns for row in planted])
    title = f"embed planted examples with {rule.encoder}"
    embed_with(context, rule.encoder, texts, on_progress=partial(context.report.progress, title))
    targets = [
        (each.name, [question_of(each.conversations[place]) for place in places.tolist()], vectors)
        for (each, places), vectors in zip(rule.examples, rule.vectors, strict=True)
    ]
    vectors = StoredVectors(context.store, rule.fingerprint, texts.ids)
    carrier_vectors = StoredVectors(context.store, rule.fingerprint, rule.snapshot.ids[carriers.rows])
    return pa.concat_tables(
        recall_by_vectors(planted, vectors, carriers, carrier_vectors, targets, rules, threshold)
        for threshold, rules in rule.thresholds
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
