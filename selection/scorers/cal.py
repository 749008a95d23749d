"""Rows whose predicted classes differ from those of similar labelled rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import MissingInput
from selection.kernels.probabilities import taken
from selection.pool import Pool
from selection.step import Scorer, check_integer
from selection.types import Floats, Input, RowBlocks, Rows, Vectors
from selection.vectors import ArrayVectors

LEAST_PROBABILITY = 1e-7  # without it, a class that only one of two rows rules out would make the divergence infinite


@dataclass(frozen=True, slots=True, kw_only=True)
class Cal(Scorer):
    """Contrastive active learning: the mean KL(p_l || p_row) over the labelled rows l of highest cosine to the row.

    The score is high where the classifier's prediction differs from its predictions for labelled rows with nearly the
    same vector. Probabilities are clipped at 1e-7 and rescaled to sum to 1. A zero vector has cosine 0 to every row, so
    its neighbours are the lowest labelled rows.

    Args:
        n_neighbors: how many labelled rows each row is compared with; all if there are no more. Ties go to the lowest
            row.

    A labelled row that is still a candidate is its own neighbour; in a labeling project it is already selected.

    Not for: projects without a label (an error), or with so few that the nearest of them is far from most rows. Nor
    for classes with fewer labels than `n_neighbors`: most neighbours of any row are then of other classes, and the
    rows that the model is surest of score highest. There take 1 neighbour, and `facility_location` behind.

    Source: Margatina et al. 2021 (CAL), `acquisition/cal.py`, 10 neighbours.
    Cost: 2*n*l*d operations in float32 for l labelled rows, besides the probabilities. Memory: the vectors and
    probabilities of the labelled rows, one block, and n floats.
    """

    n_neighbors: int = 10
    name: ClassVar[str] = "cal"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.PROBABILITIES, Input.LABELS})

    def __post_init__(self) -> None:
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            MissingInput: no row is labelled.
        """
        if not len(pool):
            return np.empty(0, np.float32)
        labelled = np.flatnonzero(pool.get_labels() >= 0).astype(np.int64)
        if not len(labelled):
            raise MissingInput(
                f"cal compares with labelled rows, but none of the {len(pool)} rows has a label: draw the first rows "
                "with a step that needs none, such as k_center"
            )
        return contrast(pool.get_vectors(), pool.get_probabilities(), labelled, self.n_neighbors)


def contrast(vectors: Vectors, probabilities: RowBlocks, labelled: Rows, k: int) -> Floats:
    """(n,) float32, the score of `Cal` with `k` neighbours.

    Args:
        labelled: (l,) ascending, l >= 1.

    Raises:
        InvalidInput: a vector is not finite, or a row's probabilities are no distribution; names the row.
    """
    from selection.kernels.compiled import probabilities as loops
    from selection.kernels.normalize import unit_rows
    from selection.kernels.top_k import TILE_ROWS, tiles, top_k

    of_labelled = taken(probabilities, labelled, Input.PROBABILITIES)
    # The length of a row does not change which labelled rows are nearest to it, so only those need unit length.
    unit = ArrayVectors(unit_rows(vectors.take(labelled)))
    scores = np.empty(vectors.shape[0], np.float32)
    for rows, tile, _ in tiles(vectors, TILE_ROWS):
        neighbours = top_k(unit, tile, depth=min(k, len(labelled))).row
        of_tile = taken(probabilities, rows, Input.PROBABILITIES)
        loops.contrast(of_tile, of_labelled, neighbours, LEAST_PROBABILITY, rows, scores)
    return scores
