"""Draw one recipe, commit the selection and check it."""

from __future__ import annotations

import numpy as np

from pipelines.context import Context
from pipelines.recipes import draw as selecting
from pipelines.recipes import spec as drawing
from pipelines.runs import last_run
from pipelines.stages.stage import Check, Outcome, stage
from storage import ids as idlib
from storage.pool.snapshot import open_snapshot
from storage.records import read_selection


@stage(
    "select",
    checks={
        "budget_met": "as many rows as asked for",
        "ids_unique": "no row twice",
        "ids_in_pool": "every row is in the pool's snapshot",
        "no_target_leaked": "no selected prompt is word for word a target's",
        "overlap_above_floor": "shares enough with the recipe's last selection",
    },
)
def select(context: Context, recipe: str) -> Outcome:
    """Draw one recipe, commit the selection and check it."""
    last = last_run(context.store, "select", recipe)
    drawn = selecting.draw(context, recipe)
    made = "drew" if drawn.new else "the same inputs as before, so the same"
    facts = {"rows": len(drawn.ids), **drawn.facts}
    kept_out = [f"{facts[rule]:,} {rule.replace('_', ' ')}" for rule in selecting.RULES if facts.get(rule)]
    by = selecting.DROPPED_BY
    dropped = [f"{name.removeprefix(by)} dropped {facts[name]:,}" for name in facts if name.startswith(by)]
    unknown = facts.get("deny_unknown")
    overlap = _overlap(context, drawn, last["subject"] if last else None)
    return Outcome(
        subject=drawn.drawing.selection_id,
        metrics=facts if overlap is None else {**facts, "overlap_with_last": round(overlap, 4)},
        summary=f"{made} {len(drawn.ids):,} rows of {facts['eligible']:,} eligible"
        + (f" (kept out: {', '.join(kept_out)})" if kept_out else "")
        + "".join(f"; {part}" for part in dropped)
        + (
            f"; {unknown:,} {'id' if unknown == 1 else 'ids'} of the deny list {'is' if unknown == 1 else 'are'} of no row of the pool"
            if unknown
            else ""
        ),
        checks=_selection_checks(context, recipe, drawn, overlap),
    )


def _overlap(context: Context, drawn: selecting.SelectionResult, last: str | None) -> float | None:
    """Jaccard overlap with the recipe's last selection; None on its first."""
    if last is None:
        return None
    before = idlib.from_arrow(read_selection(context.store, last)[1]["id"])
    common = len(np.intersect1d(before, drawn.ids))
    return common / max(len(before) + len(drawn.ids) - common, 1)


def _selection_checks(
    context: Context, name: str, drawn: selecting.SelectionResult, overlap: float | None
) -> tuple[Check, ...]:
    recipe = context.config.recipes[name]
    snapshot = open_snapshot(context.store, drawn.drawing.snapshot)
    count, distinct = len(drawn.ids), len(np.unique(drawn.ids))
    rows = idlib.rows_of(drawn.ids, snapshot.ids)
    every_target = drawing.target_sets(context, context.config.targets)
    leaked = int(selecting.contaminated(snapshot, every_target)[rows[rows >= 0]].sum())
    if overlap is None:
        compared = "the first selection of this recipe, nothing to compare with"
    else:
        compared = f"Jaccard {overlap:.3f} with the last selection, floor {recipe.min_overlap} (`min_overlap`)"
    tokens = drawn.facts.get("tokens")
    # Tokens stop before the row that overflows; that there were enough is known from the draw.
    met = count == recipe.budget if tokens is None else tokens <= recipe.amount and not drawn.exhausted
    of_tokens = "" if tokens is None else f" of {tokens:,} tokens"
    return (
        Check(
            "budget_met",
            met or (drawn.exhausted and recipe.allow_short),
            f"{count:,} rows{of_tokens}, budget {recipe.asked}"
            + (", the pool is exhausted" if drawn.exhausted else ""),
        ),
        Check("ids_unique", distinct == count, f"{distinct:,} of {count:,} are distinct"),
        Check("ids_in_pool", bool((rows >= 0).all()), f"{int((rows < 0).sum()):,} are not in the snapshot"),
        Check(
            "no_target_leaked",
            leaked == 0,
            f"{leaked:,} selected prompts are word for word a target's",
            blocking=recipe.exclude_targets,
        ),
        Check("overlap_above_floor", overlap is None or overlap >= recipe.min_overlap, compared),
    )
