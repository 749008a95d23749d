"""The record of a report: the document and a row for each change, committed together; and its page.

A page is made from the document alone, and almost all of it is the script of the plots. So it is no part of the record:
the pages of the last runs lie in `pages/`, and an older one is made again when somebody asks for it.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from pipelines.context import Context
from pipelines.report.gather import gather
from pipelines.report.history import LATEST, history_of
from pipelines.report.page import render
from storage.damage import committed_whole, read_record
from storage.packs import read_table
from storage.reports import PAGES, page_damage, page_seal
from storage.store import Store, sync_path

KIND = "reports"
PAGE, DOCUMENT, CHANGES = "report.html", "report.json", "changes.parquet"
KEPT_PAGES = 30


def make_report(context: Context, name: str = LATEST) -> Path:
    """The folder of a run's report, made now if the run has none yet.

    Args:
        name: the run's `invocation`, or `latest`.

    Raises:
        NothingYet: nothing was run yet.
        NotInStore: no run has this name.
    """
    store = context.store
    run = history_of(context, name).invocation
    if not committed_whole(store, KIND, run):
        document, changes = gather(context, run)
        with store.committing("records", KIND, run) as folder:
            (folder / DOCUMENT).write_bytes(orjson.dumps(document) + b"\n")
            pq.write_table(changes, folder / CHANGES, compression="zstd")
        store.path(PAGES, f"{run}.html").unlink(missing_ok=True)  # of a damaged report that was made again
    return store.place("records", KIND, run)


def read_document(folder: Path) -> dict[str, Any]:
    """The document of a committed report.

    Raises:
        StoreDamaged: it is not whole.
    """
    return read_record(KIND, folder)


def page_of(store: Store, folder: Path) -> Path:
    """The page of a committed report, made now unless it is there; beyond `KEPT_PAGES`, pages of the oldest runs go.

    Raises:
        StoreDamaged: the report is not whole.
    """
    if (folder / PAGE).is_file():  # as earlier versions committed it
        return folder / PAGE
    page = store.path(PAGES, f"{folder.name}.html")
    if page_damage(page):
        with store.scratch(page.name) as beside:
            content = render(read_document(folder)).encode("utf-8")
            (beside / PAGE).write_bytes(content + page_seal(content))
            page.parent.mkdir(exist_ok=True)
            (beside / PAGE).replace(page)
        others = sorted(set(page.parent.glob("*.html")) - {page})
        for old in others[: len(others) + 1 - KEPT_PAGES]:
            old.unlink(missing_ok=True)
    return page


def copy_report(store: Store, folder: Path, out: Path) -> Path:
    """Copy the page, the document and the changes of a report into a folder; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(page_of(store, folder), out / PAGE)
    (out / DOCUMENT).write_bytes(orjson.dumps(read_document(folder)) + b"\n")
    pq.write_table(read_table(folder, CHANGES), out / CHANGES, compression="zstd")
    return out / PAGE


def link_latest(store: Store, page: Path) -> Path:
    """Make `report.html` in the store's folder a link to the newest page; returns the link."""
    link, beside = store.path(PAGE), store.path(f".{PAGE}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(page.relative_to(store.root))
    beside.replace(link)
    sync_path(store.root)
    return link


def drop_pages(store: Store) -> None:
    """Remove all pages that can be made again."""
    shutil.rmtree(store.path(PAGES), ignore_errors=True)
