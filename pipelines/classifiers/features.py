"""What classifiers see of a row: its vector, or the n-grams of its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from pipelines.classifiers.examples import Examples
from pipelines.config.schema import Classifier
from pipelines.pool_view import PoolView
from pipelines.workers import Workers
from selection.errors import InvalidInput
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, NgramRows, NgramsInParts
from selection.types import Array, Mask, RowBlocks
from selection.vectors import VectorsInParts
from storage.ids import Ids
from storage.pool.content import text_of
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors, failed_ids


class Features(Protocol):
    """How rows become numbers.

    Attributes:
        of_texts: whether from their texts.
    """

    of_texts: ClassVar[bool]

    def record(self) -> dict[str, Any]:
        """JSON-plain: what a fit depends on."""

    def of_examples(self, examples: Examples) -> Array:
        """(m, d) of the examples."""

    def of_pool(self, snapshot: Snapshot, workers: Workers | None) -> RowBlocks:
        """(n, d) of the rows of a snapshot, computed when they are asked for, by workers where there are some."""

    def of_targets(self, encoder: str, vectors: Array, texts: Callable[[], list[str]]) -> Array:
        """(m, d) of targets, whose vectors (m, D) are of `encoder`.

        Raises:
            InvalidInput: their vectors are of another encoder than the classifier's.
        """

    def missing(self, snapshot: Snapshot) -> Mask:
        """(n,) which rows have no features."""


@dataclass(frozen=True)
class Embeddings:
    """The vectors of an encoder.

    Attributes:
        encoder: the fingerprint of the pool's vectors.
        target_encoders: target set -> that of its vectors, where these are imported ones.
    """

    view: PoolView
    encoder: str
    target_encoders: Mapping[str, str]
    of_texts: ClassVar[bool] = False

    def record(self) -> dict[str, Any]:
        """See `Features`."""
        return {"encoder": self.encoder, "target_encoders": dict(self.target_encoders)}

    def of_examples(self, examples: Examples) -> Array:
        """See `Features`.

        Raises:
            NotInStore: vectors are missing.
        """
        parts, places = [], []
        for target_set, rows in examples.origins():
            encoder = self.target_encoders.get(target_set or "", self.encoder)
            parts.append(StoredVectors(self.view.store, encoder, examples.ids[rows]).take(np.arange(len(rows))))
            places.append(rows)
        vectors = np.concatenate(parts).astype(np.float32)
        return np.asarray(vectors[np.argsort(np.concatenate(places))])

    def of_pool(self, snapshot: Snapshot, workers: Workers | None) -> RowBlocks:
        """See `Features`."""
        vectors = self.view.vectors(self.encoder, snapshot)
        parts = None if workers is None else workers.parts_of(vectors)
        return vectors if parts is None else VectorsInParts(vectors, parts)

    def of_targets(self, encoder: str, vectors: Array, texts: Callable[[], list[str]]) -> Array:
        """See `Features`."""
        del texts
        if encoder != self.encoder:
            raise InvalidInput(
                "the committee cannot judge the targets: their vectors are not of the classifier's encoder; give the "
                "recipe and the classifier the same `encoder`"
            )
        return vectors

    def missing(self, snapshot: Snapshot) -> Mask:
        """See `Features`."""
        missing = np.zeros(len(snapshot), np.bool_)
        missing[self.view.vectors(self.encoder, snapshot).failed_rows] = True
        return missing


@dataclass(frozen=True)
class TextNgrams:
    """The words and pairs of words of the texts, hashed.

    Attributes:
        snapshot: the id of one that holds the examples of the pool.
        targets: target set -> the id of the record that holds its examples.
    """

    view: PoolView
    buckets: int
    snapshot: str
    targets: Mapping[str, str]
    of_texts: ClassVar[bool] = True

    def record(self) -> dict[str, Any]:
        """See `Features`; where the texts of the examples lie is not what they are."""
        return {"ngrams": self.buckets}

    def of_examples(self, examples: Examples) -> Array:
        """See `Features`."""
        texts: dict[bytes, str] = {}
        for target_set, rows in examples.origins():
            source = self.view.snapshot_of(self.snapshot) if target_set is None else self._target_set(target_set)
            for ids, conversations in source.turns(examples.ids[rows]):
                texts |= zip(ids.tolist(), map(text_of, conversations), strict=True)
        return self._all([texts[row_id] for row_id in examples.ids.tolist()])

    def of_pool(self, snapshot: Snapshot, workers: Workers | None) -> RowBlocks:
        """See `Features`. Cost: every text in memory, unless workers read all; n-grams are counted only of the rows that
        are asked for.
        """
        if workers is None:
            return NgramRows(snapshot.texts(), self.buckets)
        return NgramsInParts(len(snapshot), workers.texts_of(snapshot), snapshot.texts, self.buckets)

    def of_targets(self, encoder: str, vectors: Array, texts: Callable[[], list[str]]) -> Array:
        """See `Features`."""
        del encoder, vectors
        return self._all(texts())

    def missing(self, snapshot: Snapshot) -> Mask:
        """See `Features`: none."""
        return np.zeros(len(snapshot), np.bool_)

    def _target_set(self, name: str) -> TargetSet:
        return self.view.target_set_of(self.targets[name])

    def _all(self, texts: list[str]) -> Array:
        return cast("Array", NgramRows(texts, self.buckets).take(np.arange(len(texts))))


def features_of(view: PoolView, settings: Classifier) -> tuple[Features, Ids]:
    """The features of a classifier, and the ids that have none."""
    target_sets = view.target_sets(settings.targets)
    if settings.features == "ngrams":
        ids = {target_set.name: target_set.id for target_set in target_sets}
        return TextNgrams(view, CLASSIFIER_BUCKETS, view.snapshot.id, ids), np.empty(0, "S16")
    assert settings.encoder is not None  # the configuration fills it in
    encoder = view.fingerprint(settings.encoder)
    target_encoders = view.target_encoders(settings.encoder, settings.targets)
    ids_of = [(encoder, view.snapshot.ids)]
    ids_of += [(target_encoders.get(target_set.name, encoder), target_set.ids) for target_set in target_sets]
    unusable = [failed_ids(view.store, fingerprint, ids) for fingerprint, ids in ids_of]
    return Embeddings(view, encoder, target_encoders), np.unique(np.concatenate(unusable))


def recorded_features(view: PoolView, header: Mapping[str, Any]) -> Features:
    """The features that the record of a classifier names."""
    record = header["features"]
    if "ngrams" in record:
        return TextNgrams(view, record["ngrams"], header["snapshot"], header["targets"])
    return Embeddings(view, record["encoder"], record["target_encoders"])
