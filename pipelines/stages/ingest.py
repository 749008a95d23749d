"""Read the pool's files into the store and take a snapshot."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipelines.context import Context
from pipelines.engine import engine_for
from pipelines.messages import counted
from pipelines.runs import last_run
from pipelines.stages.stage import Check, Outcome, stage
from storage.errors import BadInput
from storage.pool.columns import ingest_columns
from storage.pool.ingest import FileSpec, Ingest, check_bad_fraction, ingest_file
from storage.pool.snapshot import take_snapshot
from storage.shards import in_turn

# Notices that are shown.
_NOTICES = 10
# Counts of the rows in the pool's files; `read` is the sum of the next three.
COUNTS = ("read", "kept", "duplicate", "quarantined", "empty_responses")


@stage(
    "ingest",
    checks={
        "rows_accounted_for": "read = kept + duplicate + quarantined",
        "no_file_set_aside": "every file of the pool could be read; with `bad_files: set_aside` the run goes on without it",
    },
)
def ingest(context: Context) -> Outcome:
    """Read the pool's files into the store and take a snapshot; files that are in the store already are only hashed."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    sets_aside = config.pool.bad_files == "set_aside"
    ingests: dict[str, Ingest] = {}
    bad: dict[str, BadInput] = {}
    rows = 0
    counting = threading.Lock()

    def count(more: int) -> None:
        nonlocal rows
        with counting:
            rows += more
            context.report.progress(f"read the pool, file {len(ingests) + 1} of {len(specs)}", rows, None)

    with _readings(context, specs, count) as readings:
        for spec, reading in zip(specs, readings, strict=True):
            try:
                result = reading()
                if sets_aside:
                    check_bad_fraction([result], config.pool.max_bad_fraction, store)
            except BadInput as error:
                if not sets_aside:
                    raise
                bad[spec.file] = error
                context.report.say(f"warning: {spec.file} is set aside: {error}")
                continue
            ingests.setdefault(result.id, result)  # two files of the same bytes are one ingest
    _report_notices(context, ingests.values())
    if bad and not ingests:
        raise next(iter(bad.values()))
    check_bad_fraction(list(ingests.values()), config.pool.max_bad_fraction, store)
    if not any(result.readable for result in ingests.values()):
        files = f"the {counted(len(specs), 'file')} under `pool.files` hold{'s' if len(specs) == 1 else ''}"
        raise BadInput(f"the pool is empty: {files} no readable row")
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
            "same_files": len(specs) - len(ingests) - len(bad),
            **({"files_set_aside": len(bad)} if bad else {}),
            **total,
            "vanished": snapshot.header["tombstones"],
        },
        summary=f"{total['kept']:,} rows kept of {total['read']:,} read ({total['duplicate']:,} exact duplicates, "
        f"{total['quarantined']:,} quarantined), {new_files} of {len(specs)} files new"
        + (f", {counted(len(bad), 'file')} set aside" if bad else ""),
        checks=(
            Check("rows_accounted_for", accounted_for and total["kept"] == len(snapshot), detail),
            Check("no_file_set_aside", not bad, _set_aside(bad), blocking=False),
        ),
    )


@contextmanager
def _readings(
    context: Context, specs: Sequence[FileSpec], count: Callable[[int], None]
) -> Iterator[list[Callable[[], Ingest]]]:
    """What gives the ingest of each file. Several files are read at the same time where that is worth it."""
    read = partial(ingest_file, context.store, reread=context.reread, on_rows=count)
    with engine_for(context, sum(map(_size, specs))) as (parallel, workers):
        if parallel is in_turn:
            yield [partial(read, spec) for spec in specs]
            return
        threads = ThreadPoolExecutor(workers)  # each waits for the processes that read the parts of its file
        try:
            yield [threads.submit(read, spec, parallel=parallel).result for spec in specs]
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _size(spec: FileSpec) -> int:
    """Bytes of a file of this machine; 0 where it is none, which reading it will say."""
    try:
        return Path(spec.url).stat().st_size
    except OSError:
        return 0


def _set_aside(bad: Mapping[str, BadInput]) -> str:
    """Which files are set aside, each with its cause in a line."""
    causes = []
    for name, error in bad.items():
        first, *more = str(error).splitlines()
        cause = more[0].strip() if more else first  # a report of bad rows names the file in its second line
        causes.append(cause if name in cause else f"{name}: {cause}")
    return "; ".join(causes) or "every file was read"


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
