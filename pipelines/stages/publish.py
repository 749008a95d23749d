"""Publish the catalog."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.stages.stage import Check, Outcome, stage
from storage.catalog.publish import publish_catalog
from storage.catalog.query import query_catalog
from storage.upkeep.compact import compact


@stage("publish", checks={"every_selection_listed": "it opens, and holds every selection that was committed before"})
def publish(context: Context) -> Outcome:
    """Publish the catalog: every record committed so far becomes visible to SQL at once."""
    compact(context.store)
    before = context.store.records("selections")
    path = publish_catalog(context.store)
    committed = len({*before} & {*context.store.records("selections")})  # damaged ones were put aside
    published = query_catalog(context.store, "SELECT count(*) FROM selections")[0][0].as_py()
    detail = f"{published:,} selections in the catalog, {committed:,} were committed"
    return Outcome(
        subject=path.name,
        metrics={"path": str(path), "size_bytes": path.stat().st_size, "selections": published},
        summary=f"catalog published: {context.store.path('winnow.duckdb')}",
        checks=(Check("every_selection_listed", published >= committed, detail),),
    )
