"""Facility location: rows that together are close to every row of the pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput, InvalidOption
from selection.noise import hash_bits
from selection.selectors.weighted import Weighted
from selection.step import check_choice, check_integer, check_number
from selection.streams import child
from selection.types import Array, Pool, Reason, Rows, Selection

MODES = ("auto", "exact", "reference", "knn", "stochastic")


@dataclass(frozen=True, slots=True, kw_only=True)
class FacilityLocation(Weighted):
    """Pick, one after the other, the row that raises the pool's mean similarity to its nearest pick the most.

    Args:
        mode: "exact" covers every row. "reference" covers a random sample of `n_ref` rows instead. "knn" lets a row be
            covered only by its `n_neighbors` nearest rows (and itself). "stochastic" covers every row but looks, at each
            pick, at a random sample of n / budget * ln(1 / eps) candidates only. "auto" is exact if the similarities of all
            pairs fit into `memory_gb`, else reference.
        n_ref: rows of the sample. Many times the budget is good: the picks are fitted to it, and once it is covered they
            add nothing.
        n_neighbors: of "knn", by highest inner product.
        eps: of "stochastic": the expected value is at least (1 - 1/e - eps) of the best.
        weights: a column, >= 0: what covering a row counts.
        memory_gb: for kept similarities; less of it costs time and changes no pick.

    Similarity is (1 + cosine) / 2, a zero vector's is 0. The value of the picks is at least (1 - 1/e) of the best of any
    rows (Nemhauser et al. 1978), gains never rise. What is already selected covers from the start. Exact for the
    rows that are covered, ties to the lowest row: see `selection.kernels.facility_location`. The gain is what a pick adds
    to the sum of similarities over all n rows (for "reference", to that over the sample, times n / n_ref), the reason's
    value the mean similarity reached with it (for "reference", over as many other rows, held out).

    Cost for n rows of d dimensions: exact multiplies all pairs once, n*n*d*2 operations, and scans about nine times as
    many similarities, in 4*n*n bytes; beyond `memory_gb` it multiplies again what it cannot keep. reference: n * n_ref in
    place of n * n, a few times. knn: one search for n queries, 20 bytes * n * n_neighbors. stochastic: ln(1/eps) * n * n pairs.
    Beside these 8 bytes * d for each row covered and 80 bytes a row.

    Source: Lin and Bilmes 2009; lazy greedy Minoux 1978; stochastic greedy Mirzasoleiman et al. 2015.
    """

    mode: str = "auto"
    n_ref: int = 8192
    n_neighbors: int = 64
    eps: float = 0.1
    weights: str | None = None
    memory_gb: float = 1.0
    name: ClassVar[str] = "facility_location"

    def __post_init__(self) -> None:
        check_choice(self.name, "mode", self.mode, MODES)
        check_integer(self.name, "n_ref", self.n_ref, least=1)
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_number(self.name, "eps", self.eps, above=0)
        if self.eps >= 1:
            raise InvalidOption(f"eps must be in 0 < eps < 1, got {self.eps!r}", step=self.name, option="eps")
        check_number(self.name, "memory_gb", self.memory_gb, above=0)
        self.check_weights()

    @property
    def nested(self) -> bool:
        """Greedy picks are, unless the sample of each depends on the budget."""
        return self.mode != "stochastic"

    @property
    def incremental(self) -> bool:
        """As `nested`: the sample that is covered depends on the seed and round alone."""
        return self.mode != "stochastic"

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        n, vectors, taken = len(pool), pool.get_vectors(), pool.get_already_selected()
        mode, max_bytes = self.mode, int(self.memory_gb * 2**30)
        if mode == "auto":
            mode = "exact" if 4 * n * n <= max_bytes else "reference"
        weights = np.ones(n) if self.weights is None else weights_of(pool, self.weights)
        mean: Array | None = None
        if mode == "knn":
            rows, gain, before = _by_neighbours(pool, budget, self.n_neighbors, weights)
        elif mode == "reference" and self.n_ref < n:
            from selection.kernels.facility_location import mean_similarity_after

            order = np.argsort(hash_bits(pool.get_keys(), child(rng, 0)), kind="stable").astype(np.int64)
            order = order[weights[order] > 0]
            references, held_out = np.sort(order[: self.n_ref]), order[self.n_ref : 2 * self.n_ref]
            rows, gain, before = _by_vectors(pool, budget, references, weights, max_bytes, None, rng)
            gain = gain * (weights.sum() / weights[references].sum())
            # The picks are fitted to the references, so what they reach there says little of the rest of the pool.
            if len(held_out):
                mean = mean_similarity_after(vectors, held_out, rows, weights=weights, taken=taken)
        else:
            eps = self.eps if mode == "stochastic" else None
            rows, gain, before = _by_vectors(pool, budget, None, weights, max_bytes, eps, rng)
        if mean is None:
            mean = (before + np.cumsum(gain)) / weights.sum()
        return Selection(
            rows, gain.astype(np.float32), Reason.of("score", len(rows), rank=np.arange(len(rows)), value=mean)
        )


def weights_of(pool: Pool, column: str) -> Array:
    """(n,) float64, >= 0.

    Raises:
        InvalidInput: a weight is negative or not a number, or all are 0.
    """
    from selection.scorers.column import numbers

    weights = numbers(column, pool.get_column(column)).astype(np.float64)
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise InvalidInput(
            f"column {column!r}: row {{row}} is {weights[negative[0]]:g}, a weight must be >= 0", row=int(negative[0])
        )
    if not weights.any():
        raise InvalidInput(f"column {column!r}: every weight is 0")
    return weights


def _by_vectors(
    pool: Pool,
    budget: int,
    references: Rows | None,
    weights: Array,
    max_bytes: int,
    eps: float | None,
    rng: np.random.Generator,
) -> tuple[Rows, Array, float]:
    from selection.kernels.facility_location import Coverage

    coverage = Coverage(
        pool.get_vectors(),
        references=references,
        weights=weights,
        taken=pool.get_already_selected(),
        max_bytes=max_bytes,
    )
    among = np.flatnonzero(pool.candidates).astype(np.int64)
    if eps is None:
        return *coverage.greedy(among, budget), coverage.before
    # Drawn by place in an order that is hashed from the keys, so that the order of the pool does not matter.
    among = among[np.argsort(hash_bits(pool.get_keys()[among], child(rng, 0)), kind="stable")]
    size = math.ceil(len(among) / budget * math.log(1 / eps))
    draw = child(rng, 1)
    rows, gain = np.empty(budget, np.int64), np.empty(budget)
    for i in range(budget):
        places = draw.choice(len(among), min(size, len(among)), replace=False, shuffle=False)
        rows[i : i + 1], gain[i : i + 1] = coverage.greedy(np.sort(among[places]), 1)
        at = int(places[among[places] == rows[i]][0])
        among[at] = among[-1]
        among = among[:-1]
    return rows, gain, coverage.before


def _by_neighbours(pool: Pool, budget: int, count: int, weights: Array) -> tuple[Rows, Array, float]:
    from selection.kernels.facility_location_lists import greedy_lists, neighbour_lists

    starts, refs, similarity = neighbour_lists(pool.get_vectors(), count)
    among = np.flatnonzero(pool.candidates).astype(np.int64)
    picks = greedy_lists(starts, refs, similarity, among, budget, weights=weights, taken=pool.get_already_selected())
    return picks.rows, picks.gain, picks.before
