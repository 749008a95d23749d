from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.errors import TypingError

sys.path.insert(0, str(Path(__file__).parents[1]))
from coverage_cases import dots, row_dots, row_square_distances, square_distances


@pytest.mark.parametrize("d", [0, 1, 7, 8, 9, 16, 33, 384])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums__are_the_eight_interleaved_sums_to_the_bit(d, dtype):
    rng = np.random.default_rng(d)
    X, Y = (rng.standard_normal((50, d)) * 10.0 ** rng.integers(-15, 15, (50, d)) for _ in range(2))
    X, Y = X.astype(np.float32), Y.astype(dtype)
    assert row_dots(X, Y).tolist() == [dots(x[None], y)[0] for x, y in zip(X, Y, strict=True)]
    expected = [square_distances(x[None], y)[0] for x, y in zip(X, Y, strict=True)]
    assert row_square_distances(X, Y).tolist() == expected


def test_sums__of_rows_that_are_not_contiguous_do_not_compile():
    X = np.zeros((3, 8), np.float32)
    with pytest.raises(TypingError, match="contiguous"):
        row_dots(X[:, ::2], X[:, ::2])
