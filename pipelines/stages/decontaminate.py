"""Search the pool for evaluation texts, and measure how much of what was planted the search finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config.schema import Decontamination
from pipelines.context import Context
from pipelines.engine import engine_for
from pipelines.errors import NothingYet
from pipelines.messages import counted
from pipelines.recipes.contamination import (
    ContaminationSpec,
    Examples,
    contamination_spec,
    text_matches,
    vector_matches,
    vectors_of_sets,
)
from pipelines.recipes.planted import measured_recall, read_paraphrases
from pipelines.runs import code_version
from pipelines.stages.embedding_recall import VERBATIM, VectorRule, measured_once, recall_check, recall_metrics
from pipelines.stages.stage import Check, Outcome, stage
from storage.damage import committed_whole
from storage.ids import from_arrow
from storage.pool.contamination import commit_contamination, read_contamination, read_recall

# A row is searched in a tenth of the time that it takes to read it from a file.
EASE = 10


@stage(
    "decontaminate",
    checks={
        "recall_above_floor": "planted evaluation texts are found, in each disguise that the rules promise to see through",
        VERBATIM: "`embedding` finds rows that are an evaluation text word for word",
    },
)
def decontaminate(context: Context) -> Outcome:
    """Search the pool for evaluation texts; what was searched before is not searched again."""
    settings, spec = context.config.decontamination, contamination_spec(context.pool)
    if settings is None or spec is None:
        raise NothingYet("there is no `decontamination:` in winnow.yaml; `decontamination: {}` looks for all targets")
    store = context.store
    if not committed_whole(store, "contaminations", spec.contamination_id):
        _search(context, spec)
    header = read_contamination(store, spec.contamination_id)
    facts = header["facts"]
    recall = read_recall(store, spec.contamination_id)
    by_vectors = _embedding_recall(context, settings, spec)
    return Outcome(
        subject=spec.contamination_id,
        metrics=facts | recall_metrics(by_vectors),
        summary=_summary(facts, len(spec.against)),
        checks=(_recall_check(recall, settings.recall_floor), recall_check(by_vectors)),
    )


def _embedding_recall(context: Context, settings: Decontamination, spec: ContaminationSpec) -> list[dict[str, Any]]:
    """What the rule on vectors finds of planted rows; nothing without a rule."""
    if settings.embedding is None or spec.embedding is None:
        return []
    fingerprint, threshold = spec.embedding

    def rule() -> VectorRule:
        view = context.pool
        snapshot = view.snapshot_of(spec.snapshot)
        examples = Examples.of(sets := [view.target_set_of(record) for record in spec.against.values()])
        starts = np.searchsorted(examples.place, np.arange(len(sets)))
        return VectorRule(
            encoder=encoder,
            fingerprint=fingerprint,
            snapshot=snapshot,
            without_vector=view.vectors(fingerprint, snapshot).failed_rows,
            examples=[(each, np.arange(len(each))) for each in sets],
            vectors=vectors_of_sets(view, spec, sets),
            thresholds=[(threshold, spec.rules)],
            paraphrases=[
                (int(number := examples.place[place]), int(place - starts[number]), text)
                for place, text in _paraphrases(context, settings, spec, examples)
            ],
        )

    encoder = settings.embedding.encoder
    return measured_once(context, "decontamination", encoder, spec.contamination_id, rule)


def _paraphrases(
    context: Context, settings: Decontamination, spec: ContaminationSpec, examples: Examples
) -> list[tuple[int, str]]:
    if settings.paraphrases is None or spec.paraphrases is None:
        return []
    return read_paraphrases(context.store, settings.paraphrases, spec.paraphrases, examples)


def _search(context: Context, spec: ContaminationSpec) -> None:
    view, store = context.pool, context.store
    settings = context.config.decontamination
    assert settings is not None
    snapshot = view.snapshot_of(spec.snapshot)
    examples = Examples.of(sets := [view.target_set_of(record) for record in spec.against.values()])
    context.report.say(f"search {len(snapshot):,} rows for {counted(len(examples.ids), 'evaluation text')}")
    searched = 0

    def on_rows(more: int) -> None:
        nonlocal searched
        searched = min(searched + more, len(snapshot))  # a killed worker's rows are searched twice
        context.report.progress("search the pool for evaluation texts", searched, len(snapshot))

    with engine_for(context, snapshot.size_bytes // EASE) as (parallel, _):
        matches = text_matches(snapshot, sets, spec.rules, parallel=parallel, on_rows=on_rows)
    if spec.embedding is not None:
        matches = pa.concat_tables([matches, vector_matches(view, spec, examples)])
    rewordings = _paraphrases(context, settings, spec, examples)
    recall = measured_recall(snapshot, examples, spec.rules, plants=spec.plants, seed=spec.seed, paraphrases=rewordings)
    facts: dict[str, Any] = {
        "rows": len(snapshot),
        "examples": len(examples.ids),
        "contaminated_rows": _distinct(matches["id"]),
        "examples_in_pool": _distinct(matches["example"]),
    }
    for name in examples.sets:
        of_set = matches.filter(pc.equal(matches["target_set"], name))
        facts[f"contaminated_rows_{name}"] = _distinct(of_set["id"])
    promised = [each["recall"] for each in recall.to_pylist() if each["promised"]]
    if promised:
        facts["least_promised_recall"] = min(promised)
    header = spec.record() | {
        "contamination_id": spec.contamination_id,
        "facts": facts,
        "code_version": code_version(),
    }
    commit_contamination(store, header, matches, recall)


def _distinct(ids: pa.ChunkedArray) -> int:
    return len(np.unique(from_arrow(ids))) if len(ids) else 0


def _summary(facts: dict[str, Any], sets: int) -> str:
    return (
        f"{facts['contaminated_rows']:,} of {facts['rows']:,} rows hold {facts['examples_in_pool']:,} of "
        f"{facts['examples']:,} evaluation texts of {counted(sets, 'set')}; no recipe takes them"
    )


def _recall_check(recall: list[dict[str, Any]], floor: float) -> Check:
    promised = [each for each in recall if each["promised"]]
    low = [each for each in promised if each["recall"] < floor]
    worst = min(promised, key=lambda each: each["recall"], default=None)
    detail = f"floor {floor} (`decontamination.recall_floor`)"
    if worst is None:
        return Check(
            "recall_above_floor", False, f"no evaluation text has a word, so nothing could be planted; {detail}"
        )
    named = "; ".join(
        f"{each['target_set']}, {each['kind']}: {each['found']} of {each['planted']}" for each in low or [worst]
    )
    return Check("recall_above_floor", not low, f"{'below' if low else 'least'}: {named}; {detail}")
