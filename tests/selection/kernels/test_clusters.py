"""Spherical k-means: how much it finds, and that order and blocks do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from selection import ArrayVectors, Pool
from selection.kernels.clusters import hashed_order, spherical_clusters
from selection.noise import hash_bits


def blobs(count: int, n: int, d: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows around separate directions, and which direction each is of."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(count, d))
    true = rng.permutation(np.arange(n) % count)
    x = centre[true] / np.linalg.norm(centre[true], axis=1, keepdims=True) + noise * rng.normal(size=(n, d)) / d**0.5
    return x.astype(np.float32), true


def clusters_of(x: np.ndarray, count: int, seed: int, keys: np.ndarray | None = None, **options: int) -> np.ndarray:
    pool = Pool(vectors=ArrayVectors(x, **options), keys=keys)
    order = hashed_order(pool.get_vectors(), hash_bits(pool.get_keys(), np.random.default_rng([seed, 0, 0, 1])))
    return spherical_clusters(pool.get_vectors(), order, count, rng=np.random.default_rng([seed, 0, 0, 2]))[0].place


def count_found(true: np.ndarray, place: np.ndarray) -> int:
    """How many of the true groups are one cluster each, but for a tenth of their rows."""
    found = 0
    for group in range(true.max() + 1):
        mine = place[true == group]
        most = np.bincount(mine).argmax()
        found += (mine == most).mean() > 0.9 and (true[place == most] == group).mean() > 0.9
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("count", "n", "d", "noise"), [(20, 1000, 16, 0.2), (20, 2000, 64, 0.4), (5, 60, 3, 0.1)])
def test_spherical_clusters__all_separate_blobs(count: int, n: int, d: int, noise: float, seed: int) -> None:
    x, true = blobs(count, n, d, noise, 11)
    assert count_found(true, clusters_of(x, count, seed)) == count


def test_spherical_clusters__the_same_for_any_order_and_blocks() -> None:
    x, _ = blobs(7, 500, 12, 1.0, 2)
    keys = np.random.default_rng(0).integers(0, 2**63, 500)
    order = np.random.default_rng(1).permutation(500)
    place = clusters_of(x, 7, 4, keys)
    assert clusters_of(x[order], 7, 4, keys[order]).tolist() == place[order].tolist()
    assert clusters_of(x, 7, 4, keys, block_rows=33).tolist() == place.tolist()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_spherical_clusters__of_copies_and_zeros(count: int) -> None:
    x = np.repeat(np.eye(2, 4, dtype=np.float32), [3, 2], axis=0)
    x = np.concatenate([x, np.zeros((2, 4), np.float32)])
    place = clusters_of(x, count, 0)
    assert place[5:].tolist() == [-1, -1]
    assert len(set(place[:3])) == len(set(place[3:5])) == 1
    assert (place[0] == place[3]) == (count == 1)


def test_spherical_clusters__without_starts_as_before() -> None:
    x, _ = blobs(6, 200, 8, 0.5, 0)
    vectors = Pool(vectors=x).get_vectors()
    order = np.random.default_rng(3).permutation(200)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    centroids = unit[order[:6]].astype(np.float64)
    for _ in range(10):
        near = (unit @ centroids.T).argmax(axis=1)
        centroids = np.array([unit[near == c].sum(axis=0) for c in range(6)])
        centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    np.testing.assert_allclose(spherical_clusters(vectors, order, 6, rng=None)[1], centroids, atol=1e-5)
