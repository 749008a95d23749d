"""`winnow check`: what of the store is not as it should be, and what this version would read otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.context import Context
from storage.pool.ingest import differences


def check_lines(context: Context) -> Iterator[str]:
    """What was seen, a line each; at least one."""
    config = context.config
    specs = config.pool.specs(config.root)
    otherwise = 0
    for number, spec in enumerate(specs, start=1):
        context.report.progress("compare with how files are read now", number, len(specs), "files")
        if difference := differences(context.store, spec):
            otherwise += 1
            yield (
                f"{difference.file}: an earlier version read it by other rules; now {difference.read_otherwise:,} rows "
                f"would have another id and {difference.readable:,} more could be read"
            )
    yield f"{len(specs) - otherwise:,} of {len(specs):,} files are as this version reads them"
    if otherwise:
        yield "they stay as they are; to read them again: winnow run --reread"
