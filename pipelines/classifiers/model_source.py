"""A fitted model as the source of a recipe's probabilities: of the rows that a step asks for, when it asks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from pipelines.classifiers.features import Features
from pipelines.classifiers.source import Source
from selection.learning.classifier import CommitteeProbabilities, Model, PredictedProbabilities
from selection.types import Array, Floats, Mask, RowBlocks
from storage.pool.snapshot import Snapshot


class ModelSource(Source):
    """A model, and where steps need one a committee, on features of the snapshot's rows.

    Args:
        members: of the committee; 0 where no step needs one.
    """

    def __init__(self, features: Features, classes: Sequence[str], snapshot: Snapshot, members: int) -> None:
        self.features, self.classes, self.snapshot, self.members = features, classes, snapshot, members
        self.reads_texts = features.of_texts

    @abstractmethod
    def fit(self) -> Model:
        """The model."""

    @abstractmethod
    def fit_members(self) -> list[Model]:
        """As many models as there are members."""

    def probabilities(self) -> RowBlocks | Floats:
        """Those of the model."""
        return PredictedProbabilities(self._rows, self.fit())

    def unknown(self) -> Mask:
        """Rows without features."""
        return self.features.missing(self.snapshot)

    def committee(self) -> RowBlocks | None:
        """Those of the members."""
        return CommitteeProbabilities(self._rows, self._members) if self.members else None

    def committee_of(self, encoder: str, vectors: Array, texts: Callable[[], list[str]]) -> Array | None:
        """By the same members."""
        if not self.members:
            return None
        features = self.features.of_targets(encoder, vectors, texts)
        return np.stack([member.probabilities(features) for member in self._members], axis=1)

    @cached_property
    def _rows(self) -> RowBlocks:
        return self.features.of_pool(self.snapshot, self.workers)

    @cached_property
    def _members(self) -> list[Model]:
        return self.fit_members()
