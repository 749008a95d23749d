"""Cover the pool: each pick is the row farthest from everything picked before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.allocation import as_written
from selection.errors import InvalidInput
from selection.pool import Pool
from selection.selectors.random import drawn_rows
from selection.selectors.weighted import Weighted
from selection.step import check_choice, check_version
from selection.types import NO_REF, Array, Doubles, Reason, Rows, Selection, Vectors

FIRST = ("random", "farthest_from_mean")
ZERO = ("fill", "stop")

LARGEST_WEIGHT = 1e50  # its square times that of a distance is in the range of float64


class CentreSelector(Weighted):
    """The base of selectors that add centres: their first pick, and the weights that multiply distances."""

    __slots__ = ()

    first: str | int | Mapping[str, str]
    version: int

    def check_first(self, names: tuple[str, ...]) -> None:
        """Raise `InvalidOption` unless `first` is one of the names or a row."""
        first = self.first
        is_row = isinstance(first, int) and not isinstance(first, bool) and first >= 0
        is_id = isinstance(first, Mapping) and list(first) == ["id"] and isinstance(first["id"], str) and first["id"]
        if not is_row and not is_id and first not in names:
            allowed = f"{', '.join(names)}, a row of the pool or {{id: its id}}"
            raise self.invalid(f"first must be one of {allowed}, got {first!r}", "first")

    def first_row(self, pool: Pool, rng: np.random.Generator) -> int:
        """The row that `first` names, or one drawn by hash noise.

        Raises:
            InvalidOption: the row is not a candidate, or named by an id, which only recipes know.
        """
        if isinstance(self.first, str):
            return int(drawn_rows(pool, 1, rng)[0][0])
        if not isinstance(self.first, int):
            raise self.invalid(f"first: only a recipe knows ids; give a row, not {self.first!r}", "first")
        row = pool.row_of_source(self.first) if self.version > 1 else self.first
        if row is None or row >= len(pool) or not pool.candidates[row]:
            seen = f"the {int(pool.candidates.sum())} rows that this step chooses from"
            raise self.invalid(f"first must be a candidate: row {self.first} of the pool is not among {seen}", "first")
        return row

    def weight_column(self, pool: Pool) -> Doubles | None:
        """(n,) float64; None without weights.

        Raises:
            InvalidInput: not numbers, or one is negative or not finite; names the row.
        """
        if self.weights is None:
            return None
        column = pool.get_column(self.weights)
        if column.dtype.kind not in "fiub":
            raise InvalidInput(f"{self.name}: weights must be numbers, column {self.weights!r} is {column.dtype}")
        weights = column.astype(np.float64)
        bad = np.flatnonzero(~((weights >= 0) & (weights <= LARGEST_WEIGHT)))
        if len(bad):
            got = f"column {self.weights!r} has {weights[bad[0]]} in row {{row}}"
            raise InvalidInput(f"{self.name}: weights must be in 0..{LARGEST_WEIGHT:g}, {got}", row=int(bad[0]))
        return weights


@dataclass(frozen=True, slots=True, kw_only=True)
class KCenter(CentreSelector):
    """Greedy k-center in Euclidean distance, exact: the radius is at most twice the smallest possible (Gonzalez 1985).

    Args:
        first: the first pick if no row is already selected: "random" (by hash noise), "farthest_from_mean" of the
            candidates, or a row: its number in the pool (not among the rows that are eligible or that filters left), or
            in a recipe {id: its id}.
        weights: a column of finite numbers >= 0 that multiply each row's distance.
        outlier_quantile: in 0 .. 1, the share of the pool's rows that each pick skips, the farthest ones, so that picks
            are no outliers. If the whole pool is taken, the skipped rows are the last picks.
        zero: what to do when every candidate coincides with a centre: "fill" with the lowest rows, or "stop".
        version: 1 counts `first` among the rows that the step sees, as winnow 0.2 did.

    Already selected rows are centres. The gain is the distance to the nearest centre at the moment of picking (0 for a
    first pick, which has no centre), times the weight; `ref` is that centre, `value` the gain (NaN for a first pick).
    If no rows are skipped, gains do not rise, and the last gain bounds the radius of the pool.

    Not for: pools with noise, which is far from everything and is taken first: raise `outlier_quantile`.

    Cost and memory: see `selection.kernels.k_center`.
    """

    first: str | int | Mapping[str, str] = "random"
    weights: str | None = None
    outlier_quantile: float = 0.0
    zero: str = "fill"
    version: int = 2
    name: ClassVar[str] = "k_center"
    row_options: ClassVar[tuple[str, ...]] = ("first",)
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.check_first(FIRST)
        self.check_weights()
        q = self.outlier_quantile
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q < 1:
            raise self.invalid(f"outlier_quantile must be a number >= 0 and < 1, got {q!r}", "outlier_quantile")
        check_choice(self.name, "zero", self.zero, ZERO)
        check_version(self.name, self.version, newest=2)

    @property
    def algorithm(self) -> int:
        """1 unless `first` is a row."""
        return 1 if isinstance(self.first, str) else self.version

    def points(self, pool: Pool) -> Vectors:
        """(n, d) the points whose distances count: the vectors."""
        return pool.get_vectors()

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        from selection.kernels.k_center import k_center

        points, candidates = self.points(pool), pool.candidates
        weights = self.weight_column(pool)
        centres = pool.get_already_selected()
        first = np.empty(0, np.int64)
        if not len(centres):
            first = np.array([self._first(pool, points, weights, rng)])
            candidates[first] = False
            centres = first
        rest = k_center(
            points,
            budget - len(first),
            centres=centres,
            candidates=candidates,
            skip=int(as_written(self.outlier_quantile) * len(pool)),
            scale=None if weights is None else weights**2,
            stop_at_zero=self.zero == "stop",
        )
        return centres_selection(first, rest.rows, rest.distance, rest.near)

    def _first(self, pool: Pool, points: Vectors, weights: Doubles | None, rng: np.random.Generator) -> int:
        from selection.kernels.nearest import farthest_from, mean_vector

        if self.first != "farthest_from_mean":
            return self.first_row(pool, rng)
        mean = mean_vector(points, pool.candidate_rows)
        return farthest_from(mean, points, pool.candidates, None if weights is None else weights**2)


def centres_selection(
    first: Rows, rows: Rows, distance: Array, near: Rows, *, first_value: float = np.nan
) -> Selection:
    """The selection of `first`, without a centre but with that value, then `rows` with their distance and centre."""
    value = np.concatenate([np.full(len(first), first_value), distance]).astype(np.float32)
    ref = np.concatenate([np.full(len(first), NO_REF), near])
    gain = np.nan_to_num(value, nan=0.0)
    return Selection(np.concatenate([first, rows]), gain, Reason.of("centre", len(value), ref=ref, value=value))
