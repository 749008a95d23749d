from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from selection.kernels.compiled import float16 as loops
from selection.kernels.float16 import as_float32, write_float32

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.fixture(params=[True, False])
def instruction(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(loops, "has_instruction", lambda: False)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 33, 2**16])
def test_as_float32__of_every_float16_is_what_numpy_says(count, instruction):
    converted = as_float32(EVERY[:count])
    assert converted.dtype == np.float32
    np.testing.assert_array_equal(converted, EVERY[:count].astype(np.float32))


def test_write_float32__takes_any_layout_and_float32(instruction):
    X = EVERY[: 24 * 40].reshape(24, 40)
    for given in (X, X[::3], X[:, ::2], X.T, X.astype(np.float32)[::2]):
        out = np.empty(given.shape, np.float32)
        write_float32(given, out)
        np.testing.assert_array_equal(out, given.astype(np.float32))
    same = np.ones((3, 4), np.float32)
    assert as_float32(same) is same


def test_as_float32__asks_for_no_instruction_that_numba_does_not_compile_for(tmp_path):
    program = (
        "import numpy as np; from selection.kernels.float16 import as_float32;"
        "from selection.kernels.compiled.float16 import has_instruction;"
        "print(has_instruction(), as_float32(np.arange(20, dtype=np.float16)).tolist() == list(range(20)))"
    )
    environment = {**os.environ, "NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "False True\n"
