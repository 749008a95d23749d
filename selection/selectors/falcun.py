"""An uncertain and diverse batch, from the class probabilities alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.step import Selector, check_number
from selection.types import Array, Doubles, Floats, Input, Rows, Selection

BLOCK_ROWS = 4096  # whose distances are computed at once, in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Falcun(Selector):
    """Draw each row with probability proportional to (uncertainty + distance) ** gamma (FALCUN, Gilhuber et al. 2023).

    Uncertainty is 1 - (p1 - p2) of the two likeliest classes. The distance starts as the uncertainty. After each pick
    it is lowered to the L1 distance between a row's probabilities and those of the pick, then divided by the largest
    distance, so that the largest is 1.

    Args:
        gamma: >= 0: 0 draws uniformly, a large gamma takes the row of highest sum.

    Only candidates count: already selected rows do not count as picks, as in the published algorithm. If all sums left
    are 0, the draw is uniform. It depends on the keys of the rows, not on their order. The gain and the reason's value
    are uncertainty + distance at the moment of picking.

    Not for: projects without a model: it needs probabilities.

    Cost for n rows and C classes: one pass over the probabilities, then n*C operations and n powers a pick. Memory: 4*C
    + 60 bytes a row, since probabilities may come from a model and are read only once.
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
        order = pool.candidates_by_key()
        probabilities, uncertainty = read_probabilities(pool, order)
        distance = uncertainty
        left = np.ones(len(order), bool)
        picks = np.empty(budget, np.int64)
        value = np.empty(budget)
        for i in range(budget):
            if i:
                distance = lowered(distance, probabilities, int(picks[i - 1]))
            cumulative = np.cumsum(draw_weights(uncertainty + distance, left, self.gamma))
            # The product is below the last sum, since a uniform number is at most 1 - 2**-53.
            picks[i] = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
            value[i] = uncertainty[picks[i]] + distance[picks[i]]
            left[picks[i]] = False
        return Selection.in_order("draw", order[picks], value)


def read_probabilities(pool: Pool, order: Rows) -> tuple[Floats, Doubles]:
    """(r, C) float32, the probabilities of the rows `order`, and (r,) 1 - (p1 - p2) of each; 0 if there is one class.

    Raises:
        InvalidInput: a row's probabilities are no distribution; names the row.
    """
    from selection.kernels.probabilities import tiles

    blocks = pool.get_probabilities()
    place = np.full(len(pool), -1)
    place[order] = np.arange(len(order))
    probabilities = np.empty((len(order), blocks.shape[1]), np.float32)
    uncertainty = np.zeros(len(order))
    for rows, tile in tiles(blocks, Input.PROBABILITIES):
        keep = place[rows] >= 0
        places, values = place[rows[keep]], tile[keep]
        probabilities[places] = values
        if values.shape[1] > 1:
            top = np.partition(values, -2, axis=1)
            uncertainty[places] = 1.0 - (top[:, -1] - top[:, -2])
    return probabilities, uncertainty


def draw_weights(score: Doubles, left: Array, gamma: float) -> Doubles:
    """(n,) in 0 .. 1: score ** gamma of the rows left, scaled, and 0 for others; equal weights if all scores are 0."""
    highest = score[left].max(initial=0.0)
    relative = score / highest if highest > 0 else np.ones(len(score))
    return np.where(left, np.minimum(relative, 1.0) ** gamma, 0.0)


def lowered(distance: Doubles, probabilities: Floats, pick: int) -> Doubles:
    """(n,) the distances after a pick, scaled to 0 .. 1; that of the pick is 0."""
    nearest = np.empty(len(distance))
    for start in range(0, len(distance), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        to_pick = np.abs(np.subtract(probabilities[part], probabilities[pick], dtype=np.float64)).sum(axis=1)
        nearest[part] = np.minimum(distance[part], to_pick)
    largest = nearest.max()
    return nearest / largest if largest > 0 else nearest
