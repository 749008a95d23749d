from __future__ import annotations

import numpy as np
import pytest

from selection import Pool, select


def test_random__a_grown_pool_keeps_the_order_of_the_old_rows():
    keys = np.random.default_rng(0).integers(0, 2**63, 200, dtype=np.uint64)
    small = select(["random"], Pool(keys=keys[:150]), budget=150, seed=1).rows
    large = select(["random"], Pool(keys=keys), budget=200, seed=1).rows
    assert small.tolist() == [row for row in large if row < 150]


def test_random__rounds_and_seeds_differ():
    pool = Pool(keys=np.arange(1000))
    draws = {tuple(select(["random"], pool, budget=5, seed=s, round=r).rows) for s in range(5) for r in range(5)}
    assert len(draws) == 25


@pytest.mark.slow
def test_random__every_row_is_as_likely():
    pool = Pool(keys=np.arange(10))
    counts = np.zeros(10)
    for seed in range(2000):
        counts[select(["random"], pool, budget=3, seed=seed).rows] += 1
    # 2000 draws of 3 of 10: mean 600, standard deviation about 20.5
    assert np.abs(counts - 600).max() < 5 * 20.5
