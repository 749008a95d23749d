from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.kernels.compiled import nearest as loops
from selection.kernels.levels import Levels


def states(bounds) -> np.ndarray:
    state = np.zeros(len(bounds), loops.ROW)
    state["bound"] = bounds
    return state


@settings(max_examples=60)
@given(
    st.lists(st.sampled_from([-np.inf, 0.0, 1e-300, 1e-9, 0.1, 0.5, 0.5001, 1.0, 3.0, 1e12]), max_size=80),
    st.integers(1, 20),
    st.integers(0, 2**32 - 1),
)
def test_take__gives_all_rows_that_may_be_among_the_largest(bounds, least, seed):
    rng = np.random.default_rng(seed)
    state = states(bounds)
    levels = Levels(state)
    for _ in range(30):
        wanted = np.flatnonzero(state["bound"] > -np.inf)
        rows = levels.take(least)
        assert (np.diff(rows) > 0).all()
        assert np.isin(rows, wanted).all()
        assert len(rows) >= min(least, len(wanted))
        left = np.setdiff1d(wanted, rows)
        if len(left):
            assert state["bound"][left].max() < state["bound"][rows].min()
        state["bound"][rows] *= rng.choice([1.0, 0.999, 0.3, 0.0], len(rows))
        state["bound"][rows[rng.random(len(rows)) < 0.1]] = -np.inf
        levels.put(rows)


@pytest.mark.parametrize("outlier", [1.0, 1e8])
def test_take__looks_at_few_rows(outlier):
    rng = np.random.default_rng(0)
    state = states(rng.uniform(0.5, 1.0, 100_000))
    state["bound"][7] = outlier
    levels = Levels(state)
    taken = []
    for _ in range(100):
        rows = levels.take(100)
        taken.append(len(rows))
        state["bound"][rows[rows != 7]] *= 0.5  # as if row 7 were passed over
        levels.put(rows)
    assert np.median(taken) < 300
    assert max(taken) < 1000


def test_take__rows_in_one_level_are_taken_and_put_back():
    state = states(np.full(50, 2.0))
    levels = Levels(state)
    for _ in range(5):
        assert levels.take(3).tolist() == list(range(50))
        levels.put(np.arange(50))
    state["bound"] = 0.0
    for _ in range(2):
        assert levels.take(1).tolist() == list(range(50))
        levels.put(np.arange(50))
    assert levels.take(60).tolist() == list(range(50))
    assert levels.take(1).tolist() == []
