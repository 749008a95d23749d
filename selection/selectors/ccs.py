"""Coverage-centric coreset selection: cut off the hardest rows, then spread the budget over the range of difficulty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from selection.allocation import as_written
from selection.pool import Pool
from selection.registry import inner_selector
from selection.run_selector import select_in_strata
from selection.scorers.column import numbers
from selection.step import Selector, check_choice, check_integer, check_name, check_version, is_number
from selection.streams import child
from selection.types import Floats, Input, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ccs(Selector):
    """Drop the hardest share of the candidates, cut the rest into strata of equal width in score, draw from each.

    Args:
        beta: the share of the candidates that is dropped, 0 <= beta < 1: floor(beta * n) of them, ties to the lowest
            row. "auto" goes by the share of the candidates that the budget is: 0.4 less that share, in 0 .. 0.3. That
            gives what the paper takes: 0 for half of the rows, 0.1 for 30 percent, 0.3 for 10 percent and less.
        n_strata: how many strata of equal width lie between the lowest and the highest score left.
        hard: which end is hard, of the score or of `cut_by`: "low" (aum) or "high" (el2n, forgetting).
        cut_by: the column that says which rows are hardest; the score by default. Strata go by the score in any case.
            The released code cuts by AUM, whatever the strata go by: `cut_by: aum, hard: low`.
        within: the selector inside a stratum.
        version: 1 takes 0.1 for "auto", the default of winnow 0.2.

    Strata are served from the smallest: each gives an equal part of the budget that is left, or all it has. A constant
    score is one stratum. Where beta leaves fewer rows than the budget, only these are selected. Picks of the strata are
    interleaved; `ref` of a reason is the stratum, `rank` the place in it, gain and value those of the selector inside.

    Not for: scores that do not say how hard a row is: strata and cut then mean nothing.

    Source: Zheng et al. 2023 (CCS), `Coreset.py`; there a constant or negative score empties strata, here never.
    Cost: one sort of the scores, and that of the selectors inside.
    """

    beta: float | str = "auto"
    n_strata: int = 50
    hard: str = "low"
    cut_by: str | None = None
    within: str | Mapping[str, Any] = "random"
    version: int = 2
    name: ClassVar[str] = "ccs"
    inner_options: ClassVar[tuple[str, ...]] = ("within",)

    def __post_init__(self) -> None:
        if self.beta != "auto" and not (is_number(self.beta) and 0 <= self.beta < 1):
            raise self.invalid(f"beta must be 'auto' or in 0 <= beta < 1, got {self.beta!r}", "beta")
        check_integer(self.name, "n_strata", self.n_strata, least=1)
        check_choice(self.name, "hard", self.hard, ("low", "high"))
        check_name(self.name, "cut_by", self.cut_by, optional=True)
        check_version(self.name, self.version, newest=2)
        self.inner()

    @property
    def algorithm(self) -> int:
        """1 unless beta goes by the budget."""
        return self.version if self.beta == "auto" else 1

    def share_dropped(self, pool: Pool, budget: int) -> Fraction:
        """The share of the candidates that is dropped."""
        if self.beta != "auto":
            return as_written(float(self.beta))
        if self.version == 1:
            return Fraction(1, 10)
        left = Fraction(4, 10) - Fraction(budget, max(1, int(pool.candidates.sum())))
        return max(Fraction(0), min(Fraction(3, 10), left))

    def inner(self) -> Selector:
        """The selector inside a stratum."""
        return inner_selector(self.name, "within", self.within)

    @property
    def needs(self) -> frozenset[Input]:
        """Scores, what the inner selector needs, and columns where one says what is hard."""
        return self.inner().needs | {Input.SCORES} | ({Input.COLUMNS} if self.cut_by is not None else set())

    @property
    def columns(self) -> frozenset[str]:
        """Those of the inner selector, and the one to cut by."""
        return self.inner().columns | ({self.cut_by} if self.cut_by is not None else set())

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        by = pool.get_scores() if self.cut_by is None else numbers(self.cut_by, pool.get_column(self.cut_by))
        rows = without_hardest(pool, by, self.share_dropped(pool, budget), hard=self.hard)
        stratum, names = equal_width(pool.get_scores()[rows], self.n_strata)
        counts = smallest_first(np.bincount(stratum, minlength=len(names)).tolist(), min(budget, len(rows)))
        taken = pool.get_already_selected()  # counts as centres in each stratum
        parts = (
            (i, np.union1d(rows[stratum == i], taken), counts[i], child(rng, i))
            for i in np.flatnonzero(counts).tolist()
        )
        return select_in_strata(self.inner(), pool, parts, names)


def without_hardest(pool: Pool, by: Floats, beta: Fraction, *, hard: str) -> Rows:
    """The candidates, ascending, without floor(beta * n) of the hardest by (n,) numbers."""
    rows = np.flatnonzero(pool.candidates).astype(np.int64)
    dropped = math.floor(beta * len(rows))  # a fraction as written: 0.29 * 100 is 28.999... in floats
    order = np.argsort(by[rows] if hard == "low" else -by[rows], kind="stable")
    return np.sort(rows[order[dropped:]])


def equal_width(scores: Floats, count: int) -> tuple[Rows, tuple[str, ...]]:
    """The stratum of each score, and the strata's names: `count` intervals of equal width, or one of a constant score.

    >>> equal_width(np.array([0, 1, 2, 4], np.float32), 2)
    (array([0, 0, 1, 1]), ('0..2', '2..4'))
    """
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        return np.zeros(len(scores), np.int64), (f"{low:g}",)
    place = (scores.astype(np.float64) - low) / (high - low) * count
    edges = [low + (high - low) * i / count for i in range(count + 1)]
    names = tuple(f"{a:.4g}..{b:.4g}" for a, b in pairwise(edges))
    return np.minimum(place.astype(np.int64), count - 1), names


def smallest_first(sizes: Sequence[int], budget: int) -> list[int]:
    """From the smallest stratum on, each gets an equal part of what is left of the budget, or all it has.

    Args:
        sizes: rows in each stratum.
        budget: 0 .. sum(sizes).

    Returns:
        One count for each stratum, at most its size; they sum to the budget. Ties go by the order of the strata, so
        that a remainder goes to the last of the largest, as in the released code.

    >>> smallest_first([0, 3, 10, 100, 2], 30), smallest_first([5, 5, 5], 7)
    ([0, 3, 10, 15, 2], [2, 2, 3])
    """
    counts = [0] * len(sizes)
    order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: sizes[i])
    for done, i in enumerate(order):
        counts[i] = min(sizes[i], budget // (len(order) - done))
        budget -= counts[i]
    return counts
