"""A batch that is uncertain and diverse, both told by the class probabilities alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from selection.selectors.lightweight import by_key
from selection.step import Selector, check_number
from selection.types import Array, Floats, Input, Pool, Reason, Rows, Selection

Doubles = npt.NDArray[np.float64]

# Rows whose distances are worked out at once, in float64.
ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Falcun(Selector):
    """Draw each row with a chance proportional to (uncertainty + distance) ** gamma (FALCUN, Gilhuber et al. 2023).

    Uncertainty is 1 - (p1 - p2) of the two likeliest classes. The distance begins as the uncertainty; after each pick it is
    lowered to the L1 distance of the probabilities to those of the pick, then divided by the largest, so it ends at 1 again.

    Args:
        gamma: >= 0: 0 draws uniformly, a large one takes the highest sum.

    Only candidates count: already selected rows are no picks, as in the published algorithm. When every sum left is 0, the
    draw is uniform. It follows the keys of the rows, not their order. The gain and the reason's value are uncertainty +
    distance at the moment of picking.

    Cost for n rows and C classes: one pass over the probabilities, then n*C operations and n powers a pick. Memory: 4*C + 60
    bytes a row, since probabilities may come from a model and are read once only.
    Source: scikit-activeml, `Falcun`.
    """

    gamma: float = 10.0
    name: ClassVar[str] = "falcun"
    nested: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.PROBABILITIES})

    def __post_init__(self) -> None:
        check_number(self.name, "gamma", self.gamma, least=0)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        order = by_key(pool)
        probabilities, uncertainty = read(pool, order)
        distance = uncertainty
        left = np.ones(len(order), bool)
        picks = np.empty(budget, np.int64)
        value = np.empty(budget)
        for i in range(budget):
            if i:
                distance = lowered(distance, probabilities, int(picks[i - 1]))
            total = np.cumsum(masses(uncertainty + distance, left, self.gamma))
            # The product is below the last sum, since a uniform number is at most 1 - 2**-53.
            picks[i] = np.searchsorted(total, rng.random() * total[-1], side="right")
            value[i] = uncertainty[picks[i]] + distance[picks[i]]
            left[picks[i]] = False
        return Selection(
            order[picks], value.astype(np.float32), Reason.of("draw", budget, rank=np.arange(budget), value=value)
        )


def read(pool: Pool, order: Rows) -> tuple[Floats, Doubles]:
    """The probabilities of some rows, (len(order), C) float32, and each row's 1 - (p1 - p2); 0 where there is one class.

    Raises:
        InvalidInput: a row of the probabilities is no distribution; names it.
    """
    from selection.kernels.probabilities import tiles

    blocks = pool.get_probabilities()
    place = np.full(len(pool), -1)
    place[order] = np.arange(len(order))
    probabilities = np.empty((len(order), blocks.shape[1]), np.float32)
    uncertainty = np.zeros(len(order))
    for rows, tile in tiles(blocks, Input.PROBABILITIES):
        wanted = place[rows] >= 0
        at, values = place[rows[wanted]], tile[wanted]
        probabilities[at] = values
        if values.shape[1] > 1:
            top = np.partition(values, -2, axis=1)
            uncertainty[at] = 1.0 - (top[:, -1] - top[:, -2])
    return probabilities, uncertainty


def masses(score: Doubles, left: Array, gamma: float) -> Doubles:
    """(n,) in 0 .. 1, in proportion to the chance of each row: score ** gamma of those left; all alike if all scores are 0."""
    highest = score[left].max(initial=0.0)
    relative = score / highest if highest > 0 else np.ones(len(score))
    return np.where(left, np.minimum(relative, 1.0) ** gamma, 0.0)


def lowered(distance: Doubles, probabilities: Floats, pick: int) -> Doubles:
    """(n,) the distances after a pick, scaled to 0 .. 1: that of the pick itself is the 0."""
    nearest = np.empty(len(distance))
    for start in range(0, len(distance), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        apart = np.abs(np.subtract(probabilities[part], probabilities[pick], dtype=np.float64)).sum(axis=1)
        nearest[part] = np.minimum(distance[part], apart)
    largest = nearest.max()
    return nearest / largest if largest > 0 else nearest
