from __future__ import annotations

import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.selectors.clue import distinct_nearest, weighted_centroids
from selection.selectors.kmeans_pp import KMeansPP

X = np.array([[0.0], [1.0], [2.5], [10.0], [12.0]], np.float32)
WEIGHTS = np.array([1.0, 1.0, 4.0, 1.0, 5.0])
CENTROIDS = [[1.8333333333], [11.6666666667]]
SELECTED = [2, 4]


def scaled(weights):
    return (np.asarray(weights) / np.max(weights)).astype(np.float32)


def lloyd_by_hand(x, weights, centroids):
    """Weighted Lloyd's algorithm in float64 until nothing moves."""
    while True:
        place = [int(np.argmin([((v - c) ** 2).sum() for c in centroids])) for v in x]
        moved = centroids.copy()
        for c in range(len(centroids)):
            own = [i for i, p in enumerate(place) if p == c]
            if own and weights[own].sum() > 0:
                moved[c] = (weights[own, None] * x[own]).sum(axis=0) / weights[own].sum()
        if np.allclose(moved, centroids, rtol=0, atol=1e-12):
            return centroids
        centroids = moved


def nearest_by_hand(x, centroids, allowed):
    left, rows = sorted(allowed), []
    for c in centroids:
        rows.append(min(left, key=lambda i: (((x[i] - c) ** 2).sum(), i)))
        left.remove(rows[-1])
    return rows


@pytest.mark.parametrize("start", [[0, 4], [1, 3], [2, 3]])
def test_weighted_centroids__known_answers(start):
    centroids = weighted_centroids(ArrayVectors(X), np.arange(5), scaled(WEIGHTS), X[start])
    np.testing.assert_allclose(centroids, CENTROIDS, rtol=1e-6)
    assert distinct_nearest(ArrayVectors(X), centroids, np.ones(5, bool))[0].tolist() == SELECTED


@pytest.mark.parametrize("seed", range(5))
def test_select__as_by_hand_from_the_same_start(seed):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(80, 5)) + 3 * rng.normal(size=(6, 5))[rng.integers(0, 6, 80)]).astype(np.float32)
    p = rng.dirichlet(np.ones(3), 80)
    allowed = np.flatnonzero(rng.random(80) < 0.8)
    weights = np.zeros(80)
    weights[allowed] = -(p * np.log(p)).sum(axis=1)[allowed]
    eligible = np.isin(np.arange(80), allowed)
    start = KMeansPP(weights="w").select(
        Pool(vectors=x, columns={"w": scaled(weights)}, eligible=eligible), 6, rng=np.random.default_rng(seed)
    )
    wide = x.astype(np.float64)
    expected = lloyd_by_hand(wide[allowed], weights[allowed], wide[start.rows])
    centroids = weighted_centroids(ArrayVectors(x), allowed, scaled(weights), x[start.rows])
    np.testing.assert_allclose(centroids, expected, rtol=1e-4, atol=1e-5)
    rows, distance = distinct_nearest(ArrayVectors(x, block_rows=7), centroids, eligible)
    assert rows.tolist() == nearest_by_hand(wide, centroids.astype(np.float64), allowed.tolist())
    np.testing.assert_allclose(distance, np.linalg.norm(wide[rows] - centroids, axis=1), rtol=1e-12)
    drawn = select(["clue"], Pool(vectors=x, probabilities=p, eligible=eligible), budget=6, seed=seed)
    assert eligible[drawn.rows].all()
    np.testing.assert_allclose(drawn.gain, weights[drawn.rows], rtol=1e-5)


def test_distinct_nearest__a_taken_row_leaves_the_next_nearest_ties_to_the_lowest():
    centroids = np.array([[2.4], [2.5], [2.5], [11.0]], np.float32)
    wanted = np.array([True, True, True, True, True])
    rows, distance = distinct_nearest(ArrayVectors(X), centroids, wanted)
    assert rows.tolist() == [2, 1, 0, 3]
    np.testing.assert_allclose(distance, [0.1, 1.5, 2.5, 1.0], rtol=1e-6)
    same = ArrayVectors(np.ones((6, 2), np.float32))
    assert distinct_nearest(same, np.ones((3, 2), np.float32), np.arange(6) > 0)[0].tolist() == [1, 2, 3]


def test_select__one_row_of_each_far_cluster():
    rng = np.random.default_rng(0)
    cluster = np.arange(60) % 4
    x = (50 * np.eye(4)[cluster] + rng.normal(size=(60, 4))).astype(np.float32)
    drawn = select(["clue"], Pool(vectors=x, probabilities=rng.dirichlet(np.ones(3), 60)), budget=4)
    assert sorted(cluster[drawn.rows]) == [0, 1, 2, 3]
    assert drawn.reason.text() == ["0", "1", "2", "3"]


def test_select__certain_rows_weigh_alike():
    drawn = select(["clue"], Pool(vectors=X, probabilities=np.eye(2)[[0, 1, 0, 1, 0]]), budget=2)
    assert sorted(drawn.rows.tolist()) == [1, 3]  # means 1.17 and 11; 10 and 12 are as near, so the lowest
    assert not drawn.gain.any()


def test_select__refuses_bad_input():
    p = np.full((5, 2), 0.5)
    bad = X.copy()
    bad[2] = np.inf
    with pytest.raises(InvalidInput, match="row 2"):
        select(["clue"], Pool(vectors=bad, probabilities=p), budget=1)
    with pytest.raises(InvalidInput, match="row 0 sums to"):
        select(["clue"], Pool(vectors=X, probabilities=2 * p), budget=1)
    with pytest.raises(MissingInput, match="probabilities"):
        select(["clue"], Pool(vectors=X), budget=1)
    with pytest.raises(InvalidOption, match="it has no options"):
        select([{"clue": {"temperature": 1}}], Pool(vectors=X, probabilities=p), budget=1)
