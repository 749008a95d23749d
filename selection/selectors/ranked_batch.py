"""An uncertain batch unlike the selected rows: the fewer rows are selected, the more the dissimilarity counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.top import best_rows
from selection.step import Selector
from selection.types import NO_REF, Array, Doubles, Input, Reason, Selection

if TYPE_CHECKING:
    from selection.kernels.nearest import Nearest

# How many distances are updated first for a pick; twice as many each time that these do not decide the pick.
FIRST_UPDATES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedBatch(Selector):
    """Ranked batch mode: each pick has the highest alpha * (1 - 1 / (1 + distance)) + (1 - alpha) * score.

    The distance is Euclidean, to the nearest row that is already selected or picked; alpha = u / (u + l) for the u
    candidates left and the l rows already selected or picked. Ties go to the lowest row. Scores should be in 0..1, as
    the first term is (`least_confidence`, `margin`). If no row is already selected, all distances are infinite: the
    first pick has the highest score and a gain of 1. The gain is the value at the moment of picking; `ref` is the
    nearest selected row, `value` the gain.

    Distances only fall, so an outdated distance bounds the value from above, and only rows with the highest bounds are
    updated. Cost: one pass over the vectors, a few operations on n numbers a pick, and at most n*d float32 operations
    for each row that is selected or picked. Memory: about 80*n bytes, and 8*d bytes for each of those rows.

    Not for: scores outside of 0..1, which outweigh the distances.

    Source: Cardoso et al. 2017; as in modAL `uncertainty_batch_sampling` (but for the first pick).
    """

    name: ClassVar[str] = "ranked_batch"
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.SCORES})

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        from selection.kernels.nearest import Nearest

        candidates, score = pool.candidates, pool.get_scores().astype(np.float64)
        left = int(candidates.sum())
        rows, gain, ref = np.empty(budget, np.int64), np.ones(budget), np.full(budget, NO_REF, np.int64)
        centres, count = pool.get_already_selected(), 0
        if not len(centres):
            centres = rows[:1] = best_rows(pool, 1)
            candidates[centres] = False
            count = 1
        known = Nearest(pool.get_vectors(), centres, candidates, len(centres) + budget - count)
        while count < budget:
            alpha = (left - count) / (left - count + known.count)
            row, gain[count] = _best(known, score, alpha)
            rows[count], ref[count] = row, known.centre_rows[known.state["near"][row]]
            known.state["bound"][row] = -np.inf
            known.add(known.take(rows[count : count + 1])[0], row)
            count += 1
        value = gain.astype(np.float32)
        return Selection(rows, value, Reason.of("centre", budget, ref=ref, value=value))


def _best(known: Nearest, score: Doubles, alpha: float) -> tuple[int, float]:
    """The row of highest value, ties to the lowest, and that value."""
    from selection.kernels.nearest import largest

    def value(state: Array, own: Doubles) -> Doubles:
        distance = known.distance(np.maximum(state["bound"], 0.0))
        return alpha * (1.0 - 1.0 / (1.0 + distance)) + (1.0 - alpha) * own

    bound = np.where(known.state["bound"] > -np.inf, value(known.state, score), -np.inf)
    updates = FIRST_UPDATES
    while True:
        row = int(np.argmax(bound))
        if known.state["version"][row] == known.count:
            return row, float(bound[row])
        places, _, _ = largest(bound, updates)
        places = places[known.state["version"][places] < known.count]
        known.measure(places)
        bound[places] = value(known.state[places], score[places])
        updates *= 2
