from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selection.checks import in_parts
from selection.errors import InvalidInput
from selection.kernels import k_center as module
from selection.kernels.k_center import k_center
from selection.vectors import ArrayVectors, TensorVectors, VectorsInParts

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import Shuffled, hard_vectors, naive_k_center

HARD = hard_vectors()


def others(n: int, centres) -> np.ndarray:
    mask = np.ones(n, bool)
    mask[list(centres)] = False
    return mask


def run(vectors, budget, centres, **options):
    centres = np.array(centres, np.int64)
    return k_center(vectors, budget, centres=centres, candidates=others(vectors.shape[0], centres), **options)


@pytest.fixture(params=["usual_sizes", "tiny_phases", "tiny_fronts"])
def phase_rows(request, monkeypatch):
    if request.param != "usual_sizes":
        monkeypatch.setattr(module, "PHASE_ROWS", 12)
    if request.param == "tiny_fronts":
        monkeypatch.setattr(module, "FRONT_ROWS", 40)
        monkeypatch.setattr(module, "FRONTS", 10)


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("skip", [0, 5])
def test_k_center__equals_the_definition_pick_for_pick(name, skip, phase_rows, implementation):
    X = HARD[name]
    centres = [3, 11, 20]
    budget = min(len(X) - 3, 100)
    rows, distance, near = naive_k_center(X, budget, centres, skip=skip)
    got = run(implementation(ArrayVectors(X)), budget, centres, skip=skip)
    assert got.rows.tolist() == rows
    assert got.near.tolist() == near
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12)


@pytest.mark.parametrize("name", ["clustered", "signs", "duplicates"])
def test_k_center__scaled_distances_equal_the_definition(name, phase_rows, implementation):
    X = HARD[name]
    scale = np.random.default_rng(0).choice([0.0, 0.3, 1.0, 2.0], len(X))
    rows, distance, near = naive_k_center(X, 100, [0], scale=scale)
    got = run(implementation(ArrayVectors(X)), 100, [0], scale=scale)
    assert (got.rows.tolist(), got.near.tolist()) == (rows, near)
    np.testing.assert_allclose(got.distance, distance, rtol=1e-12)


@pytest.mark.parametrize("name", ["clustered", "duplicates", "identical", "zeros"])
def test_k_center__stops_when_nothing_is_away_from_the_centres(name, phase_rows, implementation):
    X = HARD[name]
    rows, *_ = naive_k_center(X, len(X) - 1, [0], stop_at_zero=True)
    assert run(implementation(ArrayVectors(X)), len(X) - 1, [0], stop_at_zero=True).rows.tolist() == rows


@pytest.mark.parametrize("name", HARD)
def test_k_center__storage_order_block_size_threads_and_dtype_change_nothing(name, implementation):
    X = HARD[name]
    budget = min(100, len(X) - 1)
    expected = run(ArrayVectors(X), budget, [2])
    threads = numba.get_num_threads()
    try:
        for block_rows, n_threads in ((1, threads), (7, 1), (10_000, threads)):
            numba.set_num_threads(n_threads)
            got = run(implementation(Shuffled(X, block_rows=block_rows)), budget, [2])
            assert got.rows.tolist() == expected.rows.tolist()
            assert got.distance.tolist() == expected.distance.tolist()
    finally:
        numba.set_num_threads(threads)
    if X.dtype == np.float16:
        assert (
            run(implementation(ArrayVectors(X.astype(np.float32))), budget, [2]).rows.tolist() == expected.rows.tolist()
        )


def test_k_center__more_centres_at_the_start_than_a_tile_holds(implementation):
    X = np.random.default_rng(1).standard_normal((5000, 3)).astype(np.float32)
    centres = np.arange(0, 4500)
    rows, _, near = naive_k_center(X[4000:], 20, list(range(500)))
    got = run(implementation(ArrayVectors(X[np.r_[4000:5000]])), 20, range(500))
    assert (got.rows.tolist(), got.near.tolist()) == (rows, near)
    assert (run(implementation(ArrayVectors(X)), 20, centres).rows >= 4500).all()


@settings(max_examples=60)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(2, 30), st.integers(1, 11)), elements=st.sampled_from([-1, 0, 0.5, 1, 3])
    ),
    st.data(),
)
def test_k_center__equals_the_definition_on_any_vectors(X, data):
    n = len(X)
    centres = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n - 1, unique=True))
    skip = data.draw(st.integers(0, n))
    budget = n - len(centres)
    rows, _, near = naive_k_center(X, budget, centres, skip=skip)
    for vectors in (ArrayVectors(X), TensorVectors(ArrayVectors(X), "cpu"), in_parts(ArrayVectors(X), 3)):
        got = run(vectors, budget, centres, skip=skip)
        assert (got.rows.tolist(), got.near.tolist()) == (rows, near)


def test_k_center__looks_at_few_rows_again():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 16))[rng.integers(40, size=20_000)] + 0.5 * rng.standard_normal((20_000, 16))
    vectors = Shuffled(X.astype(np.float16), block_rows=4096)
    run(vectors, 200, [0])
    assert vectors.taken < 10 * len(X)  # a pass a pick would take 200 times as many


def test_k_center__what_other_processes_bring_up_to_date_is_not_read_again(monkeypatch):
    monkeypatch.setattr(module, "PHASE_ROWS", 256)
    monkeypatch.setattr(module, "FRONT_ROWS", 1024)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 16))[rng.integers(40, size=20_000)] + 0.5 * rng.standard_normal((20_000, 16))
    alone, source, of_parts = (Shuffled(X.astype(np.float16), block_rows=4096) for _ in range(3))
    rounds = 0

    def part_map(work, arguments):
        nonlocal rounds
        rounds += 1
        yield from in_parts(of_parts).part_map(work, arguments)

    expected = run(alone, 400, [0])
    got = run(VectorsInParts(source, part_map), 400, [0])
    assert got.rows.tolist() == expected.rows.tolist()
    assert source.taken < alone.taken / 4 < of_parts.taken
    assert 4 <= rounds <= 16


def test_k_center__memory_stays_within_what_is_stated():
    n, d, budget = 60_000, 64, 100
    X = np.random.default_rng(0).standard_normal((n, d)).astype(np.float16)
    run(ArrayVectors(X[:5000]), 2, [0])
    tracemalloc.start()
    run(ArrayVectors(X), budget, [0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    tile = 4096 * d * 4
    assert peak < 65 * n + 8 * d * budget + 4 * d * module.PHASE_ROWS + 2 * tile


def test_k_center__a_vector_that_is_not_finite_is_named(implementation):
    X = np.ones((50, 4), np.float32)
    X[31, 2] = np.nan
    with pytest.raises(InvalidInput, match="row 31"):
        run(implementation(Shuffled(X)), 5, [0])
