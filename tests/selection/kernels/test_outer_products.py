"""k-center and k-means++ over outer products, against the definition on factors and on products written out."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import permutations
from pathlib import Path

import numba
import numpy as np
import pytest

from selection.errors import InvalidInput
from selection.kernels.k_center import k_center
from selection.kernels.kmeans_pp import kmeans_pp
from selection.kernels.nearest import Nearest, OuterProducts, farthest_from
from selection.vectors import ArrayVectors

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import Shuffled, hard_vectors

from tests.quick import quick_first

HARD = hard_vectors()


def factors(n, seed=0, q=3):
    """(n, q) of norm at most 2, some of them zero, tiny or repeated."""
    rng = np.random.default_rng(seed)
    A = rng.uniform(-1, 1, (n, q)) * rng.choice([1, 1, 1, 1e-3, 1e-20, 0], n)[:, None]
    A[n // 2 :: 5] = A[0]
    return A.astype(np.float32)


def dots(X, c):
    """(n,) float64, summed as eight interleaved sums, then the rest of the features."""
    products = X.astype(np.float64) * c.astype(np.float64)
    whole = X.shape[1] - X.shape[1] % 8
    a = np.zeros((8, len(X)))
    for f in range(whole):
        a[f % 8] += products[:, f]
    total = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    for f in range(whole, X.shape[1]):
        total = total + products[:, f]
    return total


def squares(X, A, i):
    """(n,) exact squared distances to row i; the definition."""
    norms = dots_of_rows(X) * dots_of_rows(A)
    return np.maximum(0.0, norms + norms[i] - 2.0 * (dots(X, X[i]) * dots(A, A[i])))


def dots_of_rows(X):
    return np.array([dots(x[None], x)[0] for x in X])


def greedy(X, A, budget, centres):
    key, near = np.full(len(X), np.inf), np.full(len(X), -1)
    rows, distance, refs, taken = [], [], [], list(centres)
    for c in centres:
        new = squares(X, A, c)
        near[new < key] = c
        key = np.minimum(key, new)
    for _ in range(budget):
        left = key.copy()
        left[taken] = -1
        i = int(np.argmax(left))
        rows.append(i)
        distance.append(np.sqrt(key[i]))
        refs.append(int(near[i]))
        taken.append(i)
        new = squares(X, A, i)
        near[new < key] = i
        key = np.minimum(key, new)
    return rows, distance, refs


def candidates(n, centres):
    mask = np.ones(n, bool)
    mask[centres] = False
    return mask


@pytest.mark.parametrize("name", quick_first(2, [name for name in HARD if name not in ("huge", "tiny")]))
def test_k_center__equals_the_definition_on_factors(name):
    X = HARD[name]
    A = factors(len(X))
    budget = min(60, len(X) - 2)
    picks = k_center(
        OuterProducts(ArrayVectors(X), A), budget, centres=np.array([3, 11]), candidates=candidates(len(X), [3, 11])
    )
    rows, distance, refs = greedy(X, A, budget, [3, 11])
    assert picks.rows.tolist() == rows
    np.testing.assert_allclose(picks.distance, distance, rtol=1e-14)
    assert picks.near.tolist() == refs


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e3, 1e30])
def test_k_center__the_scale_of_the_vectors_changes_only_distances(scale):
    X, A = HARD["clustered"].astype(np.float64), factors(300)
    unit = 2.0 ** np.round(np.log2(scale))
    expected = k_center(
        OuterProducts(ArrayVectors(X.astype(np.float32)), A), 80, centres=np.array([2]), candidates=candidates(300, [2])
    )
    scaled = ArrayVectors((X * unit).astype(np.float32))
    got = k_center(OuterProducts(scaled, A), 80, centres=np.array([2]), candidates=candidates(300, [2]))
    assert got.rows.tolist() == expected.rows.tolist()
    np.testing.assert_allclose(got.distance, expected.distance * unit, rtol=1e-14)


def test_farthest_from__zero_is_the_longest_product():
    X, A = HARD["clustered"], factors(300)
    points = OuterProducts(ArrayVectors(X), A)
    written_out = (A[:, :, None].astype(float) * X[:, None]).reshape(300, -1)
    assert farthest_from(np.zeros(points.shape[1]), points, np.ones(300, bool)) == np.argmax(
        (written_out**2).sum(axis=1)
    )


@pytest.mark.parametrize(
    "name", quick_first(2, ["clustered", "zeros", "float16", "duplicates", "offset", "one_dimension"])
)
def test_kmeans_pp__distances_and_centres_are_exact(name):
    X = HARD[name]
    A = factors(len(X), seed=1)
    order = np.setdiff1d(np.arange(len(X)), [3, 11])
    rng = np.random.default_rng(1)
    picks = kmeans_pp(OuterProducts(ArrayVectors(X), A), 60, centres=np.array([3, 11]), order=order, rng=rng)
    assert len(set(picks.rows.tolist()) | {3, 11}) == 62
    key, near = np.full(len(X), np.inf), np.full(len(X), -1)
    for c in (3, 11):
        new = squares(X, A, c)
        near[new < key] = c
        key = np.minimum(key, new)
    for row, distance, ref in zip(picks.rows.tolist(), picks.distance, picks.near, strict=True):
        assert distance == pytest.approx(np.sqrt(key[row]), rel=1e-14)
        assert ref == near[row]
        new = squares(X, A, row)
        near[new < key] = row
        key = np.minimum(key, new)


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 3])
def test_kmeans_pp__sequences_follow_the_law_of_the_products_written_out(trials):
    rng = np.random.default_rng(5)
    X, A = rng.standard_normal((5, 4)).astype(np.float32), rng.uniform(-1, 1, (5, 3)).astype(np.float32)
    G = (A[:, :, None].astype(float) * X[:, None]).reshape(5, -1)
    D = ((G[:, None] - G) ** 2).sum(axis=2)
    law = {}
    for picks in permutations([1, 2, 3, 4], 2):
        p, taken = 1.0, [0]
        for i in picks:
            mass = D[taken].min(axis=0)
            p *= mass[i] / mass.sum()
            taken.append(i)
        law[picks] = p
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        points, order = OuterProducts(ArrayVectors(X), A), np.arange(1, 5)
        sample = order if trials > 1 else None
        counts = Counter(
            tuple(
                kmeans_pp(
                    points,
                    2,
                    centres=np.array([0]),
                    order=order,
                    rng=np.random.default_rng(s),
                    trials=trials,
                    sample=sample,
                ).rows.tolist()
            )
            for s in range(3_000)
        )
    finally:
        numba.set_num_threads(threads)
    if trials == 1:
        from scipy.stats import chisquare

        assert chisquare([counts[k] for k in law], [3_000 * p for p in law.values()]).pvalue > 1e-4
    else:  # trials choose what lowers the cost most
        cost = {k: D[[0, *k]].min(axis=0).sum() for k in law}
        assert sum(cost[k] * c for k, c in counts.items()) / 3_000 < sum(cost[k] * p for k, p in law.items())


def test_kmeans_pp__storage_order_block_size_and_threads_change_nothing():
    X, A = HARD["duplicates"], factors(240)
    order = np.arange(1, 240)

    def draw(vectors):
        return kmeans_pp(
            OuterProducts(vectors, A), 70, centres=np.array([0]), order=order, rng=np.random.default_rng(3)
        )

    expected = draw(ArrayVectors(X))
    threads = numba.get_num_threads()
    try:
        for block_rows, n_threads in ((1, threads), (7, 1)):
            numba.set_num_threads(n_threads)
            got = draw(Shuffled(X, block_rows=block_rows))
            assert got.rows.tolist() == expected.rows.tolist()
            assert got.distance.tolist() == expected.distance.tolist()
    finally:
        numba.set_num_threads(threads)


def test_nearest__bounds_hold_the_exact_values():
    X, A = HARD["near_ties"], factors(200)
    known = Nearest(OuterProducts(ArrayVectors(X), A), np.array([0, 9, 50]), np.ones(200, bool), 3)
    known.measure(np.arange(200))
    expected = np.min([squares(X, A, i) for i in (0, 9, 50)], axis=0)
    np.testing.assert_allclose(known.state["bound"] / known.unit**2, expected, rtol=1e-13, atol=1e-13)


def test_outer_products__a_vector_that_is_not_finite_is_named():
    X = np.ones((50, 4), np.float32)
    X[31, 2] = np.inf
    with pytest.raises(InvalidInput, match="row 31"):
        kmeans_pp(
            OuterProducts(Shuffled(X), factors(50)),
            5,
            centres=np.array([0]),
            order=np.arange(1, 50),
            rng=np.random.default_rng(0),
        )
