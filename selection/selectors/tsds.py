"""Draw rows that match the distribution of the targets, by optimal transport with a penalty on few rows (TSDS)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.noise import hash_uniform
from selection.pool import Pool
from selection.scorers.rds import target_vectors
from selection.step import Selector, check_choice, check_integer, check_number
from selection.types import Doubles, Input, Points, Reason, Rows, Selection

# What is left of a target's mass when all but so much is given is a rounding error.
ROUNDING = 1e-7

# Rows of each target's list whose density is worked out at first.
FIRST_DEPTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tsds(Selector):
    """Give each row a probability by optimal transport from the targets, then draw (TSDS).

    Each of m targets spreads a mass of 1/m over its nearest rows, at most t / (m rho) on a row. The t, and the masses
    g, are those that minimise

        alpha/C * (sum over targets and rows of distance * g) + (1 - alpha) * t

    A row's probability is the sum of its masses. A small t spreads over many rows, a large one keeps to the nearest.
    rho of a row counts the rows like it, so that copies share what one of them would get: the sum of
    max(0, 1 - distance^2 / sigma^2) over all rows that are among the nearest of any target, itself included.
    Distances are Euclidean between vectors of length 1: sqrt(2 - 2 cosine); a zero vector has cosine 0 to every row.

    Args:
        alpha: in 0 < alpha <= 1, the weight of distance. A smaller alpha spreads over more rows.
        C: > 0, divides distance, to bring it to the scale of t. A larger C spreads over more rows.
        sigma: >= 0, the distance within which rows count as alike; 0 leaves density out (rho = 1).
        n_neighbors: how many nearest rows of each target may get mass. If the optimum needs more of them, that is an
            error. It also says which rows count for rho.
        draw: "without_replacement": one row at a time in proportion to the probabilities, by hash noise; or "ranked":
            the rows of highest probability, ties (in float32) to the lowest row.

    Already selected rows keep their probabilities, so that a selection can be continued. Only rows with a probability
    above 0 are given: if they are fewer than the budget, that is an error, or with `allow_short` a selection that is
    `exhausted`. The gain is the probability, `ref` the target that gave the row the most mass, `rank` and `value` the
    row's place in that target's list and its cosine.

    The nearest rows are exact, and the optimum is that of the linear program, for any order and size of blocks.

    Not for: the most similar rows alone: `rds_plus` gives these.

    Cost for m targets and u rows among their nearest: a pass of 2*n*m*d operations, and for rho 2*u*v*d in float64 for
    the v rows that come before the last row that gets mass, or up to twice as many in each list.
    Memory: 150 bytes * m * n_neighbors, and 16 bytes a row.

    Source: Liu et al. 2024 (TSDS), `tsds.py`, which searches an approximate index, estimates rho from 1000 neighbours,
    and draws with replacement and without a seed.
    """

    alpha: float = 0.5
    C: float = 5.0
    sigma: float = 0.75
    n_neighbors: int = 5000
    draw: str = "without_replacement"
    name: ClassVar[str] = "tsds"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.TARGETS})
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.name, "alpha", self.alpha, above=0, most=1)
        check_number(self.name, "C", self.C, above=0)
        check_number(self.name, "sigma", self.sigma, least=0)
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_choice(self.name, "draw", self.draw, ("without_replacement", "ranked"))

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`.

        Raises:
            InvalidOption: a target needs more than `n_neighbors` rows.
        """
        from selection.kernels.normalize import unit_rows, unit_vectors
        from selection.kernels.top_k import top_k

        targets, vectors = pool.get_targets(), unit_vectors(pool.get_vectors())
        counts = pool.candidates
        counts[pool.get_already_selected()] = True
        present = int(counts.sum())
        depth = min(self.n_neighbors, present)
        top = top_k(vectors, unit_rows(target_vectors(targets)), depth=depth, skip=~counts)
        mass, exhausted = self._masses(vectors, top.row, np.sqrt(np.maximum(2.0 - 2.0 * top.score, 0.0)))
        if exhausted >= 0 and depth < present:
            raise self.invalid(
                f"n_neighbors must be above {depth} (the pool has {present} rows): with alpha {self.alpha:g} and C "
                f"{self.C:g}, target {targets.printable()[exhausted]} needs more rows than its {depth} nearest; a larger "
                "alpha needs fewer",
                "n_neighbors",
            )
        used = mass.shape[1]
        return self._drawn(pool, budget, mass, top.row[:, :used], top.score[:, :used], rng)

    def _masses(self, vectors: Points, row: Rows, distance: Doubles) -> tuple[Doubles, int]:
        """What each target gives to the first rows of its list (m, k), and the target whose whole list is not enough, or -1.

        Densities cost most, so they are worked out for the first rows of the lists, and for more while these do not
        suffice.
        """
        from selection.kernels.density import epanechnikov_density

        union, place = np.unique(row, return_inverse=True)
        place = place.reshape(row.shape)
        density = np.full(len(union), np.nan if self.sigma else 1.0)
        depth = 0
        while True:
            depth = min(max(FIRST_DEPTH, 2 * depth), row.shape[1])
            unknown = np.unique(place[:, :depth])
            unknown = unknown[np.isnan(density[unknown])]
            if len(unknown):
                density[unknown] = epanechnikov_density(vectors, union[unknown], union, self.sigma)
            inverse = 1.0 / density[place[:, :depth]]
            spread, exhausted = optimal_spread(distance[:, :depth], inverse, self.alpha, self.C)
            if exhausted < 0 or depth == row.shape[1]:
                return masses(inverse, spread), exhausted

    def _drawn(
        self, pool: Pool, budget: int, mass: Doubles, row: Rows, cosine: Doubles, rng: np.random.Generator
    ) -> Selection:
        """Draw by the masses (m, depth) of the rows in the targets' lists."""
        from selection.kernels.compiled.probabilities import logs

        probability = np.bincount(row.ravel(), weights=mass.ravel(), minlength=len(pool))
        rows = np.flatnonzero(pool.candidates & (probability > 0))
        key = probability[rows].astype(np.float32)
        if self.draw == "without_replacement":
            key = logs(probability[rows]) - logs(-logs(hash_uniform(pool.get_keys()[rows], rng)))
        rows = rows[highest(key, budget)]
        # The entry of the lists that gave each row the most mass; of equals that of the first target.
        order = np.lexsort((-mass.ravel(), row.ravel()))
        entry = order[np.searchsorted(row.ravel()[order], rows)]
        ref, rank = np.divmod(entry, row.shape[1])
        value = np.minimum(cosine.ravel()[entry], 1.0)
        names = pool.get_targets().printable()
        reason = Reason.of("target", len(rows), ref=ref, rank=rank, value=value, names=names)
        return Selection(rows, probability[rows].astype(np.float32), reason)


def optimal_spread(distance: Doubles, inverse: Doubles, alpha: float, C: float) -> tuple[float, int]:
    """1/t of the optimum: how many rows, counted by 1/rho, each target spreads its mass over.

    The objective is convex and piecewise linear in t. As 1/t grows past the sum of 1/rho of a target's k nearest rows,
    that target goes on to row k + 1, and a further step costs it (distance of row k + 1 - distance of row k) * that sum
    more. The optimum is where these add up to (1 - alpha) * m * C / alpha.

    Args:
        distance: (m, k) of each target's nearest rows, ascending.
        inverse: (m, k) their 1/rho, > 0.

    Returns:
        1/t, and -1; or where a target needs rows beyond its k nearest, the largest 1/t that these allow, and that
        target. If the k nearest are all the rows, that is the optimum.

    >>> near = np.array([[0.1, 0.2, 0.8, 1.8, 2.8, 4.8], [0.2, 0.8, 1.2, 2.1, 2.2, 2.8]])
    >>> optimal_spread(near, np.ones((2, 6)), 0.5, 1), optimal_spread(near, np.ones((2, 6)), 0.01, 1)
    ((2.0, -1), (6.0, 0))
    """
    m = len(distance)
    reach = np.cumsum(inverse, axis=1)
    if alpha == 1:  # nothing but distance counts
        return float(reach[:, 0].min()), -1
    last = int(np.argmin(reach[:, -1]))
    event, slope = reach[:, :-1].ravel(), (np.diff(distance, axis=1) * reach[:, :-1]).ravel()
    order = np.argsort(event, kind="stable")
    place = int(np.searchsorted(np.cumsum(slope[order]), (1 - alpha) * m * C / alpha))
    if place < len(order) and event[order[place]] <= reach[last, -1]:
        return float(event[order[place]]), -1
    return float(reach[last, -1]), last


def masses(inverse: Doubles, spread: float) -> Doubles:
    """(m, k) what each target gives to its nearest rows: to each in turn as much as is allowed, 1/m in all.

    Args:
        inverse: (m, k) 1/rho.
        spread: 1/t.

    >>> masses(np.ones((1, 4)), 2.5)
    array([[0.4, 0.4, 0.2, 0. ]])
    """
    given = np.cumsum(inverse, axis=1) / spread
    given[given > 1 - ROUNDING] = 1.0
    return np.asarray(np.diff(given, axis=1, prepend=0.0) / len(inverse))
