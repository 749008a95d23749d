"""A weighted sample for clustering: drawn half uniformly, half by squared distance to the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.noise import hash_uniform
from selection.pool import Pool
from selection.step import Selector
from selection.types import Doubles, Input, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Lightweight(Selector):
    """Draw rows with probability q = 1/(2n) + d**2 / (2 * sum of d**2), where d is the distance to the mean.

    n, mean and sum are those of the candidates. The b rows are drawn without replacement, each with a probability
    proportional to its q among the rows left; the published method draws with replacement. So no row comes twice, and
    the first row is drawn by q itself. For b much smaller than n the two methods agree. The reason's `value` is the
    published weight 1 / (b*q), by which a row counts in a k-means over the subset. The gain is q. If all rows coincide,
    q is 1/n.

    The noise is hashed from the keys, so the draw does not depend on the order of the pool.

    Not for: training that cannot weigh rows: the sample stands for the pool by its weights.

    Cost: two passes over the vectors. Memory: about 60 bytes a row and one block.
    Source: Bachem et al. 2018.
    """

    name: ClassVar[str] = "lightweight"
    nested: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.probabilities import logs

        q = chances(pool)
        rows = pool.candidate_rows
        # The highest values of log q + Gumbel noise are such a draw, see `selection.selectors.stochastic`.
        gumbel = -logs(-logs(hash_uniform(pool.get_keys()[rows], rng)))
        rows = rows[highest(logs(q[rows]) + gumbel, budget)]
        return Selection.in_order("draw", rows, q[rows], 1.0 / (budget * q[rows]))


def chances(pool: Pool) -> Doubles:
    """(n,) q of each candidate, with sum 1; 0 for the other rows.

    Raises:
        InvalidInput: a vector is not finite; names the row.
    """
    from selection.kernels.nearest import mean_vector
    from selection.kernels.top_k import TILE_ROWS, tiles

    vectors = pool.get_vectors()
    order = pool.candidates_by_key()
    square = np.empty(len(pool))
    with np.errstate(invalid="ignore"):  # `tiles` names a row that is not finite
        mean = mean_vector(vectors, order)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        square[rows] = ((tile - mean) ** 2).sum(axis=1)
    total = square[order].sum()
    q = np.zeros(len(pool))
    q[order] = (1.0 + len(order) * square[order] / total) / (2 * len(order)) if total > 0 else 1.0 / len(order)
    return q
