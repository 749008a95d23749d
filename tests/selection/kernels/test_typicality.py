from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from selection.kernels import typicality as module
from selection.kernels.typicality import most_typical

sys.path.insert(0, str(Path(__file__).parent))
from coverage_cases import hard_vectors, square_distances

HARD = hard_vectors()


def naive(X, k, *, squared):
    """Row and mean, by the definition: float64 distances, the k smallest added up in ascending order."""
    means = []
    for i in range(len(X)):
        near = np.sort(np.delete(square_distances(X, X[i]), i))[:k]
        total = 0.0
        for value in near if squared else np.sqrt(near):
            total += value
        means.append(total / k)
    return int(np.argmin(means)), min(means)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("name", HARD)
def test_most_typical__equals_the_definition(name, k, squared):
    X = HARD[name].astype(np.float32)
    row, mean = most_typical(X, k, squared=squared)
    expected, least = naive(X, k, squared=squared)
    assert row == expected
    assert mean == pytest.approx(least, rel=1e-14)


def test_most_typical__the_number_of_rows_at_once_changes_nothing(monkeypatch):
    X = HARD["clustered"]
    expected = most_typical(X, 7)
    monkeypatch.setattr(module, "TILE_VALUES", 1)
    assert most_typical(X, 7) == expected


def test_most_typical__all_others_and_two_rows():
    X = np.array([[0.0], [1.0], [3.0]], np.float32)
    assert most_typical(X, 2) == (1, 1.5)
    assert most_typical(X[:2], 1) == (0, 1.0)


def test_most_typical__few_rows_are_worked_out(monkeypatch):
    worked_out = []
    exact = module.loops.exact_mean
    monkeypatch.setattr(
        module.loops, "exact_mean", lambda X, row, *rest: worked_out.append(row) or exact(X, row, *rest)
    )
    rng = np.random.default_rng(0)
    most_typical(rng.standard_normal((2000, 16)).astype(np.float32), 20)
    assert len(worked_out) < 5
    worked_out.clear()
    assert most_typical(np.ones((500, 16), np.float32), 20) == (0, 0.0)
    assert worked_out == [0]
