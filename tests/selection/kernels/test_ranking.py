from __future__ import annotations

import numpy as np
import pytest

from selection.kernels.ranking import highest


@pytest.mark.parametrize("count", [0, 1, 3, 7, 20])
def test_highest__is_a_stable_descending_sort(count):
    for seed in range(20):
        values = np.random.default_rng(seed).integers(0, 4, 7).astype(np.float32)
        assert highest(values, count).tolist() == sorted(range(7), key=lambda i: (-values[i], i))[:count]


def test_highest__of_nothing_is_nothing():
    places = highest(np.empty(0, np.float32), 3)
    assert (places.tolist(), places.dtype) == ([], np.int64)
