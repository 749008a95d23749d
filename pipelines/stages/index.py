"""Index the pool's vectors for neighbour search."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.stages.stage import Check, Outcome, stage
from storage.vectors.index import build_index


@stage("index", checks={"recall_above_floor": "recall@10 against exact search, on a sample"})
def index(context: Context, encoder: str) -> Outcome:
    """Index the pool's vectors for neighbour search and measure the index against exact search."""
    settings = context.config.index
    snapshot = context.pool.snapshot
    pool = context.pool.vectors(context.pool.fingerprint(encoder), snapshot)
    context.report.say(f"index {encoder}: {pool.shape[0]:,} vectors of {pool.shape[1]} dimensions")
    built = build_index(context.store, pool, snapshot=snapshot.id, kind=settings.kind, nprobe=settings.nprobe)
    detail = f"recall@10 {built.recall_at_10:.3f}, floor {settings.min_recall} (`index.min_recall`)"
    return Outcome(
        subject=built.index,
        metrics={"kind": built.kind, "rows": built.n_rows, "nprobe": built.nprobe, "recall_at_10": built.recall_at_10},
        summary=f"{built.kind} over {built.n_rows:,} vectors, recall@10 {built.recall_at_10:.3f} against exact search",
        checks=(Check("recall_above_floor", built.recall_at_10 >= settings.min_recall, detail),),
    )
