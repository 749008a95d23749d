"""Read the pool's files into the store and take a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pipelines.context import Context
from pipelines.runs import last_run
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.pool.columns import ingest_columns
from storage.pool.ingest import Ingest, check_bad_fraction, ingest_file
from storage.pool.snapshot import take_snapshot

# Notices that are shown.
_NOTICES = 10
# Counts of the rows in the pool's files; `read` is the sum of the next three.
COUNTS = ("read", "kept", "duplicate", "quarantined", "empty_responses")


@stage("ingest", checks={"rows_accounted_for": "read = kept + duplicate + quarantined"})
def ingest(context: Context) -> Outcome:
    """Read the pool's files into the store and take a snapshot; files that are in the store already are only hashed."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests: dict[str, Ingest] = {}
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        context.report.progress(f"read the pool, file {len(ingests) + 1} of {len(specs)}", rows, None)

    for spec in specs:
        result = ingest_file(store, spec, reread=context.reread, on_rows=count)
        ingests.setdefault(result.id, result)  # two files of the same bytes are one ingest
    _report_notices(context, ingests.values())
    check_bad_fraction(list(ingests.values()), config.pool.max_bad_fraction, store)
    if not any(result.readable for result in ingests.values()):
        raise BadInput(f"the pool is empty: the {len(specs)} files under `pool.files` hold no readable row")
    columns = [ingest_columns(store, file.url, file.id) for file in config.pool.columns]
    last = last_run(store, "ingest")
    parent = last["subject"] if last and store.has("records", "snapshots", last["subject"]) else None
    snapshot = take_snapshot(store, list(ingests), parent=parent, columns=columns, prefer=config.pool.prefer)
    context.reopen_pool()
    new_files = sum(result.new for result in ingests.values())
    total = {key: sum(counts[key] for counts in snapshot.counts.values()) for key in COUNTS}
    accounted_for = total["read"] == total["kept"] + total["duplicate"] + total["quarantined"]
    detail = (
        f"read {total['read']:,} = kept {total['kept']:,} + duplicate {total['duplicate']:,} "
        f"+ quarantined {total['quarantined']:,}; the snapshot has {len(snapshot):,} rows"
    )
    return Outcome(
        subject=snapshot.id,
        metrics={
            "files": len(specs),
            "new_files": new_files,
            "same_files": len(specs) - len(ingests),
            **total,
            "vanished": snapshot.header["tombstones"],
        },
        summary=f"{total['kept']:,} rows kept of {total['read']:,} read ({total['duplicate']:,} exact duplicates, "
        f"{total['quarantined']:,} quarantined), {new_files} of {len(specs)} files new",
        checks=(Check("rows_accounted_for", accounted_for and total["kept"] == len(snapshot), detail),),
    )


def _report_notices(context: Context, ingests: Iterable[Ingest]) -> None:
    """Say what new files hold that was kept otherwise than it stood there, the commonest first."""
    notices = Counter[str]()
    for ingest in ingests:
        if ingest.new:
            notices.update(ingest.notices)
    for notice, rows in notices.most_common(_NOTICES):
        context.report.say(f"note: {notice}: {rows:,} {'row' if rows == 1 else 'rows'}")
    if len(notices) > _NOTICES:
        context.report.say(f"note: {len(notices) - _NOTICES} more; all are in the SQL view `notices`")
