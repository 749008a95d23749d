from __future__ import annotations

import math
import sys
import tracemalloc
from pathlib import Path

import numba
import numpy as np
import pytest

from selection.kernels.herding import herd
from selection.vectors import ArrayVectors

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import Shuffled, hard_vectors, square_distances

HARD = hard_vectors()
NONE = np.empty(0, np.int64)


def run(vectors, budget, taken=NONE, **options):
    candidates = np.ones(vectors.shape[0], bool)
    candidates[taken] = False
    return herd(vectors, budget, taken=taken, candidates=candidates, **options)


def naive_herd(X, budget, taken=NONE, weights=None):
    """Rows and distances of the means by the definition, every distance in float64."""
    n = len(X)
    X = X.astype(np.float64)
    bits = 62 - n.bit_length()
    unit = 2.0 ** (bits - math.frexp(math.sqrt((X**2).sum(axis=1).max()))[1])
    whole = np.rint(X * unit).astype(np.int64)
    weights = np.ones(n) if weights is None else weights
    M = np.rint(weights[:, None] * X * unit).astype(np.int64).sum(axis=0) / unit
    W = weights.sum()
    rows, errors, left = list(taken), [], np.ones(n, bool)
    left[rows] = False
    for _ in range(budget):
        q = (len(rows) + 1) * M - W * (whole[rows].sum(axis=0) / unit)
        square = np.where(left, square_distances(W * X, q), np.inf)
        rows.append(int(square.argmin()))
        left[rows[-1]] = False
        errors.append(np.linalg.norm(M / W - X[rows].mean(axis=0)))
    return rows[len(taken) :], errors


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("taken", [NONE, np.array([3, 11, 20])], ids=["none", "three"])
def test_herd__equals_the_definition_pick_for_pick(name, taken):
    X = HARD[name]
    budget = min(len(X) - 3, 100)
    rows, errors = naive_herd(X, budget, taken)
    got, error = run(ArrayVectors(X), budget, taken)
    assert got.tolist() == rows
    np.testing.assert_allclose(error[1:], errors, atol=1e-6 * np.abs(X).max())


@pytest.mark.parametrize("name", ["clustered", "signs", "duplicates", "huge", "tiny"])
def test_herd__weighted_means_equal_the_definition(name):
    X = HARD[name]
    weights = np.random.default_rng(0).choice([0.0, 0.25, 1.0, 0.625], len(X))
    assert run(ArrayVectors(X), 60, weights=weights)[0].tolist() == naive_herd(X, 60, weights=weights)[0]


def test_herd__weights_count_by_their_ratios():
    X = HARD["clustered"]
    weights = np.random.default_rng(0).integers(0, 4, len(X)).astype(np.float64)
    rows = run(ArrayVectors(X), 60, weights=weights)[0].tolist()
    for factor in (2.0**-100, 2.0**100):
        assert run(ArrayVectors(X), 60, weights=factor * weights)[0].tolist() == rows


@pytest.mark.parametrize("name", HARD)
def test_herd__storage_order_block_size_threads_and_dtype_change_nothing(name):
    X = HARD[name]
    expected, expected_error = run(ArrayVectors(X), 60, np.array([2]))
    threads = numba.get_num_threads()
    try:
        for block_rows, n_threads in ((1, threads), (7, 1), (10_000, threads)):
            numba.set_num_threads(n_threads)
            got, error = run(Shuffled(X, block_rows=block_rows), 60, np.array([2]))
            assert got.tolist() == expected.tolist()
            assert error.tolist() == expected_error.tolist()
    finally:
        numba.set_num_threads(threads)
    if X.dtype == np.float16:
        assert run(ArrayVectors(X.astype(np.float32)), 60, np.array([2]))[0].tolist() == expected.tolist()


def test_herd__ties_over_many_tiles_go_to_the_lowest_row():
    X = np.random.default_rng(0).integers(-2, 3, (9500, 3)).astype(np.float32)
    assert run(ArrayVectors(X), 40)[0].tolist() == naive_herd(X, 40)[0]
    assert run(ArrayVectors(np.ones((9500, 3), np.float16)), 5)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("features", ["alike", "of_falling_size", "one_large"])
def test_herd__looks_at_few_rows_again(features):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 96))[rng.integers(64, size=20_000)] + rng.standard_normal((20_000, 96))
    if features == "of_falling_size":
        X /= np.arange(1, 97)
    if features == "one_large":
        X[:, 5] = 30 * X[:, 5] + 100
    vectors = Shuffled((X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16), block_rows=4096)
    run(vectors, 100)
    assert vectors.taken < 100 * 200  # of 20,000 a pick


def test_herd__memory_stays_within_what_is_stated():
    n, d = 60_000, 64
    X = np.random.default_rng(0).standard_normal((n, d)).astype(np.float16)
    run(ArrayVectors(X[:5000]), 2)
    tracemalloc.start()
    run(ArrayVectors(X), 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tile = 4096 * d * 4
    assert peak < (d + 60) * n + 2 * tile
