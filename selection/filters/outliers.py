"""Drop rows that are unlike all others, or that a model never learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import as_written
from selection.errors import InvalidOption
from selection.kernels.anchor_search import QUERY_ROWS, search_vectors
from selection.pool import Pool
from selection.scorers.training_dynamics import Cartography
from selection.step import Filter, check_integer, check_number, check_version
from selection.types import Array, DroppedRows, Input, Reason, Rows, Vectors

MAX_DROP = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers(Filter):
    """Drop the candidates of lowest mean similarity to their nearest rows; or of lowest `cartography` score.

    Args:
        drop: the largest share of the candidates to drop, at most 0.25; the number of rows is rounded down. Rows tied
            with the lowest that stays also stay.
        n_neighbors: how many nearest rows a row is compared with, without itself but with already selected rows.
        fields: columns of a training run, as the scorer `cartography` takes them. They replace the vectors.
        version: 1 searches stored vectors as they are, rounded, without dividing by their lengths, as winnow 0.2 did.

    The selection's record lists the dropped rows with their scores.

    Searches the vector index if there is one; exact otherwise.

    Not for: pools whose rare kinds of rows are wanted: they are unlike most rows, too.

    Cost: one search for each row of the pool, 2*n*n*d operations if exact: for a large pool put a filter in front, or
    build an index. Memory: 8*n bytes, and 4096 * (4*d + 12*n_neighbors). With `fields`: one pass over the columns.

    Source: Karamcheti et al. 2021 (outliers defeat active learning; the score by cartography of Swayamdipta et al.
    2020); the mean over the nearest rows as in Angiulli, Pizzuti 2002.
    """

    drop: float = 0.05
    n_neighbors: int = 10
    fields: str | Sequence[str] = ()
    version: int = 2
    name: ClassVar[str] = "outliers"

    def __post_init__(self) -> None:
        check_number(self.name, "drop", self.drop, above=0, most=MAX_DROP)
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        fields: Sequence[str] = ()
        if self.fields not in ((), []):
            try:
                fields = Cartography(fields=self.fields).fields
            except InvalidOption as error:
                raise self.invalid(error.reason, "fields") from None
        object.__setattr__(self, "fields", tuple(fields))
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 without vectors."""
        return 1 if self.fields else self.version

    @property
    def needs(self) -> frozenset[Input]:
        """Vectors, or columns."""
        return frozenset({Input.COLUMNS if self.fields else Input.VECTORS})

    @property
    def columns(self) -> frozenset[str]:
        """The columns of the training run."""
        return frozenset(self.fields)

    @property
    def searches(self) -> bool:
        """Only vectors are searched."""
        return not self.fields

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        rows = pool.candidate_rows
        if self.fields:
            score = np.asarray(Cartography(fields=self.fields).score(pool, rng=rng))[rows].astype(np.float64)
        else:
            score = neighbour_similarity(search_vectors(pool, self.version), rows, self.n_neighbors)
        drop = math.floor(as_written(self.drop) * len(rows))
        lowest_kept = np.sort(score)[drop] if len(rows) else 0.0
        keep = score >= lowest_kept
        dropped = rows[~keep]
        return rows[keep], DroppedRows(self.name, dropped, Reason.of("outlier", len(dropped), value=score[~keep]))


def neighbour_similarity(vectors: Vectors, rows: Rows, k: int) -> Array:
    """(r,) float64 mean similarity of each of `rows` to the `k` nearest other rows of the pool; 0 if there are none."""
    score = np.zeros(len(rows))
    for start in range(0, len(rows), QUERY_ROWS):
        part = rows[start : start + QUERY_ROWS]
        similarity, neighbours = vectors.nearest(np.ascontiguousarray(vectors.take(part), np.float32), k + 1)
        itself = neighbours == part[:, None]
        itself[~itself.any(axis=1), -1] = True  # among many equal rows, a row may not be in its own list
        others = np.where(itself | (neighbours < 0), 0.0, similarity.astype(np.float64))
        count = (~itself & (neighbours >= 0)).sum(axis=1)
        # float64 sums of float32 values are almost always exact, so the row's own place in its list does not matter.
        score[start : start + QUERY_ROWS] = others.sum(axis=1) / np.maximum(count, 1)
    return score
