"""Write the report of a run, and tell who wants to know."""

from __future__ import annotations

from typing import Any

from pipelines.context import Context
from pipelines.report.notify import failure_message, message_of, notify
from pipelines.report.write import link_latest, make_report, page_of, read_document
from pipelines.runs import runs
from pipelines.stages.stage import Check, Metric, Outcome, stage
from storage.catalog.publish import publish_catalog

LARGEST_BYTES = 5_000_000


@stage("report", checks={"page_is_small": f"the page has at most {LARGEST_BYTES:,} bytes"})
def report(context: Context) -> Outcome:
    """Write the report of this invocation, make `report.html` in the store a link to it, and send the notification.

    Where the run published the catalog, that is published once more, with the report; else it stays as it is.
    """
    try:
        folder = make_report(context, context.invocation)
        if _has_published(context):
            publish_catalog(context.store)
        document = read_document(folder)
        page = page_of(context.store, folder)
        link = link_latest(context.store, page)
    except Exception as error:
        notify(context, failure_message(context, error))
        raise
    notify(context, message_of(context, document, page))
    verdict, size = document["verdict"], page.stat().st_size
    metrics: dict[str, Metric] = {
        "path": str(page),
        "size_bytes": size,
        "recipes": verdict["recipes"],
        "rows": verdict["rows"],
        **_changes(document),
    }
    return Outcome(
        subject=context.invocation,
        metrics=metrics,
        summary=f"{verdict['line']} Read {link}",
        checks=(Check("page_is_small", size <= LARGEST_BYTES, f"{size:,} bytes", blocking=False),),
    )


def _has_published(context: Context) -> bool:
    return any(
        (run["invocation"], run["stage"], run["status"]) == (context.invocation, "publish", "ok")
        for run in runs(context.store)
    )


def _changes(document: dict[str, Any]) -> dict[str, Metric]:
    """`kept`, `added` and `dropped` over all recipes that have a last selection."""
    compared = [recipe["changes"] for recipe in document["recipes"] if recipe["changes"] is not None]
    return {key: sum(changes[key] for changes in compared) for key in ("kept", "added", "dropped")} if compared else {}
