"""`winnow rollback`: the latest selection of a recipe, and its exports, become an earlier one again.

A rollback is a run of the stage `select` that drew nothing. So all that asks for a recipe's latest selection sees it,
and the next run that passes its checks, or another rollback, takes its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipelines.context import Context
from pipelines.errors import RecipesFailed, RollbackRefused
from pipelines.named import selection_of
from pipelines.run import export_all, run_stage
from pipelines.runs import runs
from pipelines.stages.publish import publish
from pipelines.stages.stage import record_run
from storage.damage import damage_of
from storage.records import read_selection

ROLLED_BACK = "rolled_back_from"


@dataclass(frozen=True)
class Rollback:
    """What a rollback did.

    Attributes:
        recipe: whose latest selection changed.
        before, now: the selections.
        rows: of the one now.
    """

    recipe: str
    before: str
    now: str
    rows: int

    @property
    def summary(self) -> str:
        """A sentence for the user."""
        return (
            f"the latest of {self.recipe} is {self.now} again ({self.rows:,} rows), as before {self.before}; "
            f"to undo it: winnow rollback {self.recipe} {self.before}"
        )


def roll_back(context: Context, recipe: str, name: str | None = None, reason: str = "") -> Rollback:
    """Make an earlier selection of a recipe its latest again, publish that, and write its exports anew.

    The same call ends a rollback that was killed, or whose export failed.

    Args:
        name: the selection; the one that was the latest before the present one was drawn, if left out.

    Raises:
        NotInStore: there is no such selection.
        RollbackRefused: it is no selection of the recipe that passed its checks, is the latest already, or is damaged.
        RecipesFailed: an export failed; the latest selection changed, the export stayed as it was.
    """
    with context.store.lock(f"select-{recipe}", f"winnow rollback {recipe}", context.report.say):
        passed = _passed(context, recipe)
        now = None if name is None else selection_of(context.store, name)
        rollback = _unfinished(context, passed[0]) if now in (None, passed[0]["subject"]) else None
        if rollback is None:
            rollback = _begin(context, recipe, passed, now, reason)
    run_stage(context, "catalog", publish)
    if failed := export_all(context, [recipe]):
        raise RecipesFailed({}, 1, failed)
    return rollback


def _unfinished(context: Context, last: dict[str, Any]) -> Rollback | None:
    """The rollback that was the last to make a selection the latest, if it was killed or failed before its end."""
    recipe, store = last["target"], context.store
    if ROLLED_BACK not in last["facts"]:
        return None
    since = takewhile(lambda run: run != last, runs(store))
    done = {(run["stage"], run["target"]) for run in since if run["status"] == "ok"}
    exports = {("export", name) for name, entry in context.config.exports.items() if entry.recipe == recipe}
    if {("publish", None)} | exports <= done:
        return None
    return Rollback(recipe, last["facts"][ROLLED_BACK], last["subject"], last["facts"]["rows"])


def _begin(context: Context, recipe: str, passed: list[dict[str, Any]], now: str | None, reason: str) -> Rollback:
    """Record the rollback: from then on it is the latest selection for all but SQL and exports."""
    store, before = context.store, passed[0]["subject"]
    now = now or _one_before(recipe, passed)
    if now == before:
        raise RollbackRefused(f"{now} is the latest selection of {recipe} already")
    if now not in {run["subject"] for run in passed}:
        raise RollbackRefused(f"{now} never was the latest selection of {recipe}, so that it cannot be so again")
    if damage := damage_of("selections", store.place("records", "selections", now)):
        raise RollbackRefused(f"{damage}; name another selection")
    rollback = Rollback(recipe, before, now, read_selection(store, now)[0]["n_items"])
    record_run(
        context,
        "select",
        recipe,
        subject=now,
        summary=f"rolled back from {before} to {now}{f': {reason}' if reason else ''}",
        facts={"rows": rollback.rows, ROLLED_BACK: before, "reason": reason},
    )
    return rollback


def _passed(context: Context, recipe: str) -> list[dict[str, Any]]:
    """The runs that made a selection the latest of the recipe, newest first; those whose selection is still there."""
    selection_of(context.store, recipe)  # says what recipes there are
    return [
        run
        for run in runs(context.store)
        if run["stage"] == "select"
        and run["status"] == "ok"
        and run["target"] == recipe
        and context.store.has("records", "selections", run["subject"])
    ]


def _one_before(recipe: str, passed: list[dict[str, Any]]) -> str:
    """The selection that was the latest before the present one was drawn; rollbacks are no draws."""
    drawn = [run["subject"] for run in passed if ROLLED_BACK not in run["facts"]]
    present = passed[0]["subject"]
    earlier = drawn[drawn.index(present) :] if present in drawn else drawn
    for subject in earlier:
        if subject != present:
            return str(subject)
    raise RollbackRefused(f"{recipe} has no selection before {present} in the store")
