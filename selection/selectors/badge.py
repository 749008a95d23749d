"""An uncertain and diverse batch: rows drawn by squared distance between the gradients of their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from selection.pool import Pool
from selection.selectors.k_center import centres_selection
from selection.step import Selector, check_flag
from selection.types import Input, Selection

if TYPE_CHECKING:
    from selection.kernels.nearest import OuterProducts


@dataclass(frozen=True, slots=True, kw_only=True)
class Badge(Selector):
    """k-means++ seeding over the gradient embeddings of the last layer, exactly (BADGE, Ash et al. 2020).

    A row's embedding is the outer product of p - onehot(argmax p) and its vector. It has C*d dimensions and is never
    stored: distances are computed from the two factors. The first pick has the longest embedding, ties to the lowest
    row. Each further pick is drawn with probability proportional to its squared distance to the nearest pick.

    Args:
        greedy: take the row farthest from the picks instead of drawing one.

    Already selected rows are no centres, as in the authors' code: only candidates count. When all rows left coincide
    with picks, they are drawn uniformly. The draw depends on the keys of the rows, not on their order. p - onehot is
    rounded to float32; of equal probabilities the lowest class is the argmax. The gain is the distance to the nearest
    earlier pick, for the first pick its length; `ref` is that earlier pick, `value` the gain.

    Not for: a model that is sure of nearly every row: such rows have no gradient, and are drawn uniformly.

    Cost for n rows, d dimensions, C classes: three passes over the vectors of n*(C+d) operations, then two to six
    proposals a pick, each of at most one product with every pick. Memory: about (130 + 4*C)*n bytes, 8*(C+d) bytes for
    each pick, and 4*(C+d) for each of 1024 proposals.
    Source: JordanAsh/badge, `badge_sampling.py`.
    """

    greedy: bool = False
    name: ClassVar[str] = "badge"
    nested: ClassVar[bool] = True
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES})

    def __post_init__(self) -> None:
        check_flag(self.name, "greedy", self.greedy)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.compiled.nearest import square_norm
        from selection.kernels.k_center import k_center
        from selection.kernels.kmeans_pp import kmeans_pp
        from selection.kernels.nearest import farthest_from

        points, candidates = gradients(pool), pool.candidates
        first = np.array([farthest_from(np.zeros(points.shape[1]), points, candidates)])
        length = np.sqrt(square_norm(points.take(first)[0], points.split))
        if self.greedy:
            candidates[first] = False
            rest = k_center(points, budget - 1, centres=first, candidates=candidates)
        else:
            order = pool.candidates_by_key()
            rest = kmeans_pp(points, budget - 1, centres=first, order=order[order != first], rng=rng)
        return centres_selection(first, rest.rows, rest.distance, rest.near, first_value=length)


def gradients(pool: Pool) -> OuterProducts:
    """The gradient embedding of every row, for cross-entropy with the predicted class as the label.

    Raises:
        InvalidInput: a row's probabilities are no distribution; names the row.

    Cost: one pass over the probabilities; 4*n*C bytes.
    """
    from selection.kernels.nearest import OuterProducts
    from selection.kernels.probabilities import tiles

    blocks = pool.get_probabilities()
    residual = np.empty(blocks.shape, np.float32)
    for rows, tile in tiles(blocks, "probabilities"):
        predicted = np.argmax(tile, axis=1)
        residual[rows] = tile
        residual[rows, predicted] = tile[np.arange(len(tile)), predicted] - 1.0
    return OuterProducts(pool.get_vectors(), residual)
