"""Cover the pool at random: each pick is drawn by its squared distance to everything picked before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.k_center import CentreSelector, centres_selection
from selection.selectors.random import drawn_rows
from selection.step import check_integer, check_version
from selection.types import Doubles, Selection

SAMPLE_ROWS = 16_384  # on which the trials of a pick are compared; all candidates if there are fewer


@dataclass(frozen=True, slots=True, kw_only=True)
class KMeansPP(CentreSelector):
    """Draw each row with probability proportional to its squared distance to the nearest centre (k-means++ seeding).

    Args:
        first: the first pick if no row is already selected: "random", or a row: its number in the pool (not among
            the rows that are eligible or that filters left), or in a recipe {id: its id}.
        local_trials: draw this many rows for each pick and keep the one that lowers the cost most (1 is plain
            k-means++; scikit-learn takes 2 + ln(budget)). The cost is measured on 16,384 rows drawn at random.
        max_rejects: after this many rejected proposals in a row, draw a row uniformly. That bounds the work of each
            pick, but the distribution is no longer exact. None keeps it exact.
        weights: a column of finite numbers >= 0 that multiply each row's squared distance; a random first pick is then
            drawn in proportion to them.
        version: 1 counts `first` among the rows that the step sees, as winnow 0.2 did.

    Already selected rows are centres. The gain is the distance to the nearest centre at the moment of picking (0 for a
    first pick, which has no centre), times the square root of the weight; `ref` is that centre, `value` the gain (NaN
    for a first pick). When all rows left coincide with centres or have weight 0, they are drawn uniformly. The draw
    depends on the keys of the rows, not on their order.

    Not for: a sample that keeps the proportions of the pool: `random` does.

    Cost and memory: see `selection.kernels.kmeans_pp`.
    """

    first: str | int | Mapping[str, str] = "random"
    local_trials: int = 1
    max_rejects: int | None = None
    weights: str | None = None
    version: int = 2
    name: ClassVar[str] = "kmeans_pp"
    row_options: ClassVar[tuple[str, ...]] = ("first",)
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check_first(("random",))
        check_integer(self.name, "local_trials", self.local_trials, least=1)
        check_integer(self.name, "max_rejects", self.max_rejects, least=1, optional=True)
        self.check_weights()
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 unless `first` is a row."""
        return 1 if isinstance(self.first, str) else self.version

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.kmeans_pp import kmeans_pp

        weights = self.weight_column(pool)
        centres = pool.get_already_selected()
        first = np.empty(0, np.int64)
        if not len(centres):
            first = np.array([self._first(pool, weights, rng)])
            centres = first
        sample = None if self.local_trials == 1 else drawn_rows(pool, SAMPLE_ROWS, rng)[0]
        order = pool.candidates_by_key()
        rest = kmeans_pp(
            pool.get_vectors(),
            budget - len(first),
            centres=centres,
            order=order[~np.isin(order, first)],
            rng=rng,
            trials=self.local_trials,
            sample=sample,
            max_rejects=self.max_rejects,
            scale=weights,
        )
        return centres_selection(first, rest.rows, rest.distance, rest.near)

    def _first(self, pool: Pool, weights: Doubles | None, rng: np.random.Generator) -> int:
        if weights is None or not isinstance(self.first, str):
            return self.first_row(pool, rng)
        rows, noise = drawn_rows(pool, len(pool), rng)
        # The smallest of exponential numbers with these rates; if all weights are 0, the first row of the draw.
        waits = np.divide(-np.log(noise), weights[rows], out=np.full(len(rows), np.inf), where=weights[rows] > 0)
        return int(rows[np.argmin(waits)])
