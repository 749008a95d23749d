"""Fit the classifier of a labeling project and measure it."""

from __future__ import annotations

import numpy as np

from pipelines.context import Context
from pipelines.labeling.model import ProjectModel, learner
from pipelines.labeling.project import standing
from pipelines.messages import counted
from pipelines.stages.stage import Check, Outcome, stage


@stage("fit", checks={"every_class_labelled": "there are labels to learn from of each class"})
def fit(context: Context, project: str) -> Outcome:
    """Fit the project's classifier to its labels and measure it on the random arm, from which it does not learn."""
    at = standing(context, project)
    learn = learner(at)
    facts = {**learn.metrics, "spent": at.spent, "left": at.left}
    if not learn.ready:
        return Outcome(
            subject=at.answers.digest,
            metrics=facts,
            summary=f"no model yet: {counted(at.labelled, 'row')} labelled, but labels of two classes are needed to learn from",
            checks=_fit_checks(learn),
        )
    model = learn.commit()
    advice = learn.advice()
    accuracy = learn.metrics.get("accuracy")
    measured = "not measured yet" if accuracy is None else f"{accuracy:.3f} right"
    return Outcome(
        subject=model,
        metrics={**facts, "advice": "; ".join(advice.reasons) or None},
        summary=("your own probabilities" if learn.own else f"learned from {counted(len(learn.training.ids), 'row')}")
        + f"; on {counted(int(learn.metrics['held_out']), 'row')} of the random arm {measured}"
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=_fit_checks(learn),
    )


def _fit_checks(learn: ProjectModel) -> tuple[Check, ...]:
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
