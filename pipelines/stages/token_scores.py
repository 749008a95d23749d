"""Log-likelihoods of rows under a causal language model, for the pool and the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.context import Context
from pipelines.engine import engine_for_models
from pipelines.progress import duration
from pipelines.stages.encode import run_model
from pipelines.stages.model_segments import SegmentContent, Turns
from pipelines.stages.stage import Check, Outcome, stage
from selection.encoders import ModelSpec, TokenScorer, load_token_scorer
from selection.types import SCORES as COLUMNS
from storage.ids import unique_ids
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.vectors.model_scores import CAUSE
from storage.vectors.segments import missing_ids

CHECKS = {"every_row_was_scored": "or the store has a record of why it could not be"}


@stage("token_scores", CHECKS)
def token_scores(context: Context, model: str) -> Outcome:
    """Score the rows of the pool and of the target sets that this model has not seen."""
    spec = context.config.models[model]
    sources: list[Snapshot | TargetSet] = [context.pool.snapshot, *context.pool.target_sets(context.config.targets)]
    reports = []
    for place, source in enumerate(sources):
        title = f"score {source.name if place else 'the pool'} with {model}"
        on_progress, engine = partial(context.report.progress, title), partial(engine_for_models, context)
        reports.append(run_model(context.store, Scoring(spec), source, on_progress=on_progress, engine=engine))
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        context.report.say(f"{model}: {note}")
    for column in sorted(context.pool.snapshot.known_columns()):
        if column.lower() in COLUMNS and model == next(iter(context.config.models)):
            context.report.say(
                f"{model}: the pool has a column {column} of its own, which counts; the model's is {model}_{column}"
            )
    rows, scored = sum(report.n_rows for report in reports), sum(report.n_encoded for report in reports)
    failed, truncated = sum(report.n_failed for report in reports), sum(report.truncated for report in reports)
    seconds = sum(report.seconds for report in reports)
    fingerprint = context.pool.model_fingerprint(model)
    missing = sum(len(missing_ids(context.store, fingerprint, unique_ids(source.ids))) for source in sources)
    return Outcome(
        subject=fingerprint,
        metrics={
            "texts": rows,
            "scored": scored,
            "failed": failed,
            "truncated": truncated,
            "tokens": sum(report.tokens for report in reports),
            "seconds_to_score": round(seconds, 3),
            "seconds_to_load": round(max((report.load_seconds for report in reports), default=0.0), 3),
        },
        summary=(f"{scored:,} texts scored in {duration(seconds)}" if scored else "nothing new to score")
        + f", {rows - failed:,} scored in all"
        + (f", {failed:,} without numbers" if failed else "")
        + (f", {truncated:,} cut at {spec.max_tokens:,} tokens" if truncated else ""),
        checks=(Check("every_row_was_scored", missing == 0, f"{missing:,} rows without token scores"),),
    )


@dataclass(frozen=True)
class Scoring:
    """Texts to log-likelihoods."""

    spec: ModelSpec

    @cached_property
    def fingerprint(self) -> str:
        """See `ModelPass`."""
        return self.spec.fingerprint()

    def load(self, device: str | None) -> TokenScorer:
        """See `ModelPass`."""
        return load_token_scorer(self.spec, device)

    def description(self, model: TokenScorer) -> dict[str, Any]:
        """See `ModelPass`."""
        return {"spec": asdict(self.spec), "dimension": 0, "max_tokens": model.max_tokens, "columns": list(COLUMNS)}

    def run(
        self, model: TokenScorer, turns: list[Turns], *, batch_tokens: int, on_batch: Callable[[int], None]
    ) -> SegmentContent:
        """See `ModelPass`."""
        scores = model.scores(turns, batch_tokens=batch_tokens, on_batch=on_batch)
        kept = np.setdiff1d(np.arange(len(turns)), scores.failed)
        columns = {name: pa.array(scores.values[kept, place], from_pandas=True) for place, name in enumerate(COLUMNS)}
        constant = {
            name: pa.array([value] * len(kept), pa.string())
            for name, value in (("model", self.spec.model), ("fingerprint", self.fingerprint))
        }
        causes = pa.array([scores.causes[row] or None for row in kept.tolist()], pa.string())
        return SegmentContent(
            vectors=np.empty((len(turns), 0), np.float32),
            failed={row: scores.causes[row] for row in scores.failed},
            tokens=scores.tokens,
            truncated=scores.truncated,
            table=pa.table({**constant, **columns, CAUSE: causes}),
        )
