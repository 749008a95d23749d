from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidBudget, Pool, select


def test_random_subpool__top_of_a_random_part():
    pool = Pool(scores=np.arange(100))
    rows = select([{"random_subpool": {"rows": 10}}, "top"], pool, budget=10, seed=2).rows
    assert len(set(rows)) == 10
    assert rows.tolist() == sorted(rows, reverse=True)
    assert rows.max() - rows.min() > 20


def test_random_subpool__smaller_than_the_budget_is_refused_or_short():
    pool = Pool(scores=np.arange(100))
    steps = [{"random_subpool": {"rows": 3}}, "top"]
    with pytest.raises(
        InvalidBudget, match=r"budget must be in 0\.\.3 \(candidates left after random_subpool\), got 5"
    ):
        select(steps, pool, budget=5)
    short = select(steps, pool, budget=5, allow_short=True)
    assert len(short.rows) == 3
    assert short.exhausted
