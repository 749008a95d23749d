"""The newest model of a labeling project as the source of a recipe's probabilities, committee and labels.

The record of a model holds its labels, so that it is fitted again from the record however the project has gone on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.classifiers.features import Embeddings
from pipelines.classifiers.model_source import ModelSource
from pipelines.classifiers.own_file import OwnFile
from pipelines.classifiers.source import Source
from pipelines.classifiers.training import TrainingSet, fit_model, has_vector, read_training_set
from pipelines.errors import NothingYet
from pipelines.pool_view import PoolView
from pipelines.runs import runs
from selection.learning.classifier import Model, build_classifier, fit_committee
from selection.types import Rows
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, rows_of
from storage.labels.models import model_digest, read_model
from storage.labels.rounds import read_rounds, sent_ids
from storage.pool.snapshot import Snapshot
from storage.store import Store


def newest_model(store: Store, project: str) -> str:
    """The model of a project's last fit that gave one.

    Raises:
        NothingYet: there is none; says what to do first.
    """
    fits: Iterator[str] = (run["subject"] for run in runs(store) if (run["stage"], run["target"]) == ("fit", project))
    model_id = next((subject for subject in fits if subject and store.has("records", "models", subject)), None)
    if model_id is None:
        raise NothingYet(
            f"the labeling project {project!r} has no model yet: run `winnow labels push {project}`, label the batch until "
            f"two classes have labels, then run `winnow labels pull {project}`"
        )
    return model_id


class ProjectSource(ModelSource):
    """A project's model, by the id of its record."""

    def __init__(self, view: PoolView, record: Mapping[str, Any], snapshot: Snapshot) -> None:
        self.view, self.model_id = view, record["model"]
        self.header, consensus, _ = read_model(view.store, self.model_id)
        super().__init__(
            Embeddings(view, self.header["encoder"], {}), self.header["classes"], snapshot, record.get("members", 0)
        )
        self.labelled: Ids = from_arrow(consensus["id"])
        self.class_numbers = np.array([self.classes.index(name) for name in consensus["label"].to_pylist()], np.int64)

    @cached_property
    def training(self) -> TrainingSet:
        """What it learned from: the labelled rows with a vector, but for the random arms of the rounds before.

        Raises:
            BadInput: no training set of these labels gives the model's id.
        """
        store, header = self.view.store, self.header
        usable = has_vector(store, header["encoder"], self.labelled)
        rounds = [header["round_id"] for header in read_rounds(store, header["project"])]
        for count in range(len(rounds), -1, -1):  # which rounds there were, only the id says
            trains = usable & ~np.isin(self.labelled, sent_ids(store, rounds[:count], "random"))
            trained_on = self.labelled[trains]
            if model_digest(header, self.labelled, self.class_numbers, trained_on) == self.model_id:
                return read_training_set(store, header["encoder"], trained_on, self.class_numbers[trains])
        raise BadInput(
            f"the model {self.model_id} of {header['project']} cannot be fitted again: rows that it did not learn from "
            "have a vector since; `winnow labels pull` fits a new one"
        )

    def fit(self) -> Model:
        """The model."""
        return fit_model(self.header["classifier"], self.training, len(self.classes), self.header["seed"])

    def fit_members(self) -> list[Model]:
        """By bootstrap, as in the project's rounds."""
        classifier, training = build_classifier(self.header["classifier"]), self.training
        return fit_committee(
            classifier,
            training.vectors,
            training.labels,
            len(self.classes),
            members=self.members,
            seed=self.header["seed"],
        )

    def labels(self) -> Rows:
        """(n,) class numbers of the rows that train, -1 elsewhere."""
        return _by_row(self.snapshot, self.training.ids, self.training.labels)


class ProjectFile(OwnFile):
    """The user's own probabilities, where they stand for a project's classifier."""

    def __init__(self, view: PoolView, model_id: str, snapshot: Snapshot) -> None:
        header, consensus, _ = read_model(view.store, model_id)
        super().__init__(view.store, header["classifier"]["probabilities"], snapshot, header["classes"])
        self._labelled = from_arrow(consensus["id"])
        names: Sequence[str] = consensus["label"].to_pylist()
        self._class_numbers = np.array([self.classes.index(name) for name in names], np.int64)

    def labels(self) -> Rows:
        """(n,) class numbers of the labelled rows, -1 elsewhere."""
        return _by_row(self.snapshot, self._labelled, self._class_numbers)


def open_project(view: PoolView, record: Mapping[str, Any], snapshot: Snapshot) -> Source:
    """What the record of a model gives."""
    classifier = read_model(view.store, record["model"])[0]["classifier"]
    if isinstance(classifier, dict) and "probabilities" in classifier:
        return ProjectFile(view, record["model"], snapshot)
    return ProjectSource(view, record, snapshot)


def _by_row(snapshot: Snapshot, ids: Ids, labels: Rows) -> Rows:
    """(n,) the labels of ids in the frame of a snapshot, -1 for other rows."""
    of_row = np.full(len(snapshot), -1, np.int64)
    rows = rows_of(ids, snapshot.ids)
    of_row[rows[rows >= 0]] = labels[rows >= 0]
    return of_row
