"""The target sets of a recipe as vectors and as texts."""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.spec import SelectionSpec
from selection import Targets
from selection.types import Array, Rows
from storage.errors import BadInput
from storage.pool.content import text_of
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors


def target_vectors(inputs: DrawInputs) -> Targets:
    """The vectors of the targets that steps see, set by set in the recipe's order."""
    places = [target_set.selecting for target_set in inputs.target_sets]
    vectors, names = [], []
    for target_set, selecting in zip(inputs.target_sets, places, strict=True):
        vectors.append(example_vectors(inputs.view, inputs.spec, target_set, selecting))
        names += [target_set.example_names[place] for place in selecting.tolist()]
    return Targets(
        vectors=np.concatenate(vectors),
        sets=np.repeat(np.arange(len(places)), [len(selecting) for selecting in places]).astype(np.int64),
        names=tuple(inputs.spec.targets),
        ids=tuple(names),
    )


def half_vectors(inputs: DrawInputs, half: Literal["measuring", "selecting"]) -> dict[str, Array]:
    """Target set -> the vectors of its examples that only measure, or of the others, for the sets that have both."""
    measured = [target_set for target_set in inputs.target_sets if len(target_set.measuring)]
    return {each.name: example_vectors(inputs.view, inputs.spec, each, getattr(each, half)) for each in measured}


def target_texts(inputs: DrawInputs) -> list[str]:
    """The texts of the targets that steps see, set by set in the recipe's order, each as the texts of the pool's rows."""
    return [
        text_of(target_set.conversations[place])
        for target_set in inputs.target_sets
        for place in target_set.selecting.tolist()
    ]


def example_vectors(view: PoolView, spec: SelectionSpec, target_set: TargetSet, places: Rows) -> Array:
    """The vectors of some examples of a target set."""
    assert spec.encoder is not None
    return examples_of(view, spec.target_encoders.get(target_set.name, spec.encoder), target_set, places)


def examples_of(view: PoolView, encoder: str, target_set: TargetSet, places: Rows) -> Array:
    """The same by the fingerprint of an encoder.

    Raises:
        NotInStore: the encoder has no vectors of the set.
        BadInput: an example has none.
    """
    stored = StoredVectors(view.store, encoder, target_set.ids)
    if len(stored.failed_rows):
        raise BadInput(
            f"target {target_set.example_names[stored.failed_rows[0]]!r} of {target_set.name!r} has no vector: its text has "
            "nothing to encode, or no whole answer to take a gradient of; the chat template refuses it; or the vector that "
            "you brought is zero or not finite"
        )
    return stored.take(places)
