"""The model of a labeling project: fitted, measured on what it did not learn from, compared with those of earlier rounds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.classifiers.training import TrainingSet, fit_model, has_vector
from pipelines.labeling.inputs import imported_probabilities, training_set
from pipelines.labeling.project import ProjectState
from selection.errors import InvalidInput
from selection.learning.annotators import NONE, relabel_scores
from selection.learning.auto import agreement_of
from selection.learning.classifier import LogisticRegression, Model, build_classifier, out_of_fold
from selection.learning.stopping import Advice, Observation, Rules, advise, overall_uncertainty
from selection.types import Floats, Mask
from storage.damage import committed_whole, readable
from storage.ids import Ids, from_arrow, rows_of, to_arrow
from storage.labels.imported_probabilities import probabilities_id
from storage.labels.models import commit_model, model_digest, read_model
from storage.labels.rounds import sent_ids
from storage.vectors.segments import StoredVectors

# Rows whose predictions are compared from round to round.
STOP_ROWS = 2000
# An accuracy measured on fewer rows says nothing of a plateau: three right of three are hard to beat.
MEASURED_ROWS = 50


@dataclass(frozen=True)
class ProjectModel:
    """A project's classifier on its labels as they are now.

    Attributes:
        state: the project.
        encoder: the vectors' fingerprint.
        classifier: as the configuration has it; the user's own probabilities with the digest of their file.
    """

    state: ProjectState
    encoder: str
    classifier: Any

    @cached_property
    def training(self) -> TrainingSet:
        """What it learns from."""
        return training_set(self.state.context.store, self.state.annotations, self.state.round_ids, self.encoder)

    @property
    def imported(self) -> bool:
        """Whether the user's own probabilities stand for it."""
        return self.state.settings.own_probabilities is not None

    @property
    def ready(self) -> bool:
        """Whether there are probabilities."""
        return self.imported or self.training.enough

    @cached_property
    def fitted(self) -> Model:
        """The classifier, fitted."""
        return fit_model(self.classifier, self.training, len(self.state.settings.classes), self.state.settings.seed)

    def probabilities(self, ids: Ids) -> tuple[Ids, Floats]:
        """Those of some ids, each once and ascending, that have any."""
        ids = np.unique(ids)
        if self._own_probabilities is not None:
            values, known = self._own_probabilities
            rows = rows_of(ids, self.state.snapshot.ids)
            rows = rows[rows >= 0]
            rows = rows[known[rows]]
            return self.state.snapshot.ids[rows], values[rows]
        store = self.state.context.store
        ids = ids[has_vector(store, self.encoder, ids)]
        if not len(ids):
            return ids, np.zeros((0, len(self.state.settings.classes)), np.float32)
        vectors = StoredVectors(store, self.encoder, ids)
        return ids, self.fitted.probabilities(vectors.take(np.arange(len(ids))))

    @cached_property
    def _own_probabilities(self) -> tuple[Floats, Mask] | None:
        state = self.state
        return imported_probabilities(state.context.store, self.classifier, state.settings.classes, state.snapshot)

    @cached_property
    def model_id(self) -> str:
        """Hash of what the model depends on, and of all labels."""
        annotations, labelled = self.state.annotations, self.state.annotations.labelled
        labels = annotations.consensus.labels[labelled]
        return model_digest(self._fitted_as(), annotations.ids[labelled], labels, self.training.ids)

    def _fitted_as(self) -> dict[str, Any]:
        """Project and options, as the record has them."""
        settings = self.state.settings
        return {
            "project": self.state.name,
            "classes": list(settings.classes),
            "classifier": self.classifier,
            "encoder": self.encoder,
            "seed": settings.seed,
        }

    @cached_property
    def held_out(self) -> dict[str, float | int]:
        """How good it is on the labelled rows of the random arms, from which it did not learn."""
        annotations = self.state.annotations
        ids, P = self.probabilities(annotations.ids[annotations.labelled & self._random])
        metrics: dict[str, float | int] = {"held_out": len(ids)}
        if len(ids):
            truth = annotations.consensus.labels[rows_of(ids, annotations.ids)]
            right = P.argmax(axis=1) == truth
            metrics["accuracy"] = round(float(right.mean()), 6)
            for number, name in enumerate(self.state.settings.classes):
                if (truth == number).any():
                    metrics[f"recall_{name}"] = round(float(right[truth == number].mean()), 6)
        return metrics

    @cached_property
    def at_random(self) -> dict[str, int]:
        """How many rows of the random arms have each class: what the pool holds, undisturbed by the steps."""
        return self.state.by_class(self.state.annotations.labelled & self._random)

    @cached_property
    def _random(self) -> Mask:
        """(r,) which annotated rows were sent out by a random arm."""
        sent = sent_ids(self.state.context.store, self.state.round_ids, "random")
        return np.isin(self.state.annotations.ids, sent)

    @cached_property
    def stop_set(self) -> tuple[Ids, Floats]:
        """Rows whose predictions are compared from round to round: those of the lowest ids, which are hashes."""
        return self.probabilities(np.asarray(self.state.snapshot.ids[:STOP_ROWS]))

    @cached_property
    def uncertainty(self) -> float:
        """Mean normalised entropy on the stop set."""
        return round(overall_uncertainty(self.stop_set[1]), 6)

    @cached_property
    def metrics(self) -> dict[str, float | int]:
        """Counts and, where there is a model, how good it is."""
        annotations = self.state.annotations
        metrics: dict[str, float | int] = {"labelled": self.state.labelled}
        metrics |= {f"labels_{name}": count for name, count in self.state.by_class(annotations.labelled).items()}
        metrics |= {f"at_random_{name}": count for name, count in self.at_random.items()}
        if annotations.agreement is not None:
            metrics["agreement"] = round(annotations.agreement, 6)
        if not self.ready:
            return metrics
        return {**metrics, "trained_on": len(self.training.ids), **self.held_out, "uncertainty": self.uncertainty}

    def advice(self) -> Advice:
        """What the stopping rules say of the rounds so far and of this model."""
        stop = self.state.settings.stop
        rules = Rules(kappa=stop.kappa, uncertainty=stop.uncertainty, change=stop.change, plateau=stop.plateau)
        return advise(rules, self._history)

    @cached_property
    def agreement(self) -> float | None:
        """Of the last models on the stop set, see `agreement_of`; own probabilities are trusted."""
        return 1.0 if self.imported else agreement_of([observation.predictions for observation in self._history])

    @cached_property
    def _history(self) -> list[Observation]:
        """One for each model that a round was drawn with, and one of the model as it is now, if that is another."""
        store, rounds = self.state.context.store, self.state.rounds
        seen: list[tuple[str | None, float, Any]] = []
        for header in rounds:
            # Another batch of the same model says nothing.
            if header["model"] is None or not seen or seen[-1][0] != header["model"]:
                seen.append((header["model"], header["spent"], header["metrics"]))
        if self.ready and (not rounds or rounds[-1]["model"] != self.model_id):
            seen.append((self.commit(), self.state.spent, self.metrics))
        whole = {name for name, _, _ in seen if name and readable(store, "models", name, whole=True)}
        seen = [(name if name in whole else None, spent, metrics) for name, spent, metrics in seen]
        models = {name: read_model(store, name) for name in whole}
        if self.imported:  # the same file does not learn, so that it says the same again is no reason to stop
            files = [None if name is None else models[name][0]["classifier"] for name, _, _ in seen]
            seen = [entry for i, entry in enumerate(seen) if entry[0] is None or files[i : i + 2] != [files[i]] * 2]
        predictions = {name: models[name][2] for name, _, _ in seen if name is not None}
        ids = {name: from_arrow(table["id"]) for name, table in predictions.items()}
        common = reduce(np.intersect1d, ids.values()) if ids else np.empty(0, "S16")
        class_number = {name: number for number, name in enumerate(self.state.settings.classes)}
        history = []
        for name, spent, metrics in seen:
            if name is None or not len(common):
                history.append(Observation(spent=spent))
                continue
            rows = rows_of(common, ids[name])
            labels = predictions[name]["label"].take(pa.array(rows)).to_pylist()
            history.append(
                Observation(
                    predictions=np.array([class_number.get(label, NONE) for label in labels], np.int64),
                    mean_uncertainty=metrics.get("uncertainty"),
                    metric=metrics.get("accuracy") if metrics.get("held_out", 0) >= MEASURED_ROWS else None,
                    spent=spent,
                )
            )
        return history

    def commit(self) -> str:
        """Commit the record of the model; gives its id."""
        settings, store = self.state.settings, self.state.context.store
        if not committed_whole(store, "models", self.model_id):
            ids, P = self.stop_set
            predictions = pa.table(
                {
                    "id": to_arrow(ids),
                    "label": pa.array([settings.classes[number] for number in P.argmax(axis=1)], pa.string()),
                    "probability": pa.array(P.max(axis=1, initial=0), pa.float32()),
                }
            )
            header = {
                "model_id": self.model_id,
                **self._fitted_as(),
                "metrics": self.metrics,
                "notes": list(getattr(self.fitted, "notes", ())) if not self.imported else [],
            }
            commit_model(store, header, self._consensus(), predictions)
        return self.model_id

    def _consensus(self) -> pa.Table:
        annotations, classes = self.state.annotations, self.state.settings.classes
        rows = np.flatnonzero(annotations.labelled)
        doubt = relabel_scores(annotations.consensus, self._unseen())
        return pa.table(
            {
                "id": to_arrow(annotations.ids[rows]),
                "label": pa.array([classes[number] for number in annotations.consensus.labels[rows]], pa.string()),
                "confidence": pa.array(annotations.consensus.confidence[rows], pa.float32()),
                "n_labels": pa.array(annotations.consensus.count[rows], pa.int32()),
                "relabel_score": pa.array(doubt[rows], pa.float32()),
            }
        )

    def _unseen(self) -> Floats | None:
        """(r, C) of each annotated row, by a model that did not see its label; None where there are too few labels to try."""
        annotations, n_classes = self.state.annotations, len(self.state.settings.classes)
        P = np.full((len(annotations.ids), n_classes), 1 / n_classes, np.float32)
        ids, known = self.probabilities(annotations.ids)
        P[rows_of(ids, annotations.ids)] = known
        if self.imported:
            return P
        classifier = build_classifier(self.classifier)
        if isinstance(classifier, LogisticRegression):
            classifier = replace(classifier, calibrated=False)
        training, seed = self.training, self.state.settings.seed
        try:
            folds = out_of_fold(classifier, training.vectors, training.labels, n_classes, seed=seed)
        except InvalidInput:  # outside a fold all labels are of one class
            return None
        P[rows_of(training.ids, annotations.ids)] = folds
        return P


def project_model(state: ProjectState) -> ProjectModel:
    """The classifier of a project."""
    settings = state.settings
    assert settings.encoder is not None  # the configuration fills it in
    classifier = settings.classifier
    if settings.own_probabilities is not None:
        digest = probabilities_id(state.context.store, settings.own_probabilities.url)
        classifier = {"probabilities": {**classifier["probabilities"], "digest": digest}}
    return ProjectModel(state, state.context.pool.fingerprint(settings.encoder), classifier)
