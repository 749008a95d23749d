from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, build_step, select
from selection.checks import ShuffledVectors
from selection.selectors import ranked_batch

# The pool, and its labelled row last.
X = np.array([[0, 0], [0, 1], [3, 0], [3, 1], [10, 10], [0, 0.5]], np.float32)
UNCERTAINTY = [0.4, 0.5, 0.1, 0.45, 0.6, 0.0]
STEPS = [
    [0.3444444444, 0.3611111111, 0.6437998722, 0.7021332055, 0.877000818],
    [0.3555555556, 0.3888888889, 0.5350398978, 0.6517065644, None],
    [0.3666666667, 0.4166666667, 0.3, None, None],
]


# Equal to modAL's.
def test_select__known_answer() -> None:
    pool = Pool(vectors=X, columns={"uncertainty": np.array(UNCERTAINTY)}, already_selected=[5])
    chosen = select([{"column": {"field": "uncertainty"}}, "ranked_batch"], pool, budget=3)
    assert chosen.rows.tolist() == [4, 3, 1]
    np.testing.assert_allclose(
        chosen.gain, [step[row] for step, row in zip(STEPS, chosen.rows, strict=True)], rtol=1e-6
    )
    assert chosen.reason.ref.tolist() == [5, 5, 5]


def test_naive__known_answer_of_every_value() -> None:
    for already, step in zip(([5], [5, 4], [5, 4, 3]), STEPS, strict=True):
        _, _, values = naive(X, np.array(UNCERTAINTY), 1, already)
        for value, expected in zip(values, step, strict=False):
            assert (value == -np.inf) if expected is None else value == pytest.approx(expected, abs=1e-10)


def naive(vectors, scores, budget, already):
    """Every distance of every pick."""
    x, chosen = vectors.astype(np.float64), list(already)
    picked, gains = [], []
    for _ in range(budget):
        rest = np.setdiff1d(np.arange(len(x)), chosen)
        value = np.full(len(x), -np.inf)
        alpha = len(rest) / (len(rest) + len(chosen))
        distances = np.sqrt(((x[rest, None] - x[chosen]) ** 2).sum(axis=2))
        near = distances.min(axis=1, initial=np.inf)
        value[rest] = alpha * (1 - 1 / (1 + near)) + (1 - alpha) * scores[rest]
        best = int(np.argmax(value if chosen else scores))
        chosen.append(best)
        picked.append(best)
        gains.append(value[best])
    return picked, gains, value


@pytest.mark.parametrize("already", [0, 1, 30])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("at_first", [1, 16, 128])
def test_select__is_the_naive_one_whatever_is_brought_up_to_date(already, seed, at_first, monkeypatch) -> None:
    monkeypatch.setattr(ranked_batch, "FIRST_UPDATES", at_first)
    rng = np.random.default_rng(seed)
    # Whole numbers: sums of squares are exact, and ties abound.
    vectors = rng.integers(-3, 4, (200, 3)).astype(np.float32)
    scores = (rng.integers(0, 5, 200) / 4).astype(np.float32)
    before = rng.permutation(200)[:already]
    pool = Pool(
        vectors=ShuffledVectors(vectors, rng.permutation(200), block_rows=17), scores=scores, already_selected=before
    )
    chosen = select(["ranked_batch"], pool, budget=60)
    rows, gains, _ = naive(vectors, scores.astype(np.float64), 60, before.tolist())
    assert chosen.rows.tolist() == rows
    np.testing.assert_array_equal(chosen.gain, np.array(gains, np.float32))


def test_select__law_the_fewer_labels_the_more_distance_counts() -> None:
    # Row 0 is uncertain and beside the labelled rows, row 1 sure and far away.
    far = np.concatenate([[[0.1, 0]], [[3, 0]], np.zeros((40, 2))]).astype(np.float32)
    scores = np.zeros(42, np.float32)
    scores[0] = 1
    few = Pool(vectors=far, scores=scores, already_selected=[41])
    many = Pool(vectors=far, scores=scores, already_selected=np.arange(2, 42))
    assert select(["ranked_batch"], few, budget=1).rows.tolist() == [1]
    assert select(["ranked_batch"], many, budget=1).rows.tolist() == [0]


def test_select__with_nothing_selected_the_first_is_the_most_uncertain() -> None:
    chosen = select(["ranked_batch"], Pool(vectors=X, scores=UNCERTAINTY), budget=6)
    assert chosen.rows[0] == 4
    assert chosen.gain[0] == 1
    assert chosen.reason.ref[0] == -1
    assert sorted(chosen.rows.tolist()) == list(range(6))


def test_select__bad_input_is_named() -> None:
    vectors = X.copy()
    vectors[2, 1] = np.inf
    with pytest.raises(InvalidInput, match="vectors: row 2 holds a value that is not finite"):
        select(["ranked_batch"], Pool(vectors=vectors, scores=UNCERTAINTY), budget=2)
    with pytest.raises(MissingInput, match="scores"):
        select(["ranked_batch"], Pool(vectors=X), budget=1)
    with pytest.raises(InvalidOption, match="unknown option 'alpha'"):
        build_step({"ranked_batch": {"alpha": 0.5}})
