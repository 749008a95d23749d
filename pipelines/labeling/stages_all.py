"""The loop of a labeling project as three stages: labels come in, a model is fitted, a batch goes out.

pull -> fit -> push -> (people label the batch) -> pull ...

A project's state is its log of labels and its rounds; everything else is computed from them. So each stage can be run
again at any time: what has not changed gives the same again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from pipelines.config.schema import Labeling
from pipelines.context import Check, Context, Outcome, stage
from pipelines.labeling.inputs import sent
from pipelines.labeling.model import Learner, learner
from pipelines.labeling.project import Round, Standing, project_of, standing
from pipelines.labeling.rounds import draw_round, write_file
from pipelines.messages import counted
from storage import ids as idlib
from storage.errors import BadInput
from storage.files.user_files import expand
from storage.labels.log import LabelImport, import_labels


def label_files(project: Labeling, root: Path) -> list[str]:
    """The files of labels that there are now; none where the first are still to come."""
    found: list[str] = []
    for pattern in project.labels:
        with suppress(BadInput):
            found += expand([pattern], root)
    return found


@stage("pull")
def pull(context: Context, project: str, *files: str) -> Outcome:
    """Read the label files of a project, and any others given; what is known already changes nothing.

    Args:
        files: paths, globs or URLs beside those of the configuration, relative to the working directory.
    """
    section = project_of(context, project)
    snapshot = context.snapshot()
    urls = [url for file in files for url in expand([file], Path.cwd())] + label_files(section, context.config.root)
    done: list[LabelImport] = []
    if section.gold is not None:
        done.append(
            import_labels(context.store, project, section.gold, classes=section.classes, snapshot=snapshot, gold=True)
        )
    for url in dict.fromkeys(urls):
        done.append(
            import_labels(
                context.store, project, url, classes=section.classes, snapshot=snapshot, fields=section.fields or None
            )
        )
        context.report.progress(f"read labels of {project}", len(done), None, "files")
    new, known, bad = (sum(getattr(one, key) for one in done) for key in ("new", "known", "quarantined"))
    answers = sum(one.new for one in done if one.gold)
    at = standing(context, project)
    strange = at.answers.strange
    return Outcome(
        subject=at.answers.digest,
        facts={
            "files": len(done),
            "new_labels": new,
            "known_labels": known,
            "quarantined": bad,
            "labelled": at.labelled,
            "annotators": len(at.answers.annotators),
            "agreement": at.answers.agreement,
        },
        summary=f"{counted(new, 'new label')} from {counted(len(done), 'file')} ({known:,} were known"
        + (f", {answers:,} are answers of gold rows" if answers else "")
        + (f", {bad:,} could not be used: `label_quarantine` says why" if bad else "")
        + (f", {strange:,} are of classes that the project no longer has" if strange else "")
        + f"); {at.labelled:,} rows are labelled",
        checks=(
            Check(
                "labels_usable",
                bad == 0,
                f"{bad:,} labels of {len([one for one in done if one.quarantined])} files could not be used",
                blocking=False,
            ),
            Check(
                "classes_known",
                strange == 0,
                f"{strange:,} labels are of classes that the project no longer has",
                blocking=False,
            ),
        ),
    )


@stage("fit")
def fit(context: Context, project: str) -> Outcome:
    """Fit the project's classifier to its labels and measure it on the random arm, from which it does not learn."""
    at = standing(context, project)
    learn = learner(at)
    facts = {**learn.metrics, "spent": at.spent, "left": at.left}
    if not learn.ready:
        return Outcome(
            subject=at.answers.digest,
            facts=facts,
            summary=f"no model yet: {counted(at.labelled, 'row')} labelled, but labels of two classes are needed to learn from",
            checks=_fit_checks(learn),
        )
    model = learn.commit()
    advice = learn.advice()
    accuracy = learn.metrics.get("accuracy")
    measured = "not measured yet" if accuracy is None else f"{accuracy:.3f} right"
    return Outcome(
        subject=model,
        facts={**facts, "advice": "; ".join(advice.reasons) or None},
        summary=("your own probabilities" if learn.own else f"learned from {counted(len(learn.training.ids), 'row')}")
        + f"; on {counted(int(learn.metrics['held_out']), 'row')} of the random arm {measured}"
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=_fit_checks(learn),
    )


@stage("push")
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
        facts={**drawn["metrics"], **_facts(now, drawn)},
        summary=f"round {drawn['round']} ({drawn['phase'].replace('_', ' ')}): {len(items):,} rows to label in {file}"
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=(
            Check("batch_full", len(items) == asked, f"{len(items):,} of {asked:,} rows", blocking=False),
            Check("budget_left", now.left is None or now.left > 0, budget_line(now), blocking=False),
            _sent_once(at, drawn),
        ),
    )


def _again(at: Standing) -> Outcome:
    """The batches that are out, written once more."""
    files = [write_file(at, one) for one in at.open]
    newest = at.open[-1]
    waiting = sum(int((at.waiting(one) > 0).sum()) for one in at.open)
    which = ", ".join(str(one["round"]) for one in at.open)
    which = f"round {which} is" if len(files) == 1 else f"rounds {which} are"
    wait = "row waits" if waiting == 1 else "rows wait"
    return Outcome(
        subject=newest["round_id"],
        facts=_facts(at, newest),
        summary=f"{which} open: {waiting:,} {wait} for labels until {newest['lease_until']}; "
        f"to be labelled: {', '.join(files)}",
        checks=_still(at),
    )


def _none(at: Standing, why: str) -> Outcome:
    last = at.rounds[-1] if at.rounds else None
    return Outcome(
        subject=last["round_id"] if last else at.answers.digest,
        facts=_facts(at, last),
        summary=f"no further batch: {why}",
        checks=_still(at),
    )


def _still(at: Standing) -> tuple[Check, ...]:
    """What is said where nothing was drawn."""
    return (
        Check("batch_full", True, "nothing new was drawn", blocking=False),
        Check("budget_left", at.left is None or at.left > 0, budget_line(at), blocking=False),
        Check("rows_sent_once", True, "nothing new was drawn"),
    )


def _facts(at: Standing, one: Round | None) -> dict[str, float | int | str | None]:
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


def budget_line(at: Standing) -> str:
    """What was spent and what is left, in words."""
    budget = at.project.budget
    if budget is None:
        return f"{at.spent:g} {'spent' if at.answers.spent else 'rows labelled'} so far, without a limit"
    whole = budget.money if budget.money is not None else budget.rows
    return f"{at.spent:g} of {whole:g} {'spent' if budget.money is not None else 'rows labelled'}, {at.left:g} left"


def _sent_once(at: Standing, drawn: Round) -> Check:
    """Nothing that is out, or labelled, goes out again."""
    items = at.items(drawn)
    ids = idlib.from_arrow(items["id"])
    gone = np.union1d(sent(at.context.store, [one["round_id"] for one in at.open]), at.answers.ids[at.answers.labelled])
    twice = int(np.isin(ids, gone).sum())
    return Check("rows_sent_once", twice == 0, f"{twice:,} of {len(ids):,} rows are out already, or labelled")


def _fit_checks(learn: Learner) -> tuple[Check, ...]:
    found = np.unique(learn.training.labels)
    lacking = [name for number, name in enumerate(learn.at.project.classes) if number not in found]
    metrics = learn.metrics
    counts = [metrics.get(f"labels_{name}", 0) for name in learn.at.project.classes]
    return (
        Check(
            "every_class_labelled",
            not lacking,
            f"no labels to learn from of: {', '.join(lacking)}"
            if lacking
            else f"{min(counts):,} labels or more of each class",
            blocking=False,
        ),
    )
