"""Write the report of a run, and tell who wants to know."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.report.write import PAGE, link_latest, make_report, read_document
from pipelines.stages.stage import Metric, Outcome, stage


@stage("report", checks={})
def report(context: Context) -> Outcome:
    """Write the report of this invocation."""
    folder = make_report(context, context.invocation)
    document = read_document(folder)
    link = link_latest(context.store, folder)
    verdict = document["verdict"]
    metrics: dict[str, Metric] = {
        "verdict": verdict["line"],
        "path": str(folder / PAGE),
        "size_bytes": (folder / PAGE).stat().st_size,
        "recipes": verdict["recipes"],
        "rows": verdict["rows"],
        **_changes(document),
    }
    return Outcome(subject=context.invocation, metrics=metrics, summary=f"{verdict['line']} Read {link}")


def _changes(document: dict[str, object]) -> dict[str, Metric]:
    """`kept`, `added` and `dropped` over all recipes that have a last selection."""
    recipes = document["recipes"]
    assert isinstance(recipes, list)
    compared = [recipe["changes"] for recipe in recipes if recipe["changes"] is not None]
    return {key: sum(changes[key] for changes in compared) for key in ("kept", "added", "dropped")} if compared else {}
