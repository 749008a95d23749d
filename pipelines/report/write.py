"""The record of a report: the document, its page and a row for each change, committed together; and copies of them elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.report.gather import gather
from pipelines.report.history import LATEST, read_history
from pipelines.report.page import render
from storage.damage import committed_whole, read_record
from storage.store import Store, sync_path

KIND = "reports"
PAGE, DOCUMENT, CHANGES = "report.html", "report.json", "changes.parquet"


def make_report(context: Context, name: str = LATEST) -> Path:
    """The folder of a run's report, made now if the run has none yet.

    Args:
        name: the run's `invocation`, or `latest`.

    Raises:
        NothingYet: nothing was run yet.
        NotInStore: no run has this name.
    """
    store = context.store
    run = read_history(store, name).invocation
    if not committed_whole(store, KIND, run):
        document, changes = gather(context, run)
        page = render(document)
        with store.committing("records", KIND, run) as folder:
            (folder / DOCUMENT).write_bytes(orjson.dumps(document) + b"\n")
            (folder / PAGE).write_text(page, "utf-8")
            pq.write_table(changes, folder / CHANGES, compression="zstd")
    return store.path("records", KIND, run)


def read_document(folder: Path) -> dict[str, Any]:
    """The document of a committed report.

    Raises:
        StoreDamaged: it is not whole.
    """
    return read_record(KIND, folder)


def copy_report(folder: Path, out: Path) -> Path:
    """Copy the page, the document and the changes of a report into a folder; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (PAGE, DOCUMENT, CHANGES):
        shutil.copyfile(folder / name, out / name)
    return out / PAGE


def link_latest(store: Store, folder: Path) -> Path:
    """Make `report.html` in the store's folder a link to the newest page; returns the link."""
    link, beside = store.path(PAGE), store.path(f".{PAGE}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to((folder / PAGE).relative_to(store.root))
    beside.replace(link)
    sync_path(store.root)
    return link
