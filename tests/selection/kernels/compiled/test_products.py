from __future__ import annotations

import numba
import numpy as np
import pytest

from selection.kernels.compiled.nearest import products
from selection.kernels.compiled.products import LANES, ROWS, below, packed
from selection.kernels.threads import Threads


@pytest.mark.parametrize(("d", "split"), [(1, 1), (7, 7), (385, 385), (40, 37)])
def test_products__of_packed_vectors_are_inner_products(d, split):
    rng = np.random.default_rng(0)
    X, C = (rng.standard_normal((n, d)).astype(np.float32) for n in (9, 2 * LANES + 3))
    out = np.full((2, ROWS, LANES), np.nan, np.float32)
    rows = np.array([8, 0, 3, 3])
    for group in range(3):
        products(X, rows, packed(C), group, split, out)
        these = C[group * LANES : (group + 1) * LANES]
        expected = X[rows, :split] @ these[:, :split].T
        if split < d:
            expected = expected * (X[rows, split:] @ these[:, split:].T)
        np.testing.assert_allclose(out[0, :, : len(these)], expected, rtol=1e-4, atol=1e-4)
        assert not out[0, :, len(these) :].any()


@numba.njit
def _below(low, group, values, row, cut):
    return below(low, group, values, row, cut)


def test_below__sets_the_bits_of_those_at_or_below_the_cut():
    low = np.arange(2 * LANES, dtype=np.float32)
    low[-1] = np.inf
    values = np.zeros((3, LANES), np.float32)
    values[1, 4] = 10
    values[1, 6] = np.nan
    assert _below(low, 1, values, 1, LANES + 2.0) == 0b1010111
    assert _below(low, 1, values, 0, LANES + 2.0 - 1e-9) == 0b11
    assert _below(low, 1, values, 0, 1e9) == 2 ** (LANES - 1) - 1


def test_threads__do_every_block_once_and_raise_what_a_block_raises():
    threads = numba.get_num_threads()
    try:
        for count in {1, threads}:
            numba.set_num_threads(count)
            done = np.zeros(100, int)

            def task(start, stop, done=done):
                done[start:stop] += 1
                if stop == 100:
                    raise KeyError(start)

            with pytest.raises(KeyError, match="98"):
                Threads().run(task, 100, 7)
            assert (done == 1).all()
    finally:
        numba.set_num_threads(threads)
