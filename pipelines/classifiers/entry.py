"""A classifier of `classifiers:`: what it learns from, its fit, how good it is on examples that it did not learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.classifiers.examples import Examples, collect_examples
from pipelines.classifiers.features import Features, features_of, recorded_features
from pipelines.classifiers.model_source import ModelSource
from pipelines.errors import NothingYet
from pipelines.pool_view import PoolView
from selection.learning.classifier import (
    Model,
    build_classifier,
    fit_committee,
)
from selection.learning.measures import roc_auc
from selection.types import Array, Floats, Rows
from storage.damage import committed_whole
from storage.labels.classifiers import commit_classifier, read_classifier
from storage.pool.snapshot import Snapshot
from storage.records import digest_of

Metrics = dict[str, int | float]


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier on its examples.

    Attributes:
        name: of `classifiers:`.
        classes: their names.
        features: what it sees of a row.
        estimator: what is fitted, as the configuration has it.
        seed: of everything random.
        examples: what it learns from, and what measures it.
    """

    name: str
    classes: tuple[str, ...]
    features: Features
    estimator: Any
    seed: int
    examples: Examples

    @cached_property
    def classifier_id(self) -> str:
        """32 hex digits: a hash of all that the fit depends on."""
        return digest_of(self._depends_on() | {"examples": self.examples.plain()})

    def _depends_on(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "classes": list(self.classes),
            "features": self.features.record(),
            "estimator": self.estimator,
            "seed": self.seed,
        }

    @cached_property
    def _features(self) -> Array:
        return self.features.of_examples(self.examples)

    @cached_property
    def _training(self) -> tuple[Array, Rows]:
        trains = ~self.examples.held_out
        return self._features[trains], self.examples.labels[trains]

    @cached_property
    def model(self) -> Model:
        """Fitted to the examples that are not held out."""
        return build_classifier(self.estimator).fit(*self._training, len(self.classes), seed=self.seed)

    def committee(self, members: int) -> list[Model]:
        """Fitted to bootstrap samples of them."""
        classifier = build_classifier(self.estimator)
        return fit_committee(classifier, *self._training, len(self.classes), members=members, seed=self.seed)

    @cached_property
    def metrics(self) -> Metrics:
        """How many examples there are of each class, and how good the model is on those held out."""
        examples = self.examples
        metrics: Metrics = {"examples": len(examples.ids), "held_out": int(examples.held_out.sum())}
        for number, name in enumerate(self.classes):
            metrics[f"examples_{name}"] = int((examples.labels == number).sum())
        if metrics["held_out"]:
            P = self.model.probabilities(self._features[examples.held_out])
            metrics |= _measured(P, examples.labels[examples.held_out], self.classes)
        return metrics

    def commit(self, view: PoolView) -> Metrics:
        """Commit the record, unless it is there; gives its metrics."""
        store = view.store
        if not committed_whole(store, "classifiers", self.classifier_id):
            targets = {name: view.target_set(name).id for name in self.examples.target_sets if name is not None}
            header = {
                "classifier_id": self.classifier_id,
                **self._depends_on(),
                "snapshot": view.snapshot.id,
                "targets": targets,
                "metrics": self.metrics,
                "notes": list(getattr(self.model, "notes", ())),
            }
            commit_classifier(store, header, self.examples.table(self.classes))
        metrics: Metrics = read_classifier(store, self.classifier_id)[0]["metrics"]
        return metrics


def _measured(P: Floats, labels: Rows, classes: tuple[str, ...]) -> Metrics:
    """Accuracy; the area under the ROC curve, of each class against the rest in the mean; recall of each class."""
    right = P.argmax(axis=1) == labels
    areas = [roc_auc(P[:, number], labels == number) for number in np.unique(labels)]
    metrics: Metrics = {"accuracy": round(float(right.mean()), 6)}
    if len(areas) > 1:
        metrics["auc"] = round(float(np.mean(areas)), 6)
    for number in np.unique(labels).tolist():
        metrics[f"recall_{classes[number]}"] = round(float(right[labels == number].mean()), 6)
    return metrics


def configured_classifier(view: PoolView, name: str) -> FittedClassifier:
    """A classifier of the configuration, on the pool and the target sets as they are now; nothing is fitted yet."""
    classifier = view.once("configured classifier", name, lambda: _collected(view, name))
    return view.once("classifier", classifier.classifier_id, lambda: classifier)


def _collected(view: PoolView, name: str) -> FittedClassifier:
    settings = view.config.classifiers[name]
    features, unusable = features_of(view, settings)
    examples = collect_examples(view, name, settings, unusable)
    return FittedClassifier(name, tuple(settings.classes), features, settings.estimator, settings.seed, examples)


def recorded_classifier(view: PoolView, name: str, classifier_id: str) -> FittedClassifier:
    """A classifier that was fitted before; within an invocation it is fitted once.

    Args:
        name: for messages.

    Raises:
        NothingYet: it was not.
    """
    if not view.store.has("records", "classifiers", classifier_id):
        raise NothingYet(
            f"the classifier {name!r} was not fitted yet to the examples that there are now: run `winnow run`, or "
            f"materialize the asset {name}/classifier, first"
        )
    return view.once("classifier", classifier_id, lambda: _read(view, classifier_id))


def _read(view: PoolView, classifier_id: str) -> FittedClassifier:
    header, table = read_classifier(view.store, classifier_id)
    classes = tuple(header["classes"])
    features, examples = recorded_features(view, header), Examples.of_table(table, classes)
    return FittedClassifier(header["name"], classes, features, header["estimator"], header["seed"], examples)


class ClassifierSource(ModelSource):
    """A classifier that was fitted before, by the id of its record."""

    def __init__(self, view: PoolView, record: Mapping[str, Any], snapshot: Snapshot) -> None:
        self.classifier = recorded_classifier(view, record["name"], record["classifier"])
        super().__init__(self.classifier.features, self.classifier.classes, snapshot, record.get("members", 0))

    def fit(self) -> Model:
        """The model of its record."""
        return self.classifier.model

    def fit_members(self) -> list[Model]:
        """By bootstrap."""
        return self.classifier.committee(self.members)
