from __future__ import annotations

import numpy as np
import pytest

from selection.kernels import half

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.fixture(params=[True, False])
def instruction(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(half, "_has_instruction", lambda: False)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33, 2**16])
def test_float32__of_every_float16_is_what_numpy_says(count, instruction):
    found = half.float32(EVERY[:count])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, EVERY[:count].astype(np.float32))


def test_write__takes_any_layout_and_float32(instruction):
    X = EVERY[: 24 * 40].reshape(24, 40)
    for given in (X, X[::3], X[:, ::2], X.T, X.astype(np.float32)[::2]):
        out = np.empty(given.shape, np.float32)
        half.write(given, out)
        np.testing.assert_array_equal(out, given.astype(np.float32))
    same = np.ones((3, 4), np.float32)
    assert half.float32(same) is same
