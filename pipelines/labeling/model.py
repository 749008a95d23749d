"""The model of a labeling project: fitted, measured on what it did not learn from, compared with those of earlier rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.labeling.inputs import TrainingSet, fit, own_probabilities, sent, training
from pipelines.labeling.project import ProjectState
from pipelines.recipes import spec as drawing
from selection.errors import InvalidInput
from selection.learning.annotators import NONE, relabel_scores
from selection.learning.classifier import LogisticRegression, Model, build_classifier, out_of_fold
from selection.learning.stopping import Advice, Observation, Rules, advise, overall_uncertainty
from selection.types import Floats
from storage import ids as idlib
from storage.ids import Ids
from storage.labels.imported_probabilities import probabilities_id
from storage.labels.models import commit_model, read_model
from storage.records import digest_of
from storage.vectors import segments as stored

# Rows whose predictions are compared from round to round.
STOP_ROWS = 2000
# An accuracy measured on fewer rows says nothing of a plateau: three right of three are hard to beat.
MEASURED_ROWS = 50


@dataclass(frozen=True)
class ProjectModel:
    """A project's classifier on its labels as they are now.

    Attributes:
        at: where the project stands.
        encoder: the vectors' fingerprint.
        classifier: as the configuration has it; the user's own probabilities with the digest of their file.
    """

    at: ProjectState
    encoder: str
    classifier: Any

    @cached_property
    def training(self) -> TrainingSet:
        """What it learns from."""
        return training(
            self.at.context.store, self.at.answers, [one["round_id"] for one in self.at.rounds], self.encoder
        )

    @property
    def own(self) -> bool:
        """Whether the user's own probabilities stand for it."""
        return self.at.project.own_probabilities is not None

    @property
    def ready(self) -> bool:
        """Whether there are probabilities."""
        return self.own or self.training.enough

    @cached_property
    def model(self) -> Model:
        """Fitted."""
        return fit(self.classifier, self.training, len(self.at.project.classes), self.at.project.seed)

    def probabilities(self, ids: Ids) -> tuple[Ids, Floats]:
        """Those of some ids, each once and ascending, that have any."""
        store = self.at.context.store
        if self.own:
            values, known = self._given
            rows = idlib.rows_of(np.unique(ids), self.at.snapshot.ids)
            rows = rows[rows >= 0]
            rows = rows[known[rows]]
            return self.at.snapshot.ids[rows], values[rows]
        ids = np.setdiff1d(
            ids, np.union1d(stored.missing(store, self.encoder, ids), stored.failures(store, self.encoder, ids))
        )
        if not len(ids):
            return ids, np.zeros((0, len(self.at.project.classes)), np.float32)
        vectors = stored.StoredVectors(store, self.encoder, ids)
        return ids, self.model.probabilities(vectors.take(np.arange(len(ids))))

    @cached_property
    def _given(self) -> tuple[Floats, npt.NDArray[np.bool_]]:
        project = self.at.project
        given = own_probabilities(self.at.context.store, self.classifier, project.classes, self.at.snapshot)
        assert given is not None
        return given

    @cached_property
    def model_id(self) -> str:
        """Hash of what the model depends on, and of all labels."""
        answers, project = self.at.answers, self.at.project
        labelled = answers.labelled
        return digest_of(
            {
                "project": self.at.name,
                "classes": list(project.classes),
                "classifier": self.classifier,
                "encoder": self.encoder,
                "seed": project.seed,
                "ids": idlib.to_text(answers.ids[labelled]),
                "labels": answers.consensus.labels[labelled].tolist(),
                "trained_on": idlib.to_text(self.training.ids),
            }
        )

    @cached_property
    def held_out(self) -> dict[str, float | int]:
        """How good it is on the labelled rows of the random arms, from which it did not learn."""
        answers, classes = self.at.answers, self.at.project.classes
        ids, P = self.probabilities(answers.ids[answers.labelled & self._random])
        found: dict[str, float | int] = {"held_out": len(ids)}
        if len(ids):
            truth = answers.consensus.labels[idlib.rows_of(ids, answers.ids)]
            right = P.argmax(axis=1) == truth
            found["accuracy"] = round(float(right.mean()), 6)
            for number, name in enumerate(classes):
                if (truth == number).any():
                    found[f"recall_{name}"] = round(float(right[truth == number].mean()), 6)
        return found

    @cached_property
    def at_random(self) -> dict[str, int]:
        """How many rows of the random arms have each class: what the pool holds, undisturbed by the steps."""
        answers, classes = self.at.answers, self.at.project.classes
        counts = np.bincount(answers.consensus.labels[answers.labelled & self._random], minlength=len(classes))
        return dict(zip(classes, counts.tolist(), strict=True))

    @cached_property
    def _random(self) -> npt.NDArray[np.bool_]:
        """(r,) which answered rows were sent out by a random arm."""
        arms = sent(self.at.context.store, [one["round_id"] for one in self.at.rounds], "random")
        return np.isin(self.at.answers.ids, arms)

    @cached_property
    def stop_set(self) -> tuple[Ids, Floats]:
        """Rows whose predictions are compared from round to round: those of the lowest ids, which are hashes."""
        return self.probabilities(np.asarray(self.at.snapshot.ids[:STOP_ROWS]))

    @cached_property
    def uncertainty(self) -> float:
        """Mean normalised entropy on the stop set."""
        return round(overall_uncertainty(self.stop_set[1]), 6)

    @cached_property
    def metrics(self) -> dict[str, float | int]:
        """Counts and, where there is a model, how good it is."""
        answers = self.at.answers
        counts: dict[str, float | int] = {"labelled": self.at.labelled}
        counts |= {f"labels_{name}": count for name, count in self.at.by_class().items()}
        counts |= {f"at_random_{name}": count for name, count in self.at_random.items()}
        if answers.agreement is not None:
            counts["agreement"] = round(answers.agreement, 6)
        if not self.ready:
            return counts
        return {**counts, "trained_on": len(self.training.ids), **self.held_out, "uncertainty": self.uncertainty}

    def advice(self) -> Advice:
        """What the stopping rules say of the rounds so far and of this model."""
        stop = self.at.project.stop
        rules = Rules(kappa=stop.kappa, uncertainty=stop.uncertainty, change=stop.change, plateau=stop.plateau)
        return advise(rules, self._history())

    def _history(self) -> list[Observation]:
        """One for each model that a round was drawn with, and one of the model as it is now, if that is another."""
        store, rounds = self.at.context.store, self.at.rounds
        seen: list[tuple[str | None, float, Any]] = []
        for one in rounds:
            if (
                one["model"] is None or not seen or seen[-1][0] != one["model"]
            ):  # another batch of the same model says nothing
                seen.append((one["model"], one["spent"], one["metrics"]))
        if self.ready and (not rounds or rounds[-1]["model"] != self.model_id):
            seen.append((self.commit(), self.at.spent, self.metrics))
        models = {name: read_model(store, name) for name, _, _ in seen if name is not None}
        if self.own:  # the same file does not learn, so that it says the same again is no reason to stop
            files = [None if name is None else models[name][0]["classifier"] for name, _, _ in seen]
            seen = [one for i, one in enumerate(seen) if one[0] is None or files[i : i + 2] != [files[i]] * 2]
        predicted = {name: models[name][2] for name, _, _ in seen if name is not None}
        ids = {name: idlib.from_arrow(table["id"]) for name, table in predicted.items()}
        common: Ids | None = None
        for some in ids.values():
            common = some if common is None else np.intersect1d(common, some)
        place = {name: number for number, name in enumerate(self.at.project.classes)}
        history = []
        for name, spent, metrics in seen:
            if name is None or common is None or not len(common):
                history.append(Observation(spent=spent))
                continue
            rows = idlib.rows_of(common, ids[name])
            labels = [place.get(label, NONE) for label in predicted[name]["label"].take(pa.array(rows)).to_pylist()]
            history.append(
                Observation(
                    predictions=np.array(labels, np.int64),
                    mean_uncertainty=metrics.get("uncertainty"),
                    metric=metrics.get("accuracy") if metrics.get("held_out", 0) >= MEASURED_ROWS else None,
                    spent=spent,
                )
            )
        return history

    def commit(self) -> str:
        """Commit the record of the model; gives its id."""
        project, store = self.at.project, self.at.context.store
        if not store.has("records", "models", self.model_id):
            ids, P = self.stop_set
            predictions = pa.table(
                {
                    "id": idlib.to_arrow(ids),
                    "label": pa.array([project.classes[c] for c in P.argmax(axis=1)], pa.string()),
                    "probability": pa.array(P.max(axis=1, initial=0), pa.float32()),
                }
            )
            header = {
                "model_id": self.model_id,
                "project": self.at.name,
                "classes": list(project.classes),
                "classifier": self.classifier,
                "encoder": self.encoder,
                "seed": project.seed,
                "metrics": self.metrics,
                "notes": list(getattr(self.model, "notes", ())) if not self.own else [],
            }
            commit_model(store, header, self._consensus(), predictions)
        return self.model_id

    def _consensus(self) -> pa.Table:
        answers, project = self.at.answers, self.at.project
        rows = np.flatnonzero(answers.labelled)
        doubt = relabel_scores(answers.consensus, self._unseen())
        return pa.table(
            {
                "id": idlib.to_arrow(answers.ids[rows]),
                "label": pa.array([project.classes[c] for c in answers.consensus.labels[rows]], pa.string()),
                "confidence": pa.array(answers.consensus.confidence[rows], pa.float32()),
                "n_labels": pa.array(answers.consensus.count[rows], pa.int32()),
                "relabel_score": pa.array(doubt[rows], pa.float32()),
            }
        )

    def _unseen(self) -> Floats | None:
        """(r, C) of each answered row, by a model that did not see its label; None where too few labels are there to try."""
        answers, n_classes = self.at.answers, len(self.at.project.classes)
        P = np.full((len(answers.ids), n_classes), 1 / n_classes, np.float32)
        ids, given = self.probabilities(answers.ids)
        P[idlib.rows_of(ids, answers.ids)] = given
        if self.own:
            return P
        classifier = build_classifier(self.classifier)
        if isinstance(classifier, LogisticRegression):
            classifier = replace(classifier, calibrated=False)
        learn = self.training
        try:
            folds = out_of_fold(classifier, learn.vectors, learn.labels, n_classes, seed=self.at.project.seed)
        except InvalidInput:  # outside a fold all labels are of one class
            return None
        P[idlib.rows_of(learn.ids, answers.ids)] = folds
        return P


def learner(at: ProjectState) -> ProjectModel:
    """The classifier of a project as it stands."""
    project = at.project
    assert project.encoder is not None  # the configuration fills it in
    classifier = project.classifier
    if project.own_probabilities is not None:
        digest = probabilities_id(at.context.store, project.own_probabilities.url)
        classifier = {"probabilities": {**classifier["probabilities"], "digest": digest}}
    return ProjectModel(at, drawing.fingerprint(at.context, project.encoder), classifier)


def labels_missing(learn: ProjectModel) -> Sequence[str]:
    """The classes without a label to learn from."""
    found = set(learn.training.labels.tolist())
    return [name for number, name in enumerate(learn.at.project.classes) if number not in found]
