from __future__ import annotations

import sys
from collections import Counter
from itertools import permutations
from pathlib import Path

import numba
import numpy as np
import pytest

from selection.errors import InvalidInput
from selection.kernels import kmeans_pp as module
from selection.kernels.kmeans_pp import kmeans_pp
from selection.kernels.nearest import Nearest
from selection.vectors import ArrayVectors

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import Shuffled, hard_vectors, square_distances

HARD = hard_vectors()
LINE = np.array([[0.0], [1.0], [4.0], [9.0]], np.float32)


@pytest.fixture
def one_thread():
    """Thousands of tiny draws: waking threads would take most of the time."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


def run(vectors, budget, centres, seed, **options):
    order = np.setdiff1d(np.arange(vectors.shape[0]), centres)
    rng = np.random.default_rng(seed)
    return kmeans_pp(vectors, budget, centres=np.array(centres), order=order, rng=rng, **options)


def p_value(counts, law):
    """Of a chi-square test against the exact law; what is impossible must not occur."""
    from scipy.stats import chisquare

    assert all(law.get(found, 0) > 0 for found in counts)
    total = sum(counts.values())
    possible = [key for key, p in law.items() if p > 0]
    return chisquare([counts[key] for key in possible], [law[key] * total for key in possible]).pvalue


def exact_law(X, centres, budget, scale=1.0):
    """Probability of each sequence of picks, by brute force."""
    D = np.array([square_distances(X, c) for c in X])
    law = {}
    for picks in permutations([i for i in range(len(X)) if i not in centres], budget):
        p, taken = 1.0, list(centres)
        for i in picks:
            mass = D[taken].min(axis=0) * scale
            left = [r for r in range(len(X)) if r not in taken]
            p *= mass[i] / mass.sum() if mass.sum() > 0 else 1 / len(left)
            taken.append(i)
        law[picks] = p
    return law


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "law"),
    [
        (2, {(0, 1): 0.005929398786541643, (0, 2): 0.12081632653061225, (0, 3): 0.325750300120048,
             (1, 2): 0.07540540540540541, (1, 3): 0.31033386327503976, (2, 3): 0.16176470588235295}),
        (3, {(0, 1, 2): 0.008278011458050596, (0, 1, 3): 0.05539354570584468,
             (0, 2, 3): 0.5262874742657244, (1, 2, 3): 0.41004096857038036}),
    ],
)  # fmt: skip
def test_kmeans_pp__sets_follow_the_known_law(budget, law, one_thread):
    vectors = ArrayVectors(LINE)
    counts = Counter(
        tuple(sorted([first, *run(vectors, budget - 1, [first], seed).rows.tolist()]))
        for seed, first in enumerate(np.random.default_rng(0).integers(4, size=20_000).tolist())
    )
    assert p_value(counts, law) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("X", "centres", "budget"),
    [
        ([[0, 0], [3, 0], [0, 1], [5, 5], [5, 6]], [0], 3),
        ([[0, 0], [3, 0], [0, 1], [5, 5], [5, 6]], [1, 3], 2),
        ([[0, 0], [0, 0], [0, 0], [2, 0], [2, 0]], [0], 3),  # after one pick nothing is away from the centres
    ],
)
def test_kmeans_pp__sequences_follow_the_law(X, centres, budget, one_thread):
    X = np.array(X, np.float32)
    counts = Counter(tuple(run(ArrayVectors(X), budget, centres, seed).rows.tolist()) for seed in range(3_000))
    assert p_value(counts, exact_law(X, centres, budget)) > 1e-4


@pytest.mark.slow
def test_kmeans_pp__sequences_follow_the_scaled_law(one_thread):
    X = np.array([[0, 0], [3, 0], [0, 1], [5, 5], [5, 6]], np.float32)
    scale = np.array([1, 0.5, 7, 0, 2.0])  # row 3 weighs nothing: it is taken only when nothing else is left
    vectors = ArrayVectors(X)
    counts = Counter(tuple(run(vectors, 2, [0], seed, scale=scale).rows.tolist()) for seed in range(3_000))
    assert p_value(counts, exact_law(X, [0], 2, scale)) > 1e-4
    picks = run(vectors, 4, [0], 0, scale=scale)
    assert picks.rows[3] == 3
    assert picks.distance[0] ** 2 == pytest.approx(scale[picks.rows[0]] * square_distances(X, X[0])[picks.rows[0]])


@pytest.mark.slow
def test_kmeans_pp__law_holds_over_many_batches_and_measurements(one_thread, monkeypatch):
    # A far, heavy cluster is covered by one pick: afterwards nearly every stale proposal is rejected.
    monkeypatch.setattr(module, "FIRST_PROPOSALS", 2)
    monkeypatch.setattr(module, "MOST_PROPOSALS", 4)
    X = np.concatenate([[[0.0], [1.0], [2.0]], 1000 + np.linspace(0, 0.01, 30)[:, None]]).astype(np.float32)
    law = {(1,): 0.0, (2,): 0.0}
    for (_, second), p in exact_law(X, [0], 2).items():
        key = (second,) if second < 3 else (3,)
        law[key] = law.get(key, 0) + p
    counts = Counter((min(int(run(ArrayVectors(X), 2, [0], seed).rows[1]), 3),) for seed in range(3_000))
    assert p_value(counts, {k: v for k, v in law.items() if v > 1e-6}) > 1e-4


@pytest.mark.slow
def test_kmeans_pp__rejected_too_often_takes_a_row_uniformly(one_thread):
    # Once the far row is taken, nearly every stale proposal is that row again and is rejected.
    X = np.array([[0.0], [0.001], [0.002], [0.003], [100.0]], np.float32)
    counts = Counter(int(run(ArrayVectors(X), 2, [0], seed, max_rejects=1).rows[1]) for seed in range(2_000))
    assert min(counts[1], counts[2], counts[3]) > 550


@pytest.mark.parametrize("name", HARD)
def test_kmeans_pp__distances_and_centres_are_exact(name):
    X = HARD[name]
    budget = min(len(X) - 2, 60)
    picks = run(ArrayVectors(X), budget, [3, 11], seed=1)
    assert len(set(picks.rows.tolist()) | {3, 11}) == budget + 2
    seen = [3, 11]
    for row, distance, near in zip(picks.rows, picks.distance, picks.near, strict=True):
        to_seen = square_distances(X[seen], X[row])
        assert distance == pytest.approx(np.sqrt(to_seen.min()), rel=1e-12)
        assert near == seen[int(np.argmin(to_seen))]
        seen.append(int(row))


@pytest.mark.parametrize("trials", [1, 5])
@pytest.mark.parametrize("name", ["clustered", "float16", "duplicates", "identical", "zeros", "huge"])
def test_kmeans_pp__storage_order_block_size_and_threads_change_nothing(name, trials):
    X = HARD[name]
    options = {"trials": trials, "sample": np.arange(1, len(X), 2)}
    expected = run(ArrayVectors(X), 50, [2], seed=4, **options)
    threads = numba.get_num_threads()
    try:
        for block_rows, n_threads in ((1, threads), (7, 1)):
            numba.set_num_threads(n_threads)
            got = run(Shuffled(X, block_rows=block_rows), 50, [2], seed=4, **options)
            assert got.rows.tolist() == expected.rows.tolist()
            assert got.distance.tolist() == expected.distance.tolist()
    finally:
        numba.set_num_threads(threads)


@pytest.mark.parametrize("trials", [1, 3])
def test_kmeans_pp__a_smaller_budget_gives_the_first_picks(trials):
    vectors = ArrayVectors(HARD["clustered"])
    options = {"trials": trials, "sample": np.arange(1, 300, 3)}
    whole = run(vectors, 299, [0], seed=2, **options).rows
    for budget in (1, 2, 17, 150):
        assert run(vectors, budget, [0], seed=2, **options).rows.tolist() == whole[:budget].tolist()


def test_gains__equal_the_definition_and_trials_lower_the_cost():
    X = HARD["clustered"]
    vectors, sample = ArrayVectors(X), np.arange(1, 300)

    def cost(rows):
        return min_squares(X, [0, *rows]).sum()

    single = np.mean([cost(run(vectors, 20, [0], seed).rows) for seed in range(20)])
    many = np.mean([cost(run(vectors, 20, [0], seed, trials=6, sample=sample).rows) for seed in range(20)])
    assert many < 0.97 * single
    known = Nearest(vectors, np.array([0, 5]), np.ones(300, bool), 10)
    trial = np.ascontiguousarray(X[[7, 100, 200, 33, 41]])
    before = min_squares(X, [0, 5])
    expected = [(before - np.minimum(before, square_distances(X, c))).sum() for c in trial]
    compared = module._Sample(known, np.arange(300))
    np.testing.assert_allclose(compared.gains(trial)[0], expected, rtol=1e-9)
    best = compared.take_best(trial)
    assert best == np.argmax(expected)
    np.testing.assert_allclose(compared.state["bound"], min_squares(X, [0, 5, [7, 100, 200, 33, 41][best]]), rtol=1e-12)


def test_gains__scales_count():
    X = HARD["clustered"]
    scale = np.random.default_rng(0).integers(0, 3, len(X)) * 1.5
    known = module.Nearest(ArrayVectors(X), np.array([0, 5]), np.ones(len(X), bool), 2, scale)
    trial = np.ascontiguousarray(X[[7, 100, 200]])
    near = min_squares(X, [0, 5])
    expected = [(scale * (near - np.minimum(near, square_distances(X, c)))).sum() for c in trial]
    np.testing.assert_allclose(module._Sample(known, np.arange(len(X))).gains(trial)[0], expected, rtol=1e-9)


def min_squares(X, rows):
    return np.min([square_distances(X, X[row]) for row in rows], axis=0)


def test_kmeans_pp__measures_few_rows_again():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((40, 16))[rng.integers(40, size=20_000)] + 0.5 * rng.standard_normal((20_000, 16))
    vectors = Shuffled(X.astype(np.float16), block_rows=4096)
    run(vectors, 500, [0], seed=0)
    assert vectors.taken < 10 * 500  # a pass over all rows would be 20,000


def test_kmeans_pp__a_vector_that_is_not_finite_is_named():
    X = np.ones((50, 4), np.float32)
    X[31, 2] = np.inf
    with pytest.raises(InvalidInput, match="row 31"):
        run(Shuffled(X), 5, [0], seed=0)
