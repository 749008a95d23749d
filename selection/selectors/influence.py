"""Choose what to label first: rows whose influence reaches the most other rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.noise import hash_bits, hash_uniform
from selection.pool import Pool
from selection.step import Selector, check_integer
from selection.streams import child
from selection.types import Array, Doubles, Input, Selection, UInts


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence(Selector):
    """Pick one row at a time, the one that most raises the expected number of rows reached (IDEAL, Zhang et al. 2024).

    Args:
        n_neighbors: how many rows of highest cosine each row passes its influence to.

    An edge from a row to a neighbour is live with a probability of their cosine (0 if negative) over the sum of the
    cosines to all its neighbours. A selection reaches every row that live edges lead to (independent cascade). The
    expectation is the mean over 64 samples of all edges, hashed from the keys of the two rows, the seed and the round;
    every pick uses the same samples. A row counts once in a sample. Given the samples, the picks are those of plain
    greedy search, ties to the lowest row, so their value is at least 1 - 1/e of the best. Rows that the already
    selected rows reach count as reached from the start. The gain is what a pick adds to the mean; the reason's value is
    the mean reached by the picks of this draw so far.

    The authors' code runs ten new cascades each time it looks at a row, and counts a row twice if it is reached twice
    in one step; this step does neither.

    Not for: large pools without `random_subpool` in front: it compares all pairs.

    Cost for n rows of d dimensions: 2*n*n*d operations for the neighbours, then the reach of each row once in all
    samples together, and a few more for each pick. Memory: 56 bytes * n * n_neighbors and 48 bytes a row; see
    `selection.kernels.neighbor_graph`.
    """

    n_neighbors: int = 10
    name: ClassVar[str] = "influence"
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS})

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.graph_greedy import spread
        from selection.kernels.neighbor_graph import cosines, nearest_neighbours

        graph = nearest_neighbours(pool.get_vectors(), self.n_neighbors)
        live = live_edges(graph, edge_weights(cosines(pool.get_vectors(), graph)), pool.get_keys(), rng)
        rows, gain = spread(graph, live, pool.candidate_rows, budget, taken=pool.get_already_selected())
        return Selection.in_order("score", rows, gain, np.cumsum(gain))


def edge_weights(similarity: Array) -> Doubles:
    """(n, k) each row's similarities over their sum, where negative ones count as 0; 0 if the sum is 0.

    >>> edge_weights(np.array([[0.5, 0.3, -0.2]]))
    array([[0.625, 0.375, 0.   ]])
    """
    positive = np.maximum(similarity, 0)
    total = np.sort(positive, axis=1).sum(axis=1, keepdims=True)  # sorted, since neighbours are in no fixed order
    return positive / np.where(total > 0, total, 1.0)


def live_edges(neighbours: Array, weights: Array, keys: Array, rng: np.random.Generator) -> UInts:
    """(n, k) uint64: bit r says whether an edge is live in sample r, which has the probability of its weight.

    Args:
        neighbours: (n, k) int32, the row that each edge leads to; an edge to -1 must have weight 0.
        weights: (n, k) in 0..1.
        keys: (n,) uint64.

    Cost: 64 hashes an edge; 32 bytes an edge.
    """
    from selection.kernels.graph_greedy import SAMPLES

    # Keys are hashed first: many edges, such as the reverse one, would have the same sum of plain keys.
    end = hash_bits(keys, child(rng, 0))
    edge = end[:, None] * np.uint64(3) + end[neighbours]
    live = np.zeros(neighbours.shape, np.uint64)
    for r in range(SAMPLES):
        live |= (hash_uniform(edge, child(rng, 1 + r)) < weights).astype(np.uint64) << np.uint64(r)
    return live
