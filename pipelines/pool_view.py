"""The pool as one invocation sees it: its snapshot, target sets and vectors, each opened once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from pipelines.config.schema import OWN_VECTORS, Config, TargetFiles
from pipelines.errors import NothingYet
from selection.encoders import Representation
from selection.encoders.postprocess import Postprocessed, postprocess_of, without_postprocess
from selection.noise import mix
from selection.types import SCORES as SCORE_COLUMNS
from storage.ids import Ids, hash_keys
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.pool.targets import TargetSet, ingest_targets, open_targets
from storage.store import Store
from storage.vectors.fits import Fit, stored_fit
from storage.vectors.imported import files_fingerprint
from storage.vectors.index import open_vectors, records
from storage.vectors.model_scores import ModelScores
from storage.vectors.segments import StoredVectors

T = TypeVar("T")


def sql_words(*expressions: str) -> frozenset[str]:
    """All words of some SQL expressions, in lower case: the columns that they read are among them."""
    return frozenset(word.lower() for text in expressions for word in re.findall(r"\w+", text))


class PoolView:
    """What the stages of one invocation read again and again.

    Args:
        current: the id of the snapshot that this invocation works on; None while nothing was ingested.
    """

    def __init__(self, config: Config, store: Store, current: str | None) -> None:
        self.config = config
        self.store = store
        self.current = current
        self._snapshots: dict[str, Snapshot] = {}
        self._targets: dict[str, TargetSet] = {}
        self._fits: dict[str, Fit] = {}
        self._target_ids: dict[str, str] = {}
        self._fingerprints: dict[tuple[str, str | None], str] = {}
        self._vectors: dict[tuple[str, str, str | None], StoredVectors] = {}
        self._made: dict[tuple[str, str], Any] = {}

    def once(self, kind: str, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made once: for what others derive from the pool and use again and again."""
        if (kind, name) not in self._made:
            self._made[kind, name] = make()
        made: T = self._made[kind, name]
        return made

    @cached_property
    def snapshot(self) -> Snapshot:
        """The pool as it is now.

        Raises:
            NothingYet: nothing was ingested.
        """
        if self.current is None:
            raise NothingYet(
                "the pool was not read yet: run `winnow run` (or `winnow labels push`), or materialize the asset `pool`, first"
            )
        return self.snapshot_of(self.current)

    def snapshot_of(self, snapshot_id: str) -> Snapshot:
        """A snapshot by its id.

        Raises:
            NotInStore: there is none of this id.
        """
        if snapshot_id not in self._snapshots:
            self._snapshots[snapshot_id] = open_snapshot(self.store, snapshot_id)
        return self._snapshots[snapshot_id]

    @cached_property
    def known_columns(self) -> dict[str, str]:
        """Column -> type: the pool's own, then those of the models, see `score_columns`."""
        return self.snapshot.known_columns() | dict.fromkeys(self.score_columns, "number")

    @cached_property
    def score_columns(self) -> dict[str, str]:
        """Column -> the model that gives it, as in the configuration; what the pool has a column for is its own."""
        if not self.config.models:
            return {}
        taken = {name.lower() for name in self.snapshot.known_columns()}
        return {name: model for name, model in self.config.score_columns.items() if name.lower() not in taken}

    def model_fingerprint(self, model: str) -> str:
        """What names the folder of a model's token scores."""
        key = (f"model {model}", None)
        if key not in self._fingerprints:
            self._fingerprints[key] = self.config.models[model].fingerprint()
        return self._fingerprints[key]

    def with_scores(self, snapshot: Snapshot, scores: Mapping[str, str]) -> Snapshot:
        """A snapshot with columns of token scores.

        Args:
            scores: column -> the fingerprint of its model.
        """
        by_model: dict[str, dict[str, str]] = {}
        for column, model in scores.items():
            stored = max((name for name in SCORE_COLUMNS if f"_{column}".endswith(f"_{name}")), key=len)
            by_model.setdefault(model, {})[column] = stored
        if not by_model:
            return snapshot
        titles = {self.model_fingerprint(name): name for name in self.config.models}
        columns = [ModelScores(self.store, model, titles.get(model, model), names) for model, names in by_model.items()]
        return snapshot.with_columns(columns)

    def with_scores_read_by(self, snapshot: Snapshot, expression: str) -> Snapshot:
        """A snapshot with those columns of token scores that a SQL expression reads."""
        words = sql_words(expression)
        read = {name: model for name, model in self.score_columns.items() if name.lower() in words}
        return self.with_scores(snapshot, {name: self.model_fingerprint(model) for name, model in read.items()})

    def target_set(self, name: str) -> TargetSet:
        """A target or evaluation set of the configuration, read from its files if the store does not have it yet."""
        if name not in self._target_ids:
            files = self.config.evaluation_files(name)
            measure = files.measuring(self.config.root) if isinstance(files, TargetFiles) else None
            target_set = ingest_targets(self.store, name, files.specs(self.config.root), measure)
            self._target_ids[name] = target_set.id
            self._targets[target_set.id] = target_set
        return self._targets[self._target_ids[name]]

    def target_sets(self, names: Iterable[str]) -> list[TargetSet]:
        """Target sets of the configuration, in the order of the names."""
        return [self.target_set(name) for name in names]

    def target_set_of(self, targets_id: str) -> TargetSet:
        """A committed target set by its id.

        Raises:
            NotInStore: there is none of this id.
        """
        if targets_id not in self._targets:
            self._targets[targets_id] = open_targets(self.store, targets_id)
        return self._targets[targets_id]

    def fingerprint(self, encoder: str, target: str | None = None) -> str:
        """What names the folder of an encoder's vectors, of the pool or of a target set.

        Cost: the user's own files of vectors are read once to hash them.
        """
        key = (encoder, target)
        if key not in self._fingerprints:
            self._fingerprints[key] = self._fingerprint(encoder, target)
        return self._fingerprints[key]

    def _fingerprint(self, encoder: str, target: str | None) -> str:
        if encoder == OWN_VECTORS:
            return files_fingerprint(self.store, self.config.vector_files(target))
        return self.representation(encoder, targets=target is not None).fingerprint()

    def representation(self, encoder: str, *, targets: bool = False) -> Representation | Postprocessed:
        """An encoder of the configuration, with the fit of its `postprocess`.

        Raises:
            NothingYet: it has to be fitted, and nothing was ingested.
        """
        spec = self.config.encoders[encoder]
        own = spec.for_targets() if targets else spec
        fit = self.fit(encoder)
        return own if fit is None else Postprocessed(own, fit.id)

    def base_fingerprint(self, encoder: str) -> str:
        """What names the folder of the vectors before `postprocess`."""
        if encoder == OWN_VECTORS or postprocess_of(self.config.encoders[encoder]) is None:
            return self.fingerprint(encoder)
        return without_postprocess(self.config.encoders[encoder]).fingerprint()

    def fit(self, encoder: str) -> Fit | None:
        """What an encoder's `postprocess` is, or will be, fitted on; None without one."""
        options = postprocess_of(self.config.encoders[encoder])
        if options is None:
            return None
        if encoder not in self._fits:
            key = options.key(self.base_fingerprint(encoder))
            self._fits[encoder] = stored_fit(self.store, key) or Fit(key, self._sample(options.sample), committed=False)
        return self._fits[encoder]

    def read_fit_again(self, encoder: str) -> None:
        """After a fit was committed, which may be that of another process."""
        self._fits.pop(encoder, None)
        for key in [key for key in self._fingerprints if key[0] == encoder]:
            del self._fingerprints[key]

    def _sample(self, size: int) -> Ids:
        """Those ids of the snapshot whose hash is lowest, sorted."""
        ids = np.unique(self.snapshot.ids)
        lowest = np.argsort(mix(hash_keys(ids)), kind="stable")[:size]
        return ids[np.sort(lowest)]

    def target_encoders(self, encoder: str, targets: Iterable[str]) -> dict[str, str]:
        """Target set -> the fingerprint of its vectors, where it is another one than the pool's."""
        own = {name: self.fingerprint(encoder, name) for name in targets}
        pool = self.fingerprint(encoder)
        return {name: each for name, each in own.items() if encoder == OWN_VECTORS or each != pool}

    def vectors(self, encoder: str, snapshot: Snapshot, index: str | None = None) -> StoredVectors:
        """The vectors of a snapshot's rows.

        Args:
            encoder: their fingerprint.
            index: the id of the index that `nearest` goes through; None searches exactly.

        Raises:
            NotInStore: a row has neither a vector nor a record of why it has none.
        """
        key = (encoder, snapshot.id, index)
        if key not in self._vectors:
            self._vectors[key] = open_vectors(self.store, encoder, snapshot.ids, index=index)
        return self._vectors[key]

    def newest_index(self, encoder: str) -> str | None:
        """The newest approximate index over the current snapshot.

        None where there is none, and with `index.kind: flat`: steps compare every row, exactly.
        """
        if self.config.index.kind == "flat":
            return None
        matches = [
            record.index
            for record in records(self.store, encoder)
            if record.snapshot == self.current and record.kind != "flat"
        ]
        return matches[-1] if matches else None
