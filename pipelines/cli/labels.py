"""The work of `winnow labels`: the stages of a labeling project in one process, and tables of its state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.reader import is_name
from pipelines.config.schema import Config
from pipelines.context import Context
from pipelines.errors import UnknownProject
from pipelines.labeling.adjudication import adjudicator, write_ties
from pipelines.labeling.annotations import Annotations
from pipelines.labeling.model import ProjectModel, project_model
from pipelines.labeling.project import ProjectState, configured_project, project_settings, project_state
from pipelines.messages import counted
from pipelines.recipes.spec import models_of_project
from pipelines.run import prepare, read_pool, run_stage
from pipelines.stages.fit import fit
from pipelines.stages.publish import publish
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from pipelines.stages.stage import Outcome
from selection.learning.annotators import agreement_bounds
from storage.errors import NotInStore

Table = tuple[str, list[dict[str, Any]]]


def choose_project(config: Config, name: str | None) -> str:
    """The named project, or the only one.

    Raises:
        UnknownProject: the configuration has none, or several and `name` is None.
    """
    known = list(config.labeling)
    if name is not None or len(known) == 1:
        return name if name is not None else known[0]
    if not known:
        raise UnknownProject("winnow.yaml has no labeling project; add one under `labeling`")
    raise UnknownProject(f"there are several labeling projects, name one of: {', '.join(known)}")


def split_arguments(config: Config, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """A project and files: the first argument may name the project, the others are files.

    Raises:
        UnknownProject: the first argument can be neither.
    """
    if arguments and is_name(arguments[0]) and not Path(arguments[0]).exists():
        configured_project(config, arguments[0])
    named = bool(arguments) and arguments[0] in config.labeling
    return choose_project(config, arguments[0] if named else None), list(arguments[1:] if named else arguments)


def push_batch(context: Context, project: str, *, more: bool) -> Outcome:
    """Read the pool, embed it, pull labels, fit the model and push the next batch.

    Raises:
        UnknownProject: before any work.
        HeldBack: a blocking check failed.
    """
    section = project_settings(context, project)
    encoders = [section.encoder] if section.encoder else []
    read_pool(context, encoders)
    prepare(context, encoders, models_of_project(context.config, project))
    run_stage(context, f"{project}/labels", pull, project)
    run_stage(context, f"{project}/model", fit, project)
    outcome = run_stage(context, f"{project}/batch", push, project, *(["more"] if more else []))
    run_stage(context, "catalog", publish)
    return outcome


def pull_labels(context: Context, project: str, files: Sequence[str]) -> None:
    """Pull labels from the project's files and from `files`, and fit the model to them."""
    project_settings(context, project)
    run_stage(context, f"{project}/labels", pull, project, *files)
    run_stage(context, f"{project}/model", fit, project)
    run_stage(context, "catalog", publish)


def adjudicate(context: Context, project: str) -> str:
    """Pull labels and write the rows whose votes are tied for the project's adjudicator; gives a sentence for the user.

    Raises:
        NothingYet: the project names no adjudicator; before any work.
    """
    adjudicator(project, project_settings(context, project))
    pull_labels(context, project, [])
    return write_ties(project_state(context, project))


def status_tables(context: Context, project: str) -> list[Table]:
    """Titled tables of a project's state, and lines for its cost and the advice of the stopping rules."""
    state = project_state(context, project)
    model = project_model(state)
    tables = [
        ("rounds", [_round(state, header) for header in state.rounds]),
        ("labels", _labels(model)),
        ("annotators", _annotators(state.annotations)),
    ]
    try:
        advice = model.advice()
        reasons = "; ".join(advice.reasons) or "no rule advises to stop"
    except NotInStore:
        reasons = "not known until the pool has been read and embedded"
    tables += [(f"round {header['round']} waits: {whom}", []) for header, whom in _awaited(state)]
    tables += [(line, []) for line in state.of_others]
    tables += [(f"perhaps one person: {', '.join(names)}", []) for names in state.annotations.spellings]
    tables += [(line, []) for line in _ties(state)]
    return [*tables, (f"cost: {state.budget_line()}", []), (f"stop: {reasons}", [])]


def _awaited(state: ProjectState) -> list[tuple[dict[str, Any], str]]:
    """The open rounds that say whose labels they wait for, and whose."""
    awaited = [(header, state.waiting_for(header)) for header in state.open_rounds]
    return [(header, whom) for header, whom in awaited if whom]


def _ties(state: ProjectState) -> list[str]:
    """What becomes of rows with tied votes, in words."""
    annotations, person = state.annotations, state.settings.adjudicator
    waiting = int((annotations.tied & annotations.adjudicated).sum())
    before = int((annotations.tied & ~annotations.adjudicated).sum())
    decides = f"{person} decides: `winnow labels adjudicate`" if person else "another vote decides"
    lines = [f"tied: {counted(waiting, 'row')} without a label, until {decides}"] if waiting else []
    if before:
        lines.append(f"tied: {counted(before, 'row')} with the first class, as an earlier version read the votes")
    return [f"{line} (`adjudication` lists them)" for line in lines]


def _round(state: ProjectState, header: dict[str, Any]) -> dict[str, Any]:
    waiting = int((state.missing_labels(header) > 0).sum())
    is_open = header in state.open_rounds
    return {
        "round": header["round"],
        "phase": header["phase"].replace("_", " "),
        "rows": header["n_items"],
        "waiting": waiting,
        "state": "open" if is_open else "done" if not waiting else "lease over",
        "random arm": _right(header["metrics"]),
        "spent before": header["spent"],
        "until": header["lease_until"] if is_open else None,
    }


def _right(metrics: dict[str, Any]) -> str | None:
    """How many rows of the random arm the model predicted right; a share alone would hide how few they are."""
    if "accuracy" not in metrics:
        return None
    return f"{round(metrics['accuracy'] * metrics['held_out'])} of {metrics['held_out']} right"


def _labels(model: ProjectModel) -> list[dict[str, Any]]:
    """The labels of each class, beside what the random arm says that as many rows drawn at random would hold."""
    at_random = model.at_random
    drawn = sum(at_random.values())
    return [
        {
            "class": name,
            "found": count,
            "at random": round(model.state.labelled * at_random[name] / drawn, 1) if drawn else None,
            "in the random arm": f"{at_random[name]} of {drawn}",
        }
        for name, count in model.state.by_class(model.state.annotations.labelled).items()
    ]


def _annotators(annotations: Annotations) -> list[dict[str, Any]]:
    """Agreement with the consensus on rows that several people labelled, as an interval: a few labels say little."""
    votes, people = annotations.votes, annotations.annotators
    shared_labels = np.where(annotations.consensus.count < 2, -1, annotations.consensus.labels)
    bounds = agreement_bounds(votes, shared_labels, len(people))
    labels = np.bincount(votes.annotators, minlength=len(people))
    shared = np.bincount(votes.annotators[shared_labels[votes.rows] >= 0], minlength=len(people))
    return [
        {
            "annotator": name,
            "labels": int(labels[i]),
            "shared": int(shared[i]),
            "agrees at least": bounds.lower[i] if shared[i] else None,
            "at most": bounds.upper[i] if shared[i] else None,
        }
        for i, name in enumerate(people)
    ]
