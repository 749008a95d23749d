"""Drop rows that are like no other, or that a model could never learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import as_written
from selection.errors import InvalidOption
from selection.kernels.neighbor_search import QUERY_ROWS
from selection.scorers.training_dynamics import Cartography
from selection.step import Filter, check_integer, check_number
from selection.types import Array, DroppedRows, Input, Pool, Reason, Rows

MOST = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers(Filter):
    """Drop the candidates of lowest mean similarity to their nearest rows; or of lowest `cartography` score.

    Args:
        drop: at most this part of the candidates, rounded down; at most 0.25. Rows tied with the first that stays, stay.
        n_neighbors: nearest rows that a row is compared with, itself left out, already selected ones included.
        fields: columns of a training run, as the scorer `cartography` takes them; the vectors are not looked at then.

    What is dropped stands in the selection's record with its score.

    Searches the vector index where there is one; exact otherwise.

    Cost: one search for each row of the pool, exact 2*n*n*d operations: over a large pool put a filter in front, or have
    an index. Memory: 8 n bytes, and 4096 * (4 d + 12 n_neighbors). With fields: one pass over the columns.

    Source: Karamcheti et al. 2021 (outliers defeat active learning; the score by cartography of Swayamdipta et al. 2020);
    the mean over the nearest as in Angiulli, Pizzuti 2002.
    """

    drop: float = 0.05
    n_neighbors: int = 10
    fields: str | Sequence[str] = ()
    name: ClassVar[str] = "outliers"

    def __post_init__(self) -> None:
        check_number(self.name, "drop", self.drop, above=0)
        if self.drop > MOST:
            raise InvalidOption(f"drop must be in 0 < drop <= {MOST}, got {self.drop!r}", step=self.name, option="drop")
        check_integer(self.name, "n_neighbors", self.n_neighbors, least=1)
        fields: Sequence[str] = ()
        if self.fields not in ((), []):
            try:
                fields = Cartography(fields=self.fields).fields
            except InvalidOption as error:
                raise InvalidOption(error.reason, step=self.name, option="fields") from None
        object.__setattr__(self, "fields", tuple(fields))

    @property
    def needs(self) -> frozenset[Input]:
        """Vectors, or columns."""
        return frozenset({Input.COLUMNS if self.fields else Input.VECTORS})

    @property
    def columns(self) -> frozenset[str]:
        """Those of the training run."""
        return frozenset(self.fields)

    @property
    def searches(self) -> bool:
        """With vectors."""
        return not self.fields

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        rows = np.flatnonzero(pool.candidates).astype(np.int64)
        if self.fields:
            score = np.asarray(Cartography(fields=self.fields).score(pool, rng=rng))[rows].astype(np.float64)
        else:
            score = neighbour_similarity(pool, rows, self.n_neighbors)
        most = math.floor(as_written(self.drop) * len(rows))
        first = np.sort(score)[most] if len(rows) else 0.0
        stays = score >= first
        gone = rows[~stays]
        return rows[stays], DroppedRows(self.name, gone, Reason.of("outlier", len(gone), value=score[~stays]))


def neighbour_similarity(pool: Pool, rows: Rows, k: int) -> Array:
    """(r,) float64 mean similarity of each of `rows` to the `k` nearest rows of the pool but itself; 0 without any."""
    vectors = pool.get_vectors()
    score = np.zeros(len(rows))
    for start in range(0, len(rows), QUERY_ROWS):
        part = rows[start : start + QUERY_ROWS]
        similarity, found = vectors.nearest(np.ascontiguousarray(vectors.take(part), np.float32), k + 1)
        itself = found == part[:, None]
        itself[~itself.any(axis=1), -1] = True  # among many equals a row need not find itself
        others = np.where(itself | (found < 0), 0.0, similarity.astype(np.float64))
        count = (~itself & (found >= 0)).sum(axis=1)
        # Sums of float32 values in float64, all but always exact: so wherever a row found itself.
        score[start : start + QUERY_ROWS] = others.sum(axis=1) / np.maximum(count, 1)
    return score
