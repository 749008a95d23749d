"""The target that a chosen row is nearest to, where the reason of the pick names none."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from pipelines.recipes.drawn import Drawn
from pipelines.recipes.explain import excerpt
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.targets import target_vectors
from selection.scorers.rds import RdsMax

EPSILON = 1e-30  # a vector of zeros is similar to nothing


def nearest_target(drawn: Drawn, inputs: DrawInputs, item: Mapping[str, Any], row: int) -> dict[str, Any]:
    """The target nearest to a row whose reason names none, of the set that the reason names, if it does.

    Of `rds_max`, and of `rds_plus` whose turns go to sets, that is the target that won. `rds_max` with `per: subtask`
    goes by the mean over a set: the set that won is named, and the target is of it.

    Args:
        inputs: what the selection was drawn from.
        item: the record of the pick.
        row: of the snapshot.

    Returns:
        `nearest_target`, its `similarity` (cosine) and `target_text`, and perhaps `subtask` and `subtask_similarity`;
        nothing where the steps saw no targets, or the reason names one.

    Raises:
        NotInStore: the vectors are gone.
    """
    if inputs.vectors is None or not drawn.sees_targets or item["kind"] == "target":
        return {}
    targets = drawn.view.once("target_vectors", drawn.selection_id, partial(target_vectors, inputs))
    vector, vectors = (np.asarray(v, np.float64) for v in (inputs.vectors.take(np.array([row]))[0], targets.vectors))
    similarity = vectors @ vector / np.maximum(np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector), EPSILON)
    sets, subtask = np.asarray(targets.sets), {}
    if item["kind"] == "target_set":
        similarity[sets != targets.names.index(item["ref"])] = -np.inf
    elif any(isinstance(step, RdsMax) and step.per == "subtask" for step in drawn.spec.steps):
        means = {number: float(similarity[sets == number].mean()) for number in np.unique(sets).tolist()}
        best = max(means, key=means.__getitem__)
        subtask = {"subtask": targets.names[best], "subtask_similarity": means[best]}
        similarity[sets != best] = -np.inf
    nearest = int(similarity.argmax())
    name = targets.printable()[nearest]
    text = drawn.target_text(name)
    return subtask | {
        "nearest_target": name,
        "similarity": float(similarity[nearest]),
        "target_text": None if text is None else excerpt(text),
    }
