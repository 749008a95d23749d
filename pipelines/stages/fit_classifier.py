"""Fit a classifier of `classifiers:` and measure it."""

from __future__ import annotations

from pipelines.classifiers.entry import configured_classifier
from pipelines.context import Context
from pipelines.stages.stage import Check, Outcome, stage


@stage("fit_classifier", checks={"better_than_chance": "it tells examples apart that it did not learn from"})
def fit_classifier(context: Context, name: str) -> Outcome:
    """Fit a classifier to its examples and measure it on those held out; nothing is done where none of them is new."""
    classifier = configured_classifier(context.pool, name)
    known = context.store.has("records", "classifiers", classifier.classifier_id)
    metrics = classifier.commit(context.pool)
    counts = ", ".join(f"{metrics[f'examples_{name}']:,} {name}" for name in classifier.classes)
    measured = "nothing held out to measure by"
    if "accuracy" in metrics:
        measured = f"on {metrics['held_out']:,} held out {metrics['accuracy']:.3f} right, AUC {metrics['auc']:.3f}"
    made = "fitted before to the same" if known else "fitted to"
    return Outcome(
        subject=classifier.classifier_id,
        metrics=metrics,
        summary=f"{made} {metrics['examples']:,} examples ({counts}); {measured}",
        checks=(Check("better_than_chance", metrics.get("auc", 1.0) > 0.5, measured, blocking=False),),
    )
