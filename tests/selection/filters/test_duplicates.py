from __future__ import annotations

import numpy as np

from selection import Pool, select
from selection.filters.duplicates import DuplicateFilter
from selection.types import Duplicates

RNG = np.random.default_rng(0)


class LastDigit(DuplicateFilter):
    """A row duplicates the lowest row with the same last digit."""

    __slots__ = ()
    name = "last_digit"

    def duplicates(self, pool, *, rng):
        rows = np.flatnonzero(pool.candidates & (np.arange(len(pool)) >= 10))
        return Duplicates(rows, rows % 10, np.full(len(rows), 0.5))


def test_apply__keeps_the_other_candidates_and_reports_the_dropped_ones():
    kept, dropped = LastDigit().apply(Pool(scores=np.zeros(13), already_selected=[1, 11]), 5, rng=RNG)
    assert kept.tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (dropped.step, dropped.rows.tolist()) == ("last_digit", [10, 12])
    assert dropped.reason.kind.tolist() == ["neighbour"] * 2
    assert dropped.reason.ref.tolist() == [0, 2]
    assert dropped.reason.value.tolist() == [0.5, 0.5]


def test_keep__is_what_apply_keeps():
    pool = Pool(scores=np.zeros(25), eligible=np.arange(25) != 14)
    assert LastDigit().keep(pool, 5, rng=RNG).tolist() == list(range(10))
    assert LastDigit().keep(Pool(scores=np.zeros(8)), 5, rng=RNG).tolist() == list(range(8))


def test_select__the_report_reaches_the_selection():
    selection = select([LastDigit(), "top"], Pool(scores=np.arange(12)), budget=2)
    assert selection.rows.tolist() == [9, 8]
    (dropped,) = selection.dropped
    assert dropped.rows.tolist() == [10, 11]
