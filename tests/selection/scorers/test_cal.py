from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.kernels.compiled.probabilities import contrast
from selection.scorers.cal import Cal

RNG = np.random.default_rng(0)


# The second is equal to scikit-activeml's ContrastiveAL; in the first, three neighbours are at equal distances.
@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        ([[0, 1], [1, 0], [0, 1]], [0.1940998604, 0.086495398, 1.2542316285]),
        ([[0, 1], [1, 0], [2, 0]], [0.1940998604, 0.086495398, 0.9010913347]),
    ],
)
def test_contrast__known_answers(neighbours, expected) -> None:
    labelled = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    mine = np.array([[0.5, 0.5], [0.65, 0.35], [0.1, 0.9]])
    out = np.empty(3, np.float32)
    contrast(mine, labelled, np.array(neighbours), 1e-7, np.arange(3), out)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_score__ties_of_neighbours_go_to_the_lowest_row() -> None:
    # Rows 0 to 2 are labelled; row 3 is as near to rows 1 and 2. With one neighbour it is row 1 that counts.
    vectors = np.array([[-1, 0], [0.6, 0.8], [0.6, -0.8], [1, 0]], np.float32)
    probabilities = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])
    pool = Pool(vectors=vectors, probabilities=probabilities, labels=[0, 1, 1, -1], already_selected=[0, 1, 2])
    assert Cal(n_neighbors=1).score(pool, rng=RNG)[3] == 0
    assert select([{"cal": {"n_neighbors": 1}}], pool, budget=1).rows.tolist() == [3]


def naive(vectors, probabilities, labelled, k):
    unit = vectors.astype(np.float64)
    length = np.linalg.norm(unit, axis=1, keepdims=True)
    unit = np.divide(unit, length, out=np.zeros_like(unit), where=length > 0)
    p = np.maximum(probabilities.astype(np.float64), 1e-7)
    p /= p.sum(axis=1, keepdims=True)
    scores = []
    for i in range(len(unit)):
        near = labelled[np.argsort(-(unit[labelled] @ unit[i]), kind="stable")[:k]]
        scores.append(np.mean([(p[j] * np.log(p[j] / p[i])).sum() for j in near]))
    return np.array(scores)


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_score__as_the_naive_one_also_where_vectors_are_not_of_unit_length(k) -> None:
    rng = np.random.default_rng(k)
    vectors = (rng.normal(size=(150, 6)) * rng.uniform(0.1, 10, (150, 1))).astype(np.float32)
    probabilities = rng.dirichlet(np.full(4, 0.4), 150).astype(np.float32)
    probabilities[:9] = np.eye(4)[rng.integers(0, 4, 9)]
    labels = np.where(rng.random(150) < 0.2, rng.integers(0, 4, 150), -1)
    scores = Cal(n_neighbors=k).score(Pool(vectors=vectors, probabilities=probabilities, labels=labels), rng=RNG)
    wanted = naive(vectors, probabilities, np.flatnonzero(labels >= 0), k)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)


def test_score__a_row_that_agrees_with_its_neighbours_scores_nothing() -> None:
    pool = Pool(vectors=np.eye(3, dtype=np.float32), probabilities=np.full((3, 2), 0.5), labels=[0, -1, -1])
    assert Cal().score(pool, rng=RNG).tolist() == [0, 0, 0]


def test_score__no_labelled_row_is_an_error_that_says_what_to_do() -> None:
    pool = Pool(vectors=np.eye(3), probabilities=np.full((3, 2), 0.5), labels=[-1, -1, -1])
    with pytest.raises(
        MissingInput, match="none of the 3 rows has a label: draw the first rows with a step that needs none"
    ):
        select(["cal"], pool, budget=1)


def test_score__bad_input_is_named() -> None:
    probabilities = np.full((3, 2), 0.5)
    probabilities[2] = [0.5, 0.6]
    pool = Pool(vectors=np.eye(3), probabilities=probabilities, labels=[1, -1, -1])
    with pytest.raises(InvalidInput, match=r"probabilities: row 2 sums to 1\.1"):
        select(["cal"], pool, budget=1)
    with pytest.raises(InvalidOption, match="n_neighbors must be an integer >= 1"):
        Cal(n_neighbors=0)
