"""The noise floor: what a selection shares with one that another seed draws from the same pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.rows import select_rows
from pipelines.recipes.spec import SelectionSpec
from storage.ids import Ids

# Among the facts of a run and the metrics of a selection.
ANOTHER_SEED = "overlap_with_another_seed"


def with_another_seed(spec: SelectionSpec) -> SelectionSpec:
    """The spec with the seed that its noise floor is measured by; each is the other's."""
    return replace(spec, seed=spec.seed ^ 1)


def noise_floor(ids: Ids, inputs: DrawInputs) -> float:
    """Jaccard of a selection and what is drawn from inputs with another seed; 1.0 of steps without chance.

    Cost: a draw; nothing of it is kept.
    """
    return round(jaccard(ids, inputs.snapshot.ids[select_rows(inputs).rows]), 4)


def jaccard(ours: Ids, theirs: Ids) -> float:
    """Ids in both, of ids in either; 1.0 where both are empty.

    >>> jaccard(np.array([b"a", b"b"]), np.array([b"b", b"c"]))
    0.3333333333333333
    """
    common = len(np.intersect1d(ours, theirs))
    either = len(ours) + len(theirs) - common
    return common / either if either else 1.0
