"""Fit the classifier of a labeling project and measure it."""

from __future__ import annotations

from pipelines.context import Context
from pipelines.labeling.model import ProjectModel, project_model
from pipelines.labeling.project import project_state
from pipelines.messages import counted
from pipelines.stages.stage import Check, Outcome, stage


@stage("fit", checks={"every_class_labelled": "there are labels to learn from of each class"})
def fit(context: Context, project: str) -> Outcome:
    """Fit the project's classifier to its labels and measure it on the random arm, from which it does not learn."""
    state = project_state(context, project)
    model = project_model(state)
    metrics = {**model.metrics, "spent": state.spent, "left": state.left}
    if not model.ready:
        return Outcome(
            subject=state.annotations.digest,
            metrics=metrics,
            summary=f"no model yet: {counted(state.labelled, 'row')} labelled, but labels of two classes are needed "
            "to learn from",
            checks=_checks(model),
        )
    model_id = model.commit()
    advice = model.advice()
    accuracy = model.metrics.get("accuracy")
    measured = "not measured yet" if accuracy is None else f"{accuracy:.3f} right"
    learned = f"learned from {counted(len(model.training.ids), 'row')}"
    return Outcome(
        subject=model_id,
        metrics={**metrics, "advice": "; ".join(advice.reasons) or None},
        summary=("your own probabilities" if model.imported else learned)
        + f"; on {counted(int(model.metrics['held_out']), 'row')} of the random arm {measured}"
        + (f". It may be time to stop: {'; '.join(advice.reasons)}" if advice.stop else ""),
        checks=_checks(model),
    )


def _checks(model: ProjectModel) -> tuple[Check, ...]:
    classes = model.state.settings.classes
    trained_on = set(model.training.labels.tolist())
    unlabelled = [name for number, name in enumerate(classes) if number not in trained_on]
    fewest = min(model.metrics.get(f"labels_{name}", 0) for name in classes)
    detail = f"{fewest:,} labels or more of each class"
    if unlabelled:
        detail = f"no labels to learn from of: {', '.join(unlabelled)}"
    return (Check("every_class_labelled", not unlabelled, detail, blocking=False),)
