"""The target sets of a recipe as vectors and as texts."""

from __future__ import annotations

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.spec import SelectionSpec
from selection import Targets
from storage.errors import BadInput
from storage.pool.content import text_of
from storage.vectors.segments import StoredVectors


def target_vectors(view: PoolView, spec: SelectionSpec) -> Targets:
    """The targets' vectors, set by set in the recipe's order."""
    assert spec.encoder is not None
    target_sets = [view.target_set_of(targets_id) for targets_id in spec.targets.values()]
    vectors, names = [], []
    for target_set in target_sets:
        stored = StoredVectors(view.store, spec.target_encoders.get(target_set.name, spec.encoder), target_set.ids)
        # What a person calls a target: the id in its file, else the place.
        target_names = [name or str(place) for place, name in enumerate(target_set.given_ids, start=1)]
        if len(stored.failed_rows):
            raise BadInput(
                f"target {target_names[stored.failed_rows[0]]!r} of {target_set.name!r} has no vector: its text has nothing "
                "to encode, the chat template refuses it, or the vector that you brought is zero or not finite"
            )
        vectors.append(stored.take(np.arange(len(target_set))))
        names += target_names
    return Targets(
        vectors=np.concatenate(vectors),
        sets=np.repeat(np.arange(len(target_sets)), [len(target_set) for target_set in target_sets]).astype(np.int64),
        names=tuple(spec.targets),
        ids=tuple(names),
    )


def target_texts(view: PoolView, spec: SelectionSpec) -> list[str]:
    """The targets' texts, set by set in the recipe's order, each as the texts of the pool's rows."""
    target_sets = [view.target_set_of(targets_id) for targets_id in spec.targets.values()]
    return [text_of(turns) for target_set in target_sets for turns in target_set.conversations]
