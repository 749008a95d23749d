"""Choose what to label first: rows that are neighbours of many others whose neighbours hold no pick yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.pool import Pool
from selection.step import Selector, check_flag, check_integer, check_version
from selection.types import Array, Input, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteK(Selector):
    """Pick one row at a time, the one with the most votes of its neighbours (vote-k, Su et al. 2023).

    Args:
        n_neighbors: each row votes for this many rows, those of highest cosine to it.
        rho: a vote weighs rho ** -(number of selected rows that the voter votes for), and 0 once the voter is selected.
        buckets: use the second stage of the published method. It takes scores, higher = less confident. It leaves out
            the tenth of the candidates with the most confident predictions, cuts the rest into as many equal buckets as
            the budget, the least confident first, and takes the row with the most votes from each bucket. If the budget
            is above 0.9 of the candidates, it leaves out fewer.
        version: 1 breaks ties by the lowest row alone, as winnow 0.2 did.

    The published method is two draws: `vote_k` for the first labels, then with these as already selected rows
    `[least_confidence, {vote_k: {buckets: true}}]`. Already selected rows count in both. Exact; ties go to the row
    that most rows vote for, then to the lowest row. Rows without votes score 0 and come last. The gain is the score;
    the reason's `ref` is the bucket.

    Not for: large pools without `random_subpool` in front: it compares all pairs.

    Cost for n rows of d dimensions: 2*n*n*d operations for the neighbours, then n + n_neighbors**2 a pick. Memory:
    8 bytes * n * n_neighbors and 32 bytes a row; see `selection.kernels.neighbor_graph`.
    """

    n_neighbors: int = 150
    rho: int = 10
    buckets: bool = False
    version: int = 2
    name: ClassVar[str] = "vote_k"

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        check_integer(self.name, "rho", self.rho, least=2)
        check_flag(self.name, "buckets", self.buckets)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """Ties may be anywhere."""
        return self.version

    @property
    def needs(self) -> frozenset[Input]:
        """Vectors; with `buckets` also scores."""
        return frozenset({Input.VECTORS} | ({Input.SCORES} if self.buckets else set()))

    @property
    def nested(self) -> bool:
        """False with buckets, since their number is the budget."""
        return not self.buckets

    @property
    def incremental(self) -> bool:
        """As `nested`."""
        return not self.buckets

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        from selection.kernels.graph_greedy import vote_k
        from selection.kernels.neighbor_graph import nearest_neighbours

        candidates = pool.candidate_rows
        scores = pool.get_scores()[candidates] if self.buckets else None
        parts = [candidates] * budget if scores is None else equal_buckets(candidates, scores, budget)
        graph = nearest_neighbours(pool.get_vectors(), self.n_neighbors)
        taken = pool.get_already_selected()
        rows, gain = vote_k(graph, rho=self.rho, taken=taken, parts=parts, ties_to_votes=self.version > 1)
        if not self.buckets:
            return Selection.in_order("score", rows, gain)
        names = [f"bucket {i + 1} of {budget}" for i in range(budget)]
        ref, rank = np.arange(budget), np.zeros(budget)
        reason = Reason.of("stratum", budget, ref=ref, rank=rank, value=gain, names=names)
        return Selection(rows, gain.astype(np.float32), reason)


def equal_buckets(rows: Rows, scores: Array, count: int) -> list[Rows]:
    """Rows by descending score without the last tenth, in `count` parts of the same length; ties to the lowest row.

    >>> [part.tolist() for part in equal_buckets(np.arange(10), np.arange(10)[::-1], 3)]
    [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    """
    ordered = rows[np.lexsort((rows, -scores))]
    size = max(1, 9 * len(rows) // (10 * count))
    return [ordered[i * size : (i + 1) * size] for i in range(count)]
