"""Facility location: picks such that every row of the pool is similar to one of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.noise import hash_bits
from selection.pool import Pool
from selection.scorers.column import numbers
from selection.selectors.weighted import Weighted
from selection.step import check_choice, check_integer, check_number, check_version
from selection.streams import child
from selection.types import Array, Doubles, Rows, Selection

if TYPE_CHECKING:
    from selection.kernels.facility_location import Coverage

MODES = ("auto", "exact", "reference", "knn", "stochastic")


@dataclass(frozen=True, slots=True, kw_only=True)
class FacilityLocation(Weighted):
    """Pick one row at a time, the one that most raises the mean similarity of the pool's rows to their nearest pick.

    Args:
        mode: "exact" covers every row. "reference" covers a random sample of `n_ref` rows instead. In "knn", only the
            `n_neighbors` nearest other rows of a row, and the row itself, can cover it. "stochastic" covers every row,
            but each pick is the best of a random sample of n / budget * ln(1 / eps) candidates. "auto" is "exact" if
            the similarities of all pairs fit into `memory_gb`, else "reference".
        n_ref: the size of the sample. Choose many times the budget: the picks are fitted to the sample, and once it is
            covered, further picks add nothing.
        n_neighbors: for "knn", by highest cosine.
        eps: for "stochastic": the expected value is at least (1 - 1/e - eps) of the best.
        weights: a column of numbers >= 0: how much covering a row counts.
        memory_gb: the memory for similarities. Less memory costs time; the picks stay the same.
        version: 1 draws as winnow 0.2 did: in "knn" a row may be one of its `n_neighbors` nearest, which go by inner
            product, and gains that tie in truth may differ where the largest weight is not 1.

    Similarity is (1 + cosine) / 2; that of a zero vector is 0. The value of the picks is at least (1 - 1/e) of the best
    possible (Nemhauser et al. 1978), and gains never rise. Already selected rows cover from the start. Exact for the
    rows that are covered, ties to the lowest row: see `selection.kernels.facility_location`. The gain is what a pick
    adds to the sum of similarities over all n rows (for "reference": over the sample, times n / n_ref). The reason's
    value is the mean similarity with all picks so far (for "reference": over a held-out sample of the same size).

    Not for: rare kinds of rows, which raise the mean similarity little: `k_center` goes to them.

    Cost for n rows of d dimensions: "exact" multiplies all pairs once, n*n*d*2 operations, and keeps 8 bytes for
    each similarity that may still count, all at first and few after some picks; where there is no room for as much, a
    byte (and a bit for each of the others), by which few pairs are computed again. What does not fit into `memory_gb`
    even so is computed again several times. "reference": n * n_ref in place of n * n. "knn": one search with n queries,
    20 bytes * n * n_neighbors. "stochastic": ln(1/eps) * n * n pairs. All modes also take 9 bytes * d for each covered
    row (20 to begin with) and 96 bytes a row.

    Source: Lin and Bilmes 2009; lazy greedy Minoux 1978; stochastic greedy Mirzasoleiman et al. 2015.
    """

    mode: str = "auto"
    n_ref: int = 8192
    n_neighbors: int = 64
    eps: float = 0.1
    weights: str | None = None
    memory_gb: float = 1.0
    version: int = 2
    name: ClassVar[str] = "facility_location"

    def __post_init__(self) -> None:
        check_choice(self.name, "mode", self.mode, MODES)
        check_integer(self.name, "n_ref", self.n_ref, least=1)
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_number(self.name, "eps", self.eps, above=0, below=1)
        check_number(self.name, "memory_gb", self.memory_gb, above=0)
        self.check_weights()
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 where every row counts the same and may be covered by all."""
        return self.version if self.mode == "knn" or self.weights is not None else 1

    @property
    def nested(self) -> bool:
        """True unless stochastic, where the size of each pick's sample depends on the budget."""
        return self.mode != "stochastic"

    @property
    def incremental(self) -> bool:
        """As `nested`: the sample of "reference" depends on the seed and round alone."""
        return self.nested

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.facility_location import Coverage, greedy_lists, mean_similarity_after, neighbour_lists

        n, vectors, taken, candidates = len(pool), pool.get_vectors(), pool.get_already_selected(), pool.candidate_rows
        mode, max_bytes = self.mode, int(self.memory_gb * 2**30)
        if mode == "auto":
            mode = "exact" if 4 * n * n <= max_bytes else "reference"
        weights = np.ones(n) if self.weights is None else weights_of(pool, self.weights)
        if mode == "knn":
            lists = neighbour_lists(vectors, self.n_neighbors, count_itself=self.version == 1)
            rows, gain, before = greedy_lists(
                *lists, candidates, budget, weights=weights, taken=taken, exact_weights=self.version > 1
            )
            return Selection.in_order("score", rows, gain, (before + np.cumsum(gain)) / weights.sum())
        references = held_out = None
        if mode == "reference" and self.n_ref < n:
            order = np.argsort(hash_bits(pool.get_keys(), child(rng, 0)), kind="stable").astype(np.int64)
            order = order[weights[order] > 0]
            references, held_out = np.sort(order[: self.n_ref]), order[self.n_ref : 2 * self.n_ref]
        coverage = Coverage(
            vectors,
            references=references,
            weights=weights,
            exact_weights=self.version > 1,
            taken=taken,
            max_bytes=max_bytes,
        )
        if mode == "stochastic":
            rows, gain = _stochastic(coverage, pool, budget, self.eps, rng)
        else:
            rows, gain = coverage.greedy(candidates, budget)
        if references is not None:
            gain = gain * (weights.sum() / weights[references].sum())
        mean = (coverage.before + np.cumsum(gain)) / weights.sum()
        # The picks are fitted to the references, so the mean similarity is measured on other rows.
        if held_out is not None and len(held_out):
            mean = mean_similarity_after(vectors, held_out, rows, weights=weights, taken=taken)
        return Selection.in_order("score", rows, gain, mean)


def weights_of(pool: Pool, column: str) -> Array:
    """(n,) float64, >= 0.

    Raises:
        InvalidInput: a weight is negative or not a number, or all are 0.
    """
    weights = numbers(column, pool.get_column(column)).astype(np.float64)
    negative = np.flatnonzero(weights < 0)
    if len(negative):
        raise InvalidInput(
            f"column {column!r}: row {{row}} is {weights[negative[0]]:g}, a weight must be >= 0", row=int(negative[0])
        )
    if not weights.any():
        raise InvalidInput(f"column {column!r}: every weight is 0")
    return weights


def _stochastic(
    coverage: Coverage, pool: Pool, budget: int, eps: float, rng: np.random.Generator
) -> tuple[Rows, Doubles]:
    """Each pick is the best of a random sample of the candidates left."""
    candidates = pool.candidate_rows
    # Samples are drawn by position in an order hashed from the keys, so the order of the pool does not matter.
    left = candidates[np.argsort(hash_bits(pool.get_keys()[candidates], child(rng, 0)), kind="stable")]
    size = math.ceil(len(left) / budget * math.log(1 / eps))
    stream = child(rng, 1)
    rows, gain = np.empty(budget, np.int64), np.empty(budget)
    for i in range(budget):
        sample = stream.choice(len(left), min(size, len(left)), replace=False, shuffle=False)
        rows[i : i + 1], gain[i : i + 1] = coverage.greedy(np.sort(left[sample]), 1)
        left[sample[left[sample] == rows[i]]] = left[-1]
        left = left[:-1]
    return rows, gain
