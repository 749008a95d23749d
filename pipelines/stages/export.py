"""Export a recipe's last selection, as an entry of `exports` says."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.exports.export import export_selection
from pipelines.exports.place import place_of
from pipelines.stages.stage import Check, Outcome, record_run, stage
from storage.records import read_selection


@stage("export", checks={"rows_accounted_for": "every row of the selection was written, or is listed as left out"})
def export(context: Context, name: str) -> Outcome:
    """Write one entry of `exports`; what was exported before is replaced at once, or stays where this fails."""
    entry = context.config.exports[name]
    report = export_selection(context, entry.recipe, entry.options, entry.out)
    chosen, left_out = read_selection(context.store, report.selection)[0]["n_items"], sum(report.left_out.values())
    return Outcome(
        subject=report.selection,
        metrics={
            "path": str(report.out),
            "rows": report.rows,
            "left_out": left_out,
            "size_bytes": sum(file["bytes"] for file in report.provenance["files"]),
        },
        summary=report.summary,
        checks=(
            Check(
                "rows_accounted_for",
                report.rows + left_out == chosen,
                f"{report.rows:,} written, {left_out:,} left out, {chosen:,} chosen",
            ),
        ),
    )


def record_export(context: Context, out: str, selection: str | None = None) -> None:
    """Record an export that no entry of `exports` made: what it holds stays, and rows in it are known to be in it."""
    path = str(place_of(out))
    context.store.sweep()  # what one left that was killed here
    record_run(context, "export", None, subject=selection, summary=f"written to {path}", facts={"path": path})
