"""What classifiers see of a row: its vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pipelines.classifiers.examples import Examples
from pipelines.config.schema import OWN_VECTORS, Classifier
from pipelines.pool_view import PoolView
from selection.types import Array, Mask, RowBlocks
from storage.ids import Ids
from storage.pool.snapshot import Snapshot
from storage.vectors.segments import StoredVectors, failed_ids


class Features(Protocol):
    """How rows become numbers."""

    def record(self) -> dict[str, Any]:
        """JSON-plain: what a fit depends on."""

    def of_examples(self, examples: Examples) -> Array:
        """(m, d) of the examples."""

    def of_pool(self, snapshot: Snapshot) -> RowBlocks:
        """(n, d) of the rows of a snapshot, computed when they are asked for."""

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

    def of_pool(self, snapshot: Snapshot) -> RowBlocks:
        """See `Features`."""
        return self.view.vectors(self.encoder, snapshot)

    def missing(self, snapshot: Snapshot) -> Mask:
        """See `Features`."""
        missing = np.zeros(len(snapshot), np.bool_)
        missing[self.view.vectors(self.encoder, snapshot).failed_rows] = True
        return missing


def features_of(view: PoolView, settings: Classifier) -> tuple[Features, Ids]:
    """The features of a classifier, and the ids that have none."""
    assert settings.encoder is not None  # the configuration fills it in
    own = settings.encoder == OWN_VECTORS
    targets = {target: view.target_set(target).ids for target in settings.targets}
    encoder = view.fingerprint(settings.encoder)
    target_encoders = {target: view.fingerprint(OWN_VECTORS, target) for target in targets} if own else {}
    unusable = [failed_ids(view.store, encoder, view.snapshot.ids)]
    unusable += [failed_ids(view.store, target_encoders.get(name, encoder), ids) for name, ids in targets.items()]
    return Embeddings(view, encoder, target_encoders), np.unique(np.concatenate(unusable))


def recorded_features(view: PoolView, record: Mapping[str, Any]) -> Features:
    """The features that a record names."""
    return Embeddings(view, record["encoder"], record["target_encoders"])
