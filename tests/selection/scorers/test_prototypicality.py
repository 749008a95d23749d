from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.kernels.clusters import hashed_order, spherical_clusters
from selection.noise import hash_bits
from selection.scorers.prototypicality import Prototypicality
from selection.streams import child, step_stream


def circle(degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


# Two groups around 0 and 90 degrees.
ROWS = [-4, 0, 4, 84, 90, 96]


def stream(seed=0):
    return step_stream(seed, 0, 0, "prototypicality")


def test_score__is_the_distance_to_the_middle_of_the_group():
    scores = Prototypicality(n_clusters=2).score(Pool(vectors=circle(ROWS)), rng=stream())
    assert scores == pytest.approx(1 - np.cos(np.radians([4, 0, 4, 6, 0, 6])), abs=1e-6)
    near = Prototypicality(n_clusters=2, prefer="near").score(Pool(vectors=circle(ROWS)), rng=stream())
    assert near.tolist() == (-scores).tolist()


def test_select__prefers_far_or_near():
    pool = Pool(vectors=circle(ROWS))
    far = select([{"prototypicality": {"n_clusters": 2}}], pool, budget=2)
    near = select([{"prototypicality": {"n_clusters": 2, "prefer": "near"}}], pool, budget=2)
    assert sorted(far.rows.tolist()) == [3, 5]
    assert sorted(near.rows.tolist()) == [1, 4]


def test_score__zero_vectors_are_at_distance_1_and_move_no_centroid():
    X = np.concatenate([circle(ROWS), np.zeros((5, 2), np.float32)])
    scores = Prototypicality(n_clusters=2).score(Pool(vectors=X), rng=stream())
    assert scores[6:].tolist() == [1] * 5
    assert scores[:6] == pytest.approx(1 - np.cos(np.radians([4, 0, 4, 6, 0, 6])), abs=1e-6)
    assert Prototypicality().score(Pool(vectors=np.zeros((3, 2))), rng=stream()).tolist() == [1, 1, 1]


def test_score__rows_that_are_no_candidates_move_no_centroid():
    X = np.concatenate([circle(ROWS), circle([60] * 9)])
    eligible = np.arange(15) < 6
    chosen = select([{"prototypicality": {"n_clusters": 2}}], Pool(vectors=X, eligible=eligible), budget=6)
    assert chosen.gain[chosen.rows.argsort()] == pytest.approx(1 - np.cos(np.radians([4, 0, 4, 6, 0, 6])), abs=1e-6)


@pytest.mark.parametrize("seed", range(60))
def test_score__is_the_definition(seed):
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 50)), int(rng.integers(1, 6))
    X = (rng.normal(size=(n, d)) if seed % 2 else rng.integers(-2, 3, (n, d))).astype(
        np.float16 if seed % 3 else np.float32
    )
    X[rng.random(n) < 0.2], X[rng.random(n) < 0.1] = X[0], 0
    n_clusters = [1, 3, 100, "sqrt"][seed % 4]
    pool = Pool(vectors=X)
    scores = Prototypicality(n_clusters=n_clusters).score(pool, rng=stream(seed))
    order = hashed_order(pool.get_vectors(), hash_bits(pool.get_keys(), child(stream(seed), 0)))
    if not len(order):
        assert scores.tolist() == [1] * n
        return
    wanted = int(np.ceil(np.sqrt(len(order)))) if n_clusters == "sqrt" else n_clusters
    count = min(wanted, len(order))
    centroids = spherical_clusters(pool.get_vectors(), order, count, rng=child(stream(seed), 1))[1].astype(np.float64)
    wide = X.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True) * np.linalg.norm(centroids, axis=1)
    cosine = np.divide(wide @ centroids.T, length, out=np.full((n, count), -np.inf), where=length > 0).max(axis=1)
    assert scores == pytest.approx(np.where(wide.any(axis=1), 1 - cosine, 1.0), abs=1e-6)


def test_options__out_of_range_is_an_error():
    with pytest.raises(InvalidOption, match="prototypicality: n_clusters must be 'sqrt' or a number, got 'many'"):
        Prototypicality(n_clusters="many")
    with pytest.raises(InvalidOption, match="prototypicality: n_clusters must be an integer >= 1, got 0"):
        Prototypicality(n_clusters=0)
    with pytest.raises(InvalidOption, match="prototypicality: prefer must be one of far, near, got 'middle'"):
        Prototypicality(prefer="middle")


def test_select__bad_input():
    with pytest.raises(MissingInput, match="prototypicality needs vectors"):
        select(["prototypicality"], Pool(texts=["a"]), budget=1)
    X = circle(ROWS)
    X[4, 1] = np.inf
    with pytest.raises(InvalidInput, match="row 4"):
        select(["prototypicality"], Pool(vectors=X), budget=1)
