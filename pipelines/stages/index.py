"""Index the pool's vectors for neighbour search."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.stages.stage import Check, Outcome, stage
from storage.vectors.index import FLAT_BELOW, build_index


@stage("index", checks={"recall_above_floor": "recall@10 against exact search, on a sample"})
def index(context: Context, encoder: str) -> Outcome:
    """Index the pool's vectors for neighbour search and measure the index against exact search.

    A pool so small that every row is compared gets none.
    """
    settings, report = context.config.index, context.report
    snapshot = context.pool.snapshot
    pool = context.pool.vectors(context.pool.fingerprint(encoder), snapshot)
    report.say(f"index {encoder}: {pool.shape[0]:,} vectors of {pool.shape[1]} dimensions")
    built = build_index(
        context.store,
        pool,
        snapshot=snapshot.id,
        kind=settings.kind,
        nprobe=settings.nprobe,
        progress=lambda task, done, total: report.progress(f"index {encoder}, {task}", done, total),
    )
    if built is None:
        return Outcome(
            subject=snapshot.id,
            metrics={"kind": "flat", "rows": pool.shape[0]},
            summary=f"none: every one of {pool.shape[0]:,} vectors is compared, below {FLAT_BELOW:,}",
            checks=(Check("recall_above_floor", True, "every row is compared"),),
        )
    detail = f"recall@10 {built.recall_at_10:.3f}, floor {settings.min_recall} (`index.min_recall`)"
    return Outcome(
        subject=built.index,
        metrics={"kind": built.kind, "rows": built.n_rows, "nprobe": built.nprobe, "recall_at_10": built.recall_at_10},
        summary=f"{built.kind} over {built.n_rows:,} vectors, recall@10 {built.recall_at_10:.3f} against exact search",
        checks=(Check("recall_above_floor", built.recall_at_10 >= settings.min_recall, detail),),
    )
