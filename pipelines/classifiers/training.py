"""Labelled rows as a classifier learns from them, and the model of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.learning.classifier import Model, build_classifier
from selection.types import Floats, Mask, Rows
from storage.ids import Ids
from storage.store import Store
from storage.vectors.segments import StoredVectors, failed_ids, missing_ids


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a classifier learns from.

    Attributes:
        ids: (m,) ascending, labelled rows that have a vector and are neither held out nor gold.
        vectors: (m, d) float32.
        labels: (m,) class numbers.
    """

    ids: Ids
    vectors: Floats
    labels: Rows

    @property
    def enough(self) -> bool:
        """Whether two classes are there, so that a model can tell them apart."""
        return len(np.unique(self.labels)) > 1


def read_training_set(store: Store, encoder: str, ids: Ids, labels: Rows) -> TrainingSet:
    """Labelled rows (ascending) with their vectors; rows that the encoder never saw, or could not encode, are left out."""
    usable = has_vector(store, encoder, ids)
    ids, labels = ids[usable], labels[usable]
    if not len(ids):
        return TrainingSet(ids, np.empty((0, 0), np.float32), labels)
    vectors = StoredVectors(store, encoder, ids).take(np.arange(len(ids)))
    return TrainingSet(ids, np.asarray(vectors, np.float32), labels)


def has_vector(store: Store, encoder: str, ids: Ids) -> Mask:
    """(len(ids),) which ids the encoder saw and could encode."""
    return ~np.isin(ids, np.union1d(missing_ids(store, encoder, ids), failed_ids(store, encoder, ids)))


def fit_model(classifier: Any, training: TrainingSet, n_classes: int, seed: int) -> Model:
    """The model of the labels."""
    return build_classifier(classifier).fit(training.vectors, training.labels, n_classes, seed=seed)
