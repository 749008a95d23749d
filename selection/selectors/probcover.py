"""Cover the pool with balls of equal radius: the ball of each pick holds the most rows that are not covered yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import as_written
from selection.errors import InvalidInput
from selection.noise import hash_bits
from selection.pool import Pool
from selection.selectors.random import drawn_rows
from selection.step import Selector, check_choice, check_integer, check_number, check_version
from selection.streams import child
from selection.types import Array, Input, Selection

PURITY_ROWS = 2048  # the sample of balls whose purity is measured: the standard error at 0.95 is 0.5 %
EDGE_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbCover(Selector):
    """Pick one row at a time, the one with the most uncovered rows (itself included) within a distance (ProbCover).

    Args:
        delta: the Euclidean distance, > 0; a row at exactly delta is covered.
        classes: the number of classes in the pool, given in place of `delta`. Then delta is the largest distance at
            which a share `alpha` of the balls is pure. A ball is pure if all its rows are in the same cluster of a
            spherical k-means with this many clusters. Purity is measured for 2048 balls, hashed from the keys, against
            the whole pool.
        alpha: in 0 < alpha <= 1.
        memory_gb: the memory for pairs of rows within delta, 8 bytes for each direction; more pairs are an error.
        when_covered: what to do when no ball holds an uncovered row: "stop", or fill up with "random" rows (by hash
            noise), whose gain is 0.
        version: 1 clusters from random starts, as winnow 0.2 did.

    Already selected rows cover from the start. Exact, ties to the lowest row. When no ball holds an uncovered row, the
    method has no more picks. With "stop" that is an error, or with `allow_short` a selection that is `exhausted`. The
    gain is the number of rows that a pick newly covers; the reason's value is the share of the pool covered so far.

    Not for: large budgets: once every row is covered there are no more picks.

    Cost for n rows of d dimensions: 2*n*n*d operations for the pairs, one pass over the pairs, and n a pick. Memory:
    `memory_gb` and 30 bytes a row; see `selection.kernels.neighbor_graph`. `classes` adds the clustering (as in
    `semdedup`) and 2 * 2048 * n * d operations.

    Source: Yehuda et al. 2022. Their code leaves out the last n mod 500 rows as centres; this step does not.
    """

    delta: float | None = None
    classes: int | None = None
    alpha: float = 0.95
    memory_gb: float = 1.0
    when_covered: str = "stop"
    version: int = 2
    name: ClassVar[str] = "probcover"
    added_options: ClassVar[tuple[str, ...]] = ("when_covered",)
    nested: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def __post_init__(self) -> None:
        if (self.delta is None) == (self.classes is None):
            raise self.invalid(
                f"give delta, or classes (how many there are) to choose it by; got delta {self.delta!r} and classes "
                f"{self.classes!r}"
            )
        if self.delta is not None:
            check_number(self.name, "delta", self.delta, above=0)
        check_integer(self.name, "classes", self.classes, least=2, optional=True)
        check_number(self.name, "alpha", self.alpha, above=0, most=1)
        check_number(self.name, "memory_gb", self.memory_gb, above=0)
        check_choice(self.name, "when_covered", self.when_covered, ("stop", "random"))
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 where no clusters are needed."""
        return 1 if self.classes is None else self.version

    @property
    def incremental(self) -> bool:
        """True: the same delta gives the same picks, and the clusters do not depend on what is selected."""
        return True

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.graph_greedy import cover
        from selection.kernels.neighbor_graph import within_distance

        delta = self.delta
        if delta is None:
            distance = _distance_to_other_clusters(pool, int(self.classes or 0), rng, version=self.version)
            delta = largest_pure_radius(distance, self.alpha)
        balls = within_distance(pool.get_vectors(), delta, max_edges=int(self.memory_gb * 2**30) // EDGE_BYTES)
        taken = pool.get_already_selected()
        before = len(np.unique(np.concatenate([balls.of(row) for row in taken]))) if len(taken) else 0
        rows, gain = cover(balls, budget, taken=taken, candidates=pool.candidates)
        if self.when_covered == "random":
            others = drawn_rows(pool, len(pool), rng)[0]
            rows = np.concatenate([rows, others[~np.isin(others, rows)]])[:budget]
            gain = np.concatenate([gain, np.zeros(len(rows) - len(gain))])
        return Selection.in_order("score", rows, gain, (before + np.cumsum(gain)) / len(pool))


def largest_pure_radius(distance: Array, alpha: float) -> float:
    """The largest radius at which a share `alpha` of balls is pure.

    Args:
        distance: (m,) from each centre to the nearest row of another cluster: its ball is pure if the radius is
            smaller.
        alpha: in 0 < alpha <= 1.

    >>> round(largest_pure_radius(np.array([3.0, 1.0, 2.0, 4.0]), 0.75), 6)
    2.0
    """
    impure = len(distance) - math.ceil(as_written(alpha) * len(distance))
    return float(np.nextafter(np.sort(distance)[impure], 0.0))


def _distance_to_other_clusters(pool: Pool, classes: int, rng: np.random.Generator, *, version: int) -> Array:
    """(m,) the distance of up to PURITY_ROWS rows to the nearest row of another cluster.

    Raises:
        InvalidInput: there are fewer than two clusters.
    """
    from selection.kernels.clusters import hashed_order, spherical_clusters
    from selection.kernels.neighbor_graph import distance_to_others

    vectors = pool.get_vectors()
    order = hashed_order(vectors, hash_bits(pool.get_keys(), child(rng, 0)))
    if len(order):
        starts = child(rng, 1) if version > 1 else None
        clusters, _ = spherical_clusters(vectors, order, min(classes, len(order)), rng=starts)
        distance = distance_to_others(vectors, order[:PURITY_ROWS], clusters.place)
        if np.isfinite(distance).all():
            return distance
    raise InvalidInput("probcover: the rows do not fall into two clusters, so every delta is pure: give delta")
