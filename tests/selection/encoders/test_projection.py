from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.encoders import projection
from selection.encoders.projection import Projector
from tests.training_checkpoints import single_thread

KINDS = ("count_sketch", "rademacher")


@pytest.fixture(autouse=True, scope="module")
def _single_thread():
    with single_thread():
        yield


def splitmix64(seed: int, place: int) -> int:
    """The published algorithm, a number at a time in Python's integers."""
    z = (seed + (place + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def whole_matrix(kind: str, size: int, dims: int, seed: int) -> np.ndarray:
    """(size, dims) float64, entry by entry."""
    matrix = np.zeros((size, dims))
    for row in range(size):
        if kind == "count_sketch":
            word = splitmix64(seed, row)
            matrix[row, ((word >> 32) * dims) >> 32] = 1 if word & 1 else -1
            continue
        words = -(-dims // 64)
        for column in range(dims):
            bit = splitmix64(seed, row * words + column // 64) >> (column % 64) & 1
            matrix[row, column] = (1 if bit else -1) / dims**0.5
    return matrix


def projected(x, **options):
    import torch

    return Projector(size=x.shape[1], **options).project(torch.from_numpy(x)).numpy()


@given(st.sampled_from(KINDS), st.integers(1, 70), st.integers(1, 140), st.integers(0, 2**64 - 1))
@settings(max_examples=25, deadline=None)
def test_project__equals_the_whole_matrix(kind, size, dims, seed):
    x = np.random.default_rng(size).normal(size=(3, size)).astype(np.float32)
    expected = x.astype(np.float64) @ whole_matrix(kind, size, dims, seed)
    np.testing.assert_allclose(projected(x, kind=kind, dims=dims, seed=seed), expected, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_project__blocks_and_threads_change_nothing_that_matters(kind, monkeypatch):
    import torch

    x = np.random.default_rng(0).normal(size=(4, 5000)).astype(np.float32)
    whole = projected(x, kind=kind, dims=128, seed=3)
    monkeypatch.setattr(projection, "BLOCK_ENTRIES", 1000)
    monkeypatch.setattr(projection, "BLOCK_COORDINATES", 77)
    torch.set_num_threads(2)
    try:
        np.testing.assert_allclose(projected(x, kind=kind, dims=128, seed=3), whole, rtol=1e-5, atol=1e-4)
    finally:
        torch.set_num_threads(1)
    assert np.abs(projected(x, kind=kind, dims=128, seed=4) - whole).max() > 1


@pytest.mark.parametrize("kind", KINDS)
def test_project__a_cosine_errs_by_what_johnson_and_lindenstrauss_allow(kind):
    """The standard deviation of an inner product of unit vectors is at most sqrt(2 / dims)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3000)) + 2 * rng.normal(size=3000)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    y = projected(x, kind=kind, dims=1024, seed=9).astype(np.float64)
    error = (y @ y.T - x @ x.T)[np.triu_indices(40)]
    assert np.abs(error).max() < 5 * (2 / 1024) ** 0.5
    cosine = (y @ y.T) / np.linalg.norm(y, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    assert np.abs(cosine - x @ x.T).max() < 0.1
