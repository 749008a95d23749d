"""Send out the next round of a labeling project."""

from __future__ import annotations

import numpy as np

from pipelines.context import Context
from pipelines.labeling.batch_files import write_files
from pipelines.labeling.model import project_model
from pipelines.labeling.project import ProjectState, Round, project_state
from pipelines.labeling.rounds import choice_text, draw_round
from pipelines.stages.stage import Check, Metric, Outcome, stage
from storage.ids import from_arrow
from storage.labels.rounds import sent_ids


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
    state = project_state(context, project)
    if state.open_rounds and not more:
        return _open_rounds(state)
    model = project_model(state)
    advice = model.advice()
    if advice.stop and state.settings.stop.halt:
        return _no_round(state, f"stopped, as `stop.halt` asks: {'; '.join(advice.reasons)}")
    header = draw_round(state, model, advice)
    if isinstance(header, str):
        return _no_round(state, header)
    files = ", ".join(write_files(state, header))
    after = project_state(context, project)
    people = after.waiting_for(header)
    size, asked, chosen = len(after.items(header)), state.settings.batch_size, choice_text(header)
    return Outcome(
        subject=header["round_id"],
        metrics={**header["metrics"], **_metrics(after, header)},
        summary=f"round {header['round']} ({header['phase'].replace('_', ' ')}): {size:,} rows to label "
        + (f"({people}) " if people else "")
        + f"in {files}"
        + (f"; {chosen}" if chosen else "")
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=(
            Check("batch_full", size == asked, f"{size:,} of {asked:,} rows", blocking=False),
            _budget_left(after),
            _sent_once(state, header),
        ),
    )


def _open_rounds(state: ProjectState) -> Outcome:
    """The batches that are out, written once more."""
    rounds = state.open_rounds
    files = [file for header in rounds for file in write_files(state, header)]
    waiting = sum(int((state.missing_labels(header) > 0).sum()) for header in rounds)
    numbers = ", ".join(str(header["round"]) for header in rounds)
    which = f"round {numbers} is" if len(rounds) == 1 else f"rounds {numbers} are"
    wait = "row waits" if waiting == 1 else "rows wait"
    people = "; ".join(filter(None, map(state.waiting_for, rounds)))
    whom = f" ({people})" if people else ""
    return Outcome(
        subject=rounds[-1]["round_id"],
        metrics=_metrics(state, rounds[-1]),
        summary=f"{which} open: {waiting:,} {wait} for labels{whom} until {rounds[-1]['lease_until']}; "
        f"to be labelled: {', '.join(files)}",
        checks=_nothing_drawn(state),
    )


def _no_round(state: ProjectState, cause: str) -> Outcome:
    last = state.rounds[-1] if state.rounds else None
    return Outcome(
        subject=last["round_id"] if last else state.annotations.digest,
        metrics=_metrics(state, last),
        summary=f"no further batch: {cause}",
        checks=_nothing_drawn(state),
    )


def _nothing_drawn(state: ProjectState) -> tuple[Check, ...]:
    """The checks of a push that drew no round."""
    return (
        Check("batch_full", True, "nothing new was drawn", blocking=False),
        _budget_left(state),
        Check("rows_sent_once", True, "nothing new was drawn"),
    )


def _budget_left(state: ProjectState) -> Check:
    return Check("budget_left", state.left is None or state.left > 0, state.budget_line(), blocking=False)


def _sent_once(state: ProjectState, header: Round) -> Check:
    """Nothing that is out, or labelled, goes out again."""
    ids = from_arrow(state.items(header)["id"])
    out = sent_ids(state.context.store, [before["round_id"] for before in state.open_rounds])
    labelled = state.annotations.ids[state.annotations.labelled]
    twice = int(np.isin(ids, np.union1d(out, labelled)).sum())
    return Check("rows_sent_once", twice == 0, f"{twice:,} of {len(ids):,} rows are out already, or labelled")


def _metrics(state: ProjectState, header: Round | None) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"labelled": state.labelled, "spent": state.spent, "left": state.left}
    if header is None:
        return metrics
    arms = state.items(header)["arm"].to_pylist()
    return {
        **metrics,
        "round": header["round"],
        "rows": len(arms),
        "random_rows": arms.count("random"),
        "gold_rows": arms.count("gold"),
        **({"rare_rows": arms.count("rare")} if "choice" in header else {}),
        "waiting": int((state.missing_labels(header) > 0).sum()),
        "waiting_for": state.waiting_for(header) or None,
        "lease_until": header["lease_until"],
    }
