from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from selection.checks import in_parts
from selection.kernels import k_center as module
from selection.kernels import nearest, quantized
from selection.kernels.compiled import nearest as nearest_loops
from selection.kernels.compiled import quantized as loops
from selection.kernels.compiled.margin import distance_margin
from selection.kernels.compiled.products import LANES
from selection.kernels.k_center import k_center
from selection.kernels.quantized import Quantized
from selection.vectors import ArrayVectors

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import hard_vectors, naive_k_center, square_distances

needs_instruction = pytest.mark.skipif(
    not loops.has_instruction(), reason="the processor has no instruction for products of bytes"
)


def vectors_of_kinds() -> dict[str, np.ndarray]:
    """Name -> (n, d) vectors in a range that kernels bring them to."""
    rng = np.random.default_rng(3)
    low_rank = rng.standard_normal((300, 6)) @ rng.standard_normal((6, 80)) / 6**0.5
    near = (low_rank + 0.01 * rng.standard_normal((300, 80))).astype(np.float32)
    one_large = rng.standard_normal((300, 50)).astype(np.float32)
    one_large[:, 7] *= 1000
    return {
        **{name: X for name, X in hard_vectors().items() if name not in ("huge", "tiny")},
        "low_rank": near,
        "spread": (near * 10.0 ** rng.integers(-12, 8, (300, 1))).astype(np.float32),
        "one_large_feature": one_large,
        "noise": rng.standard_normal((300, 17)).astype(np.float32),
    }


KINDS = vectors_of_kinds()


@njit
def in_bytes(X, square):
    width = -(-X.shape[1] // loops.FEATURES) * loops.FEATURES
    Q, offset = np.zeros((len(X), width), np.int8), np.empty(len(X), np.int32)
    own = np.empty((len(X), loops.TERMS), np.float32)
    for i in range(len(X)):
        offset[i] = 128 * loops.quantize(X[i], square[i], Q[i, : X.shape[1]], own[i])
    return Q, offset, own


@njit
def left_open(Q, offset, own, packed, terms, low, cut):
    """(n, centres) sums, and which pairs are left open at the cut of each."""
    sums = np.empty((len(Q), len(low)), np.int32)
    opened = np.empty((len(Q), len(low)), np.bool_)
    out, rows = np.empty((loops.ROWS, LANES), np.int32), np.empty(loops.ROWS, np.int64)
    for i in range(len(Q)):
        rows[:] = i
        for group in range(len(packed)):
            loops.write_sums(Q, offset, rows, packed, group, out)
            for b in range(LANES):
                j = group * LANES + b
                sums[i, j] = out[0, b]
                opened[i, j] = loops.below(low, terms, group, out, 0, own, i, cut[i, j]) >> b & 1
    return sums, opened


@needs_instruction
@pytest.mark.parametrize("name", KINDS)
def test_quantized__never_rules_out_a_centre_that_is_as_near(name, monkeypatch):
    monkeypatch.setattr(quantized, "LEAST_FEATURES", 1)
    X = KINDS[name].astype(np.float32)
    n, d = X.shape
    square = (X.astype(np.float64) ** 2).sum(axis=1)
    made = Quantized(d, n)
    made.add(X[: n // 2])
    made.add(X)
    packed, terms = made.arrays
    gamma = distance_margin(d)
    low = np.full(len(packed) * LANES, np.inf, np.float32)
    low[:n] = square * (1 - gamma)
    exact = np.stack([square_distances(X, x) for x in X])
    lower = square[:, None] * (1 - gamma) - nearest_loops.TINY
    cut = np.full((n, len(low)), 1e30)
    cut[:, :n] = exact - lower
    Q, offset, own = in_bytes(X, square)
    sums, opened = left_open(Q, offset, own, packed, terms, low, cut)
    bytes_of = packed.transpose(0, 2, 1, 3).reshape(len(low), -1)[:n].astype(np.int64) - 128
    assert (sums[:, :n] == Q.astype(np.int64) @ bytes_of.T).all()
    assert opened[:, :n].all()
    assert not opened[:, n:].any()  # a centre that is not there is infinitely far
    if name in ("clustered", "low_rank", "noise"):  # and it rules out what is a little farther than the nearest
        cut[:, :n] -= 0.08 * np.maximum(square[:, None], square)
        assert not left_open(Q, offset, own, packed, terms, low, cut)[1].any()


@needs_instruction
@pytest.mark.parametrize("where", [lambda vectors: vectors, in_parts])
@pytest.mark.parametrize("name", KINDS)
def test_k_center__with_bytes_equals_the_definition(name, where, monkeypatch):
    monkeypatch.setattr(quantized, "LEAST_FEATURES", 1)
    monkeypatch.setattr(module, "PHASE_ROWS", 48)
    monkeypatch.setattr(module, "FRONT_ROWS", 300)
    made = []

    def kept(d, capacity):
        made.append(Quantized(d, capacity))
        return made[-1]

    monkeypatch.setattr(nearest, "Quantized", kept)
    few = KINDS[name].astype(np.float32)
    X = np.concatenate([few, 1.5 * few, 0.5 * few[::-1]])
    candidates = np.ones(len(X), bool)
    candidates[[0, 5]] = False
    budget = min(300, len(X) - 2)
    rows, distance, near = naive_k_center(X, budget, [0, 5])
    got = k_center(where(ArrayVectors(X)), budget, centres=np.array([0, 5]), candidates=candidates)
    assert (got.rows.tolist(), got.near.tolist()) == (rows, near)
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12)
    assert max(bytes_.count for bytes_ in made) > 2 * nearest_loops.QUANTIZE_FROM


def test_k_center__without_the_instruction_makes_the_same_picks(monkeypatch):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((50, 40))[rng.integers(50, size=6000)] + rng.standard_normal((6000, 40))).astype(
        np.float16
    )

    def picks():
        return k_center(ArrayVectors(X), 600, centres=np.array([3]), candidates=np.arange(len(X)) != 3)

    expected = picks()
    monkeypatch.setattr(loops, "has_instruction", lambda: False)
    got = picks()
    assert got.rows.tolist() == expected.rows.tolist()
    assert got.distance.tolist() == expected.distance.tolist()
    assert got.near.tolist() == expected.near.tolist()


@pytest.mark.parametrize("d", [3, quantized.MOST_FEATURES + 1])
def test_quantized__keeps_nothing_where_it_is_of_no_use(d):
    made = Quantized(d, 1)
    made.add(np.ones((1, d), np.float32))
    assert not made.in_use
    assert made.count == 0


OF_ANY_PROCESSOR = """\
import numpy as np
from selection.kernels import estimates
from selection.kernels.facility_location import Coverage
from selection.kernels.k_center import k_center
from selection.vectors import ArrayVectors

X = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
print(*k_center(ArrayVectors(X), 200, centres=np.array([0]), candidates=np.arange(600) > 0).rows)
estimates.PAIRS = 0
coverage = Coverage(ArrayVectors(X), references=np.arange(0, 600, 2), taken=np.arange(0), max_bytes=2**17)
print(*coverage.greedy(np.arange(600), 100)[0])
"""


@pytest.mark.slow
def test_kernels__compiled_for_a_processor_without_the_instructions_pick_the_same(tmp_path):
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CACHE_DIR": str(tmp_path)}
    picked = [
        subprocess.run([sys.executable, "-c", OF_ANY_PROCESSOR], env=os.environ | more, capture_output=True, check=True)
        for more in ({}, generic)
    ]
    assert picked[0].stdout == picked[1].stdout != b""
