from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidOption, Pool, select
from selection.filters.keep_top import KeepTop


def test_keep_top__keeps_a_multiple_of_the_budget():
    pool = Pool(scores=np.arange(100))
    for seed in range(10):
        rows = select([{"keep_top": {"times": 2.5}}, "random"], pool, budget=4, seed=seed).rows
        assert rows.min() >= 90


def test_keep_top__keeps_ties_of_the_lowest_rows():
    kept = KeepTop(times=2).keep(Pool(scores=np.zeros(9)), 2, rng=np.random.default_rng(0))
    assert kept.tolist() == [0, 1, 2, 3]


def test_keep_top__fewer_than_the_budget_makes_no_sense():
    with pytest.raises(InvalidOption, match=r"keep_top: times must be a finite number >= 1, got 0\.5"):
        KeepTop(times=0.5)
