"""Send out the next round of a labeling project."""

from __future__ import annotations

import numpy as np

from pipelines.context import Context
from pipelines.labeling.inputs import sent
from pipelines.labeling.model import learner
from pipelines.labeling.project import ProjectState, Round, budget_line, standing
from pipelines.labeling.rounds import draw_round, write_file
from pipelines.stages.stage import Check, Outcome, stage
from storage import ids as idlib


@stage(
    "push",
    checks={
        "batch_full": "as many rows as asked for",
        "budget_left": "there is something left to spend",
        "rows_sent_once": "no row is out already, or labelled",
    },
)
def push(context: Context, project: str, more: str = "") -> Outcome:
    """Send out the next round; while one is open, write its batch again instead.

    Args:
        more: any text draws another round although one is open; its rows are not sent twice.
    """
    at = standing(context, project)
    if at.open and not more:
        return _again(at)
    learn = learner(at)
    advice = learn.advice()
    if advice.stop and at.project.stop.halt:
        return _none(at, f"stopped, as `stop.halt` asks: {'; '.join(advice.reasons)}")
    drawn = draw_round(at, learn, advice)
    if isinstance(drawn, str):
        return _none(at, drawn)
    file = write_file(at, drawn)
    now = standing(context, project)
    items = now.items(drawn)
    asked = at.project.batch_size
    return Outcome(
        subject=drawn["round_id"],
        metrics={**drawn["metrics"], **_facts(now, drawn)},
        summary=f"round {drawn['round']} ({drawn['phase'].replace('_', ' ')}): {len(items):,} rows to label in {file}"
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=(
            Check("batch_full", len(items) == asked, f"{len(items):,} of {asked:,} rows", blocking=False),
            Check("budget_left", now.left is None or now.left > 0, budget_line(now), blocking=False),
            _sent_once(at, drawn),
        ),
    )


def _again(at: ProjectState) -> Outcome:
    """The batches that are out, written once more."""
    files = [write_file(at, one) for one in at.open]
    newest = at.open[-1]
    waiting = sum(int((at.waiting(one) > 0).sum()) for one in at.open)
    which = ", ".join(str(one["round"]) for one in at.open)
    which = f"round {which} is" if len(files) == 1 else f"rounds {which} are"
    wait = "row waits" if waiting == 1 else "rows wait"
    return Outcome(
        subject=newest["round_id"],
        metrics=_facts(at, newest),
        summary=f"{which} open: {waiting:,} {wait} for labels until {newest['lease_until']}; "
        f"to be labelled: {', '.join(files)}",
        checks=_still(at),
    )


def _none(at: ProjectState, why: str) -> Outcome:
    last = at.rounds[-1] if at.rounds else None
    return Outcome(
        subject=last["round_id"] if last else at.answers.digest,
        metrics=_facts(at, last),
        summary=f"no further batch: {why}",
        checks=_still(at),
    )


def _still(at: ProjectState) -> tuple[Check, ...]:
    """What is said where nothing was drawn."""
    return (
        Check("batch_full", True, "nothing new was drawn", blocking=False),
        Check("budget_left", at.left is None or at.left > 0, budget_line(at), blocking=False),
        Check("rows_sent_once", True, "nothing new was drawn"),
    )


def _facts(at: ProjectState, one: Round | None) -> dict[str, float | int | str | None]:
    facts: dict[str, float | int | str | None] = {"labelled": at.labelled, "spent": at.spent, "left": at.left}
    if one is None:
        return facts
    arms = at.items(one)["arm"].to_pylist()
    return {
        **facts,
        "round": one["round"],
        "rows": len(arms),
        "random_rows": arms.count("random"),
        "gold_rows": arms.count("gold"),
        "waiting": int((at.waiting(one) > 0).sum()),
        "lease_until": one["lease_until"],
    }


def _sent_once(at: ProjectState, drawn: Round) -> Check:
    """Nothing that is out, or labelled, goes out again."""
    items = at.items(drawn)
    ids = idlib.from_arrow(items["id"])
    gone = np.union1d(sent(at.context.store, [one["round_id"] for one in at.open]), at.answers.ids[at.answers.labelled])
    twice = int(np.isin(ids, gone).sum())
    return Check("rows_sent_once", twice == 0, f"{twice:,} of {len(ids):,} rows are out already, or labelled")
