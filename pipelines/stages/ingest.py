"""Read the pool's files into the store and take a snapshot."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.runs import last_run
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.pool.columns import ingest_columns
from storage.pool.ingest import Ingest, check_bad_fraction, ingest_file
from storage.pool.snapshot import take_snapshot

# What becomes of the rows of the pool's files; the first is the sum of the next three.
COUNTS = ("read", "kept", "duplicate", "quarantined", "empty_responses")


@stage("ingest", checks={"rows_accounted_for": "read = kept + duplicate + quarantined"})
def ingest(context: Context) -> Outcome:
    """Read the pool's files into the store and take a snapshot; files that are there already cost one digest pass."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests: dict[str, Ingest] = {}
    rows = 0

    def count(more: int) -> None:
        nonlocal rows
        rows += more
        context.report.progress(f"read the pool, file {len(ingests) + 1} of {len(specs)}", rows, None)

    for spec in specs:
        done = ingest_file(store, spec, on_rows=count)
        ingests.setdefault(done.id, done)  # two files of the same bytes are one ingest
    check_bad_fraction(list(ingests.values()), config.pool.max_bad_fraction, store)
    if not any(one.readable for one in ingests.values()):
        raise BadInput(f"the pool is empty: the {len(specs)} files under `pool.files` hold no readable row")
    columns = [ingest_columns(store, brought.url, brought.id) for brought in config.pool.columns]
    last = last_run(store, "ingest")
    snapshot = take_snapshot(store, list(ingests), parent=last["subject"] if last else None, columns=columns)
    context.reopen_pool()
    total = {key: sum(counts[key] for counts in snapshot.counts.values()) for key in COUNTS}
    return Outcome(
        subject=snapshot.id,
        metrics={
            "files": len(specs),
            "new_files": sum(one.new for one in ingests.values()),
            "same_files": len(specs) - len(ingests),
            **total,
            "vanished": snapshot.header["tombstones"],
        },
        summary=f"{total['kept']:,} rows kept of {total['read']:,} read ({total['duplicate']:,} exact duplicates, "
        f"{total['quarantined']:,} quarantined), {sum(one.new for one in ingests.values())} of {len(specs)} files new",
        checks=(
            Check(
                "rows_accounted_for",
                total["read"] == total["kept"] + total["duplicate"] + total["quarantined"]
                and total["kept"] == len(snapshot),
                f"read {total['read']:,} = kept {total['kept']:,} + duplicate {total['duplicate']:,} "
                f"+ quarantined {total['quarantined']:,}; the snapshot has {len(snapshot):,} rows",
            ),
        ),
    )
