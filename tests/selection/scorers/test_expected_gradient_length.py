from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, Pool, build_step, select
from selection.scorers.expected_gradient_length import ExpectedGradientLength

RNG = np.random.default_rng(0)
X = np.array([[1, 2], [0, 1], [3, 0]], np.float32)
P = np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.4, 0.4, 0.2]])
LENGTH = [1.8889568992, 0.3410871645, 2.512822866]
SQUARED = [3.72, 0.37, 6.4]


@pytest.mark.parametrize(("squared", "expected"), [(False, LENGTH), (True, SQUARED)])
def test_select__known_answer(squared, expected) -> None:
    chosen = select([{"expected_gradient_length": {"squared": squared}}], Pool(vectors=X, probabilities=P), budget=3)
    assert chosen.rows.tolist() == [2, 0, 1]
    np.testing.assert_allclose(chosen.gain, np.array(expected)[chosen.rows], rtol=2e-7)


def naive(vectors, probabilities, *, squared):
    """The gradient matrices themselves."""
    scores = []
    for x, p in zip(vectors.astype(np.float64), probabilities.astype(np.float64), strict=True):
        total = 0.0
        for c in range(len(p)):
            gradient = np.outer(p - np.eye(len(p))[c], np.append(x, 1.0))
            square = (gradient**2).sum()
            total += p[c] * (square if squared else np.sqrt(square))
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 7])
def test_score__is_the_naive_one_also_where_the_model_is_sure(classes, squared) -> None:
    rng = np.random.default_rng(classes)
    vectors = (rng.normal(size=(200, 5)) * rng.uniform(0.01, 100, (200, 1))).astype(np.float32)
    probabilities = rng.dirichlet(np.full(classes, 0.1), 200)
    probabilities[:classes] = np.eye(classes)
    probabilities[-1] = np.full(classes, 1e-9)
    probabilities[-1, 0] = 1 - 1e-9 * (classes - 1)
    pool = Pool(vectors=vectors, probabilities=probabilities)
    scores = ExpectedGradientLength(squared=squared).score(pool, rng=RNG)
    np.testing.assert_allclose(scores, naive(vectors, probabilities, squared=squared), rtol=1e-6, atol=1e-30)
    assert scores[:classes].tolist() == [0.0] * classes


def test_score__law_the_square_is_that_of_the_vector_and_1_times_the_gini_impurity() -> None:
    rng = np.random.default_rng(3)
    vectors, p = rng.normal(size=(50, 4)).astype(np.float32), rng.dirichlet(np.ones(5), 50)
    scores = ExpectedGradientLength(squared=True).score(Pool(vectors=vectors, probabilities=p), rng=RNG)
    size = 1 + (vectors.astype(np.float64) ** 2).sum(axis=1)
    np.testing.assert_allclose(scores, size * (1 - (p**2).sum(axis=1)), rtol=1e-6)


def test_score__bad_input_is_named() -> None:
    probabilities = P.copy()
    probabilities[1] = [0.5, 0.3, 0.3]
    with pytest.raises(InvalidInput, match=r"probabilities: row 1 sums to 1\.1"):
        select(["expected_gradient_length"], Pool(vectors=X, probabilities=probabilities), budget=1)
    vectors = X.copy()
    vectors[2, 0] = np.nan
    with pytest.raises(InvalidInput, match="vectors: row 2 holds a value that is not finite"):
        select(["expected_gradient_length"], Pool(vectors=vectors, probabilities=P), budget=1)
    with pytest.raises(InvalidOption, match="squared must be true or false"):
        build_step({"expected_gradient_length": {"squared": 1}})
