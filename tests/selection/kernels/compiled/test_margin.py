from __future__ import annotations

import numpy as np
import pytest

from selection.kernels.compiled.margin import LARGEST_SIZE, U, absolute_margin, distance_margin, product_margin


@pytest.mark.parametrize("d", [1, 2, 7, 384, 4096, 2**20])
def test_product_margin__is_the_bound_of_the_source_and_a_little_more(d):
    bound = d * U / (1 - d * U)
    assert bound < product_margin(d) < 1.002 * bound
    assert product_margin(d) == product_margin.py_func(d)
    assert product_margin(d) + 15 * U < distance_margin(d)


@pytest.mark.parametrize("d", [1, 3, 16, 100, 1000])
def test_absolute_margin__holds_for_sums_in_any_order(d):
    rng = np.random.default_rng(d)
    X, Y = (
        (rng.standard_normal((50, d)) * 10.0 ** rng.integers(-15, 15, (50, d))).astype(np.float32) for _ in range(2)
    )
    exact = (X.astype(np.float64) * Y.astype(np.float64)).sum(axis=1)
    lengths = (np.sqrt((rows.astype(np.float64) ** 2).sum(axis=1)) for rows in (X, Y))
    margin = absolute_margin(d, *lengths)
    for order in (np.arange(d), np.arange(d)[::-1], rng.permutation(d)):
        one_by_one = np.add.accumulate(X[:, order] * Y[:, order], axis=1, dtype=np.float32)[:, -1]
        assert (np.abs(one_by_one - exact) <= margin).all()
    assert (np.abs(np.diagonal(X @ Y.T) - exact) <= margin).all()


def test_absolute_margin__covers_products_that_vanish_and_gives_up_where_they_overflow():
    tiny = np.float32(2.0**-80)
    assert absolute_margin(3, float(tiny), float(tiny)) > 3 * float(tiny) ** 2  # all three products are 0 in float32
    assert absolute_margin(3, 2.0**63, 2.0**62).tolist() < LARGEST_SIZE
    assert absolute_margin(3, np.array([1.0, 2.0**63]), 2.0**63).tolist()[1] == np.inf
