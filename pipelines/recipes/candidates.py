"""The candidates of a recipe: a pool with all that its steps and constraints read, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.eligible import eligible_rows
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.spec import SelectionSpec
from selection import Pool, Targets
from selection.types import Input, Vectors
from selection.vectors import exact, on_gpu
from storage.errors import BadInput
from storage.ids import hash_keys
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.pool.token_counts import read_counts
from storage.vectors.segments import StoredVectors


def assemble(view: PoolView, spec: SelectionSpec, inputs: DrawInputs) -> tuple[Pool, Snapshot, dict[str, int]]:
    """The pool that the steps choose from, the snapshot whose rows it has, and how many rows each rule keeps out."""
    snapshot = view.snapshot_of(spec.snapshot)
    stored = None if spec.encoder is None else view.vectors(spec.encoder, snapshot, spec.index)
    target_sets = [view.target_set_of(targets_id) for targets_id in spec.targets.values()]
    held_out = [view.target_set_of(targets_id) for targets_id in spec.held_out]
    eligible, counts = eligible_rows(snapshot, spec, stored, held_out, inputs.exclusions)
    vectors: Vectors | None = stored
    if stored is not None:
        vectors = on_gpu(stored if spec.index else exact(stored))
    targets = _targets(view, spec, target_sets) if Input.TARGETS in spec.inputs else None
    pool = Pool(
        vectors=vectors,
        probabilities=inputs.probabilities if Input.PROBABILITIES in spec.inputs else None,
        committee=inputs.committee if Input.COMMITTEE in spec.inputs else None,
        labels=inputs.labels,
        targets=None if targets is None else inputs.on_targets(targets),
        texts=snapshot.texts() if Input.TEXTS in spec.inputs else None,
        columns={
            name: read_counts(view.store, spec.tokenizer, snapshot.ids)
            if spec.tokenizer is not None and name == spec.token_column
            else snapshot.column(name)
            for name in sorted(spec.columns)
        },
        keys=hash_keys(snapshot.ids),
        eligible=eligible,
    )
    return pool, snapshot, counts


def _targets(view: PoolView, spec: SelectionSpec, target_sets: Sequence[TargetSet]) -> Targets:
    """The targets' vectors, set by set in the recipe's order."""
    assert spec.encoder is not None
    vectors, names = [], []
    for target_set in target_sets:
        stored = StoredVectors(view.store, spec.target_encoders.get(target_set.name, spec.encoder), target_set.ids)
        # What a person calls a target: the id in its file, else the place.
        target_names = [name or str(place) for place, name in enumerate(target_set.given_ids, start=1)]
        if len(stored.failed_rows):
            raise BadInput(
                f"target {target_names[stored.failed_rows[0]]!r} of {target_set.name!r} has no vector: its text has nothing "
                "to encode, or the vector that you brought is zero or not finite"
            )
        vectors.append(stored.take(np.arange(len(target_set))))
        names += target_names
    return Targets(
        vectors=np.concatenate(vectors),
        sets=np.repeat(np.arange(len(target_sets)), [len(target_set) for target_set in target_sets]).astype(np.int64),
        names=tuple(spec.targets),
        ids=tuple(names),
    )
