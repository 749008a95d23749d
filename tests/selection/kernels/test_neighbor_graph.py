from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput
from selection.kernels import neighbor_graph as kernel
from selection.kernels.neighbor_graph import (
    cosines,
    distance_to_others,
    nearest_neighbours,
    voters,
    within_distance,
)
from selection.types import Array

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import Shuffled, hard_vectors, square_distances

HARD = hard_vectors()


def unit(x: Array) -> Array:
    wide = x.astype(np.float64)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(length > 0, length, 1)).astype(np.float32).astype(np.float64)


def products(x: Array) -> Array:
    """(n, n) inner products of the unit vectors, summed as eight interleaved sums, then the rest of the features."""
    u = unit(x)
    whole = u.shape[1] - u.shape[1] % 8
    a = np.zeros((8, len(u), len(u)))
    for f in range(whole):
        a[f % 8] += np.outer(u[:, f], u[:, f])
    total = ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    for f in range(whole, u.shape[1]):
        total += np.outer(u[:, f], u[:, f])
    return total


def naive_nearest(x: Array, k: int) -> list[list[int]]:
    """All pairs, sorted by product, then row; a zero vector is nobody's neighbour."""
    s = products(x)
    there = x.any(axis=1)
    lists = []
    for i in range(len(x)):
        order = [j for j in np.lexsort((np.arange(len(x)), -s[i])).tolist() if j != i and there[j]]
        found = sorted(order[:k]) if there[i] else []
        lists.append([-1] * (min(k, len(x) - 1) - len(found)) + found)
    return lists


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("k", [1, 5, 40])
def test_nearest_neighbours__is_the_definition(name: str, k: int) -> None:
    x = HARD[name]
    expected = naive_nearest(x, k)
    assert np.sort(nearest_neighbours(ArrayVectors(x), k), axis=1).tolist() == expected
    assert np.sort(nearest_neighbours(Shuffled(x), k), axis=1).tolist() == expected


def test_nearest_neighbours__queries_and_pairs_at_once_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: np.sort(nearest_neighbours(ArrayVectors(x), 9)) for name, x in HARD.items()}
    monkeypatch.setattr(kernel, "QUERY_ROWS", 37)
    monkeypatch.setattr(kernel, "PAIRS_AT_ONCE", 11)
    for name, x in HARD.items():
        assert np.array_equal(np.sort(nearest_neighbours(ArrayVectors(x), 9)), whole[name])


def test_nearest_neighbours__small_pools_have_few() -> None:
    assert nearest_neighbours(ArrayVectors(np.zeros((0, 3), np.float32)), 5).shape == (0, 0)
    assert nearest_neighbours(ArrayVectors(np.ones((1, 3), np.float32)), 5).shape == (1, 0)
    x = np.array([[1, 0], [0, 0], [1, 1]], np.float32)
    assert np.sort(nearest_neighbours(ArrayVectors(x), 5)).tolist() == [[-1, 2], [-1, -1], [-1, 0]]


def test_nearest_neighbours__go_by_direction() -> None:
    x = HARD["clustered"]
    length = np.exp2(np.random.default_rng(0).integers(-40, 40, len(x))).astype(np.float32)
    assert np.array_equal(
        nearest_neighbours(ArrayVectors(x * length[:, None]), 7), nearest_neighbours(ArrayVectors(x), 7)
    )


def test_nearest_neighbours__a_value_that_is_not_finite_is_named() -> None:
    for bad in (np.nan, np.inf):
        x = HARD["clustered"].copy()
        x[17, 3] = bad
        with pytest.raises(InvalidInput, match="row 17"):
            nearest_neighbours(ArrayVectors(x), 3)


def test_cosines__of_each_row_and_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "PAIRS_AT_ONCE", 20)
    x = HARD["zeros"]
    graph = nearest_neighbours(ArrayVectors(x), 6)
    expected = np.where(graph >= 0, np.take_along_axis(products(x), np.maximum(graph, 0), 1), 0)
    assert np.array_equal(cosines(ArrayVectors(x), graph), expected)


def test_voters__are_the_edges_turned_round() -> None:
    lists = voters(np.array([[1, 2], [0, -1], [1, 0], [-1, -1]], np.int32))
    assert [lists.of(i).tolist() for i in range(4)] == [[1, 2], [0, 2], [0], []]


@pytest.mark.parametrize("name", HARD)
def test_within_distance__is_the_definition(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "RANGE_ROWS", 50)
    x = HARD[name]
    distance = np.sqrt(np.stack([square_distances(x, c) for c in x]))
    for share in (0.02, 0.4):
        limit = float(np.quantile(distance, share, method="lower"))  # a distance that occurs: it counts
        for vectors in (ArrayVectors(x), Shuffled(x)):
            lists = within_distance(vectors, limit, max_edges=len(x) ** 2)
            assert [lists.of(i).tolist() for i in range(len(x))] == [
                np.flatnonzero(row <= limit).tolist() for row in distance
            ]


def test_within_distance__more_pairs_than_allowed_are_refused() -> None:
    x = HARD["identical"]
    assert len(within_distance(ArrayVectors(x), 0.1, max_edges=120**2).row) == 120**2
    with pytest.raises(InvalidInput, match="more than 14399 pairs"):
        within_distance(ArrayVectors(x), 0.1, max_edges=120**2 - 1)


@pytest.mark.parametrize("name", HARD)
def test_distance_to_others__is_the_definition(name: str) -> None:
    x = HARD[name]
    rng = np.random.default_rng(0)
    place = rng.integers(-1, 3, len(x))
    rows = rng.permutation(np.flatnonzero(place >= 0))[:60]
    distance = np.sqrt(np.stack([square_distances(x, x[i]) for i in rows]))
    distance[(place[None] == place[rows, None]) | (place[None] < 0)] = np.inf
    assert np.array_equal(distance_to_others(Shuffled(x), rows, place), distance.min(axis=1))
    assert np.isinf(distance_to_others(ArrayVectors(x), rows, np.zeros(len(x), np.int64))).all()
