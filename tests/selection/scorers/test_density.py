from __future__ import annotations

import numba
import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput, InvalidOption, InvalidRecipe, MissingInput, Pool, build_step, select
from selection.kernels.density import mean_closeness
from selection.scorers.density import Density

RNG = np.random.default_rng(0)
X = np.array([[0, 0], [0, 1], [3, 0], [3, 1], [10, 10]], np.float32)
UNCERTAINTY = [0.4, 0.5, 0.1, 0.45, 0.6]
DENSITY = [0.4112587912, 0.4118879747, 0.4131946087, 0.4141773654, 0.2583162814]
UTILITY = [0.1645035165, 0.2059439874, 0.0413194609, 0.1863798145, 0.1549897688]


# Equal to modAL's information_density.
def test_mean_closeness__known_answer() -> None:
    np.testing.assert_allclose(mean_closeness(ArrayVectors(X)), DENSITY, rtol=0, atol=1e-10)


def test_select__known_answer_of_information_density_in_a_recipe() -> None:
    steps = [{"column": {"field": "uncertainty"}}, {"density": {"beta": 1}}]
    chosen = select(steps, Pool(vectors=X, columns={"uncertainty": np.array(UNCERTAINTY)}), budget=5)
    assert chosen.rows[0] == 1
    np.testing.assert_allclose(chosen.gain, np.array(UTILITY)[chosen.rows], rtol=1e-6)


@pytest.mark.parametrize("beta", [0, 0.5, 2.0])
def test_score__beta_is_the_power_of_the_density(beta) -> None:
    scores = Density(beta=beta).score(Pool(vectors=X, scores=UNCERTAINTY), rng=RNG)
    np.testing.assert_allclose(scores, np.array(UNCERTAINTY) * np.array(DENSITY) ** beta, rtol=1e-6)


def naive(vectors):
    x = vectors.astype(np.float64)
    return np.array([np.mean(1 / (1 + np.sqrt(((x - row) ** 2).sum(axis=1)))) for row in x])


@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (65, 9), (300, 20)])
def test_score__is_the_naive_one(n, d) -> None:
    rng = np.random.default_rng(n)
    vectors = (rng.normal(size=(n, d)) * rng.uniform(0.01, 100, (n, 1))).astype(np.float32)
    np.testing.assert_allclose(mean_closeness(ArrayVectors(vectors)), naive(vectors), rtol=1e-12)
    assert Density().score(Pool(vectors=vectors), rng=RNG).tolist() == naive(vectors).astype(np.float32).tolist()


def test_mean_closeness__order_blocks_and_threads_change_no_bit() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 7)).astype(np.float32)
    whole = mean_closeness(ArrayVectors(vectors))
    order = rng.permutation(300)
    assert mean_closeness(ArrayVectors(vectors[order], block_rows=13)).tolist() == whole[order].tolist()
    before = numba.get_num_threads()
    try:
        for count in {1, numba.config.NUMBA_NUM_THREADS}:
            numba.set_num_threads(count)
            assert mean_closeness(ArrayVectors(vectors)).tolist() == whole.tolist()
    finally:
        numba.set_num_threads(before)


def test_score__law_equal_rows_are_of_density_1_and_no_row_is_below_its_own_share() -> None:
    assert Density().score(Pool(vectors=np.ones((9, 4))), rng=RNG).tolist() == [1.0] * 9
    far = np.diag([1e30, 1e20, 1e10]).astype(np.float32)
    np.testing.assert_allclose(Density().score(Pool(vectors=far), rng=RNG), 1 / 3, rtol=1e-6)


def test_score__bad_input_is_named() -> None:
    with pytest.raises(InvalidInput, match=r"density: the score of row 1 is -0\.5, must be >= 0"):
        select([{"density": {"beta": 1}}], Pool(vectors=np.eye(3), scores=[0.1, -0.5, 0.2]), budget=1)
    with pytest.raises(MissingInput, match="scores"):
        select([{"density": {"beta": 1}}], Pool(vectors=np.eye(3)), budget=1)
    with pytest.raises(InvalidRecipe, match="replaced by those of 'density'"):
        select(["entropy", "density"], Pool(vectors=np.eye(3)), budget=1)
    for beta in (-1, "1", True, np.nan):
        with pytest.raises(InvalidOption, match="beta must be a finite number >= 0"):
            build_step({"density": {"beta": beta}})
