from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.selectors.lightweight import chances

X = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0], [6.0, 6.0]], np.float32)
Q = np.array([0.1833333333, 0.1416666667, 0.1416666667, 0.1, 0.4333333333])
WEIGHTS = np.array([2.7272727273, 3.5294117647, 3.5294117647, 5.0, 1.1538461538])


def draw(budget, seed=0, **inputs):
    return select(["lightweight"], Pool(**({"vectors": X} | inputs)), budget=budget, seed=seed)


def test_chances__known_answers():
    np.testing.assert_allclose(chances(Pool(vectors=X)), Q, atol=1e-9)


def test_select__known_weights():
    for seed in range(10):
        drawn = draw(2, seed)
        np.testing.assert_allclose(drawn.reason.value, WEIGHTS[drawn.rows], rtol=1e-6)
        np.testing.assert_allclose(drawn.gain, Q[drawn.rows], rtol=1e-6)


def test_chances__as_by_hand_among_the_candidates():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 6)).astype(np.float32)
    rows = np.arange(7, 50)
    part = x[rows].astype(np.float64)
    square = np.array([((v - part.mean(axis=0)) ** 2).sum() for v in part])
    q = chances(Pool(vectors=x, already_selected=np.arange(7)))
    np.testing.assert_allclose(q[rows], 1 / (2 * 43) + square / (2 * square.sum()), rtol=1e-12)
    assert not q[:7].any()


@pytest.mark.slow
def test_select__first_and_second_draw_follow_their_law():
    pairs = [tuple(draw(2, seed).rows.tolist()) for seed in range(3000)]
    first = Counter(a for a, _ in pairs)
    seen, expected = np.array([first[i] for i in range(5)]), 3000 * Q
    assert ((seen - expected) ** 2 / expected).sum() < 18.5  # chi-square with 4 degrees of freedom, p = 0.001
    both = Counter(pairs)
    law = {(a, b): 3000 * Q[a] * Q[b] / (1 - Q[a]) for a in range(5) for b in range(5) if a != b}
    assert sum((both[p] - e) ** 2 / e for p, e in law.items()) < 43.9  # 19 degrees of freedom, p = 0.001


def test_select__rows_that_coincide_have_even_chances():
    np.testing.assert_array_equal(chances(Pool(vectors=np.ones((4, 3), np.float32))), [0.25] * 4)


def test_select__refuses_bad_input():
    bad = X.copy()
    bad[2, 1] = np.nan
    with pytest.raises(InvalidInput, match="row 2"):
        draw(1, vectors=bad)
    with pytest.raises(InvalidOption, match="it has no options"):
        select([{"lightweight": {"beta": 1}}], Pool(vectors=X), budget=1)
    with pytest.raises(MissingInput, match="vectors"):
        select(["lightweight"], Pool(probabilities=np.eye(3)), budget=1)
