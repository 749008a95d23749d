from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.selectors.falcun import Falcun, draw_weights, lowered, read_probabilities

P = np.array([[0.7, 0.2, 0.1], [0.34, 0.33, 0.33], [0.1, 0.8, 0.1], [0.45, 0.45, 0.1], [0.25, 0.05, 0.7]])
UNCERTAINTY = [0.5, 0.99, 0.3, 1.0, 0.55]
DRAW_1 = [0.0005118527, 0.4740202646, 3.095e-06, 0.5241371736, 0.0013276141]
DRAW_2 = [0.0563966043, 0.0, 0.0003410087, 0.7969841199, 0.1462782671]


class Supplied:
    """A generator that gives the numbers it was given."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def random(self):
        return next(self.numbers)


def by_hand(p, gamma, uniforms):
    """The published algorithm, one row at a time."""
    ordered = np.sort(p, axis=1)
    u = 1 - (ordered[:, -1] - ordered[:, -2])
    distance, picks = u.copy(), []
    for uniform in uniforms:
        if picks:
            distance = np.array([min(d, np.abs(q - p[picks[-1]]).sum()) for d, q in zip(distance, p, strict=True)])
            distance = (distance - distance.min()) / (distance.max() - distance.min())
        weight = [0.0 if i in picks else (u[i] + distance[i]) ** gamma for i in range(len(p))]
        target, so_far = uniform * sum(weight), 0.0
        for i, w in enumerate(weight):
            so_far += w
            if so_far > target:
                picks.append(i)
                break
    return picks


def test_read__known_uncertainty():
    probabilities, uncertainty = read_probabilities(Pool(probabilities=P), np.arange(5))
    np.testing.assert_allclose(uncertainty, UNCERTAINTY, atol=1e-7)
    np.testing.assert_allclose(probabilities, P, atol=1e-7)


def test_draw_weights__known_answers():
    probabilities, uncertainty = read_probabilities(Pool(probabilities=P), np.arange(5))
    first = draw_weights(2 * uncertainty, np.ones(5, bool), 10)
    np.testing.assert_allclose(first / first.sum(), DRAW_1, atol=1e-6)
    second = draw_weights(uncertainty + lowered(uncertainty, probabilities, 1), np.arange(5) != 1, 10)
    np.testing.assert_allclose(second / second.sum(), DRAW_2, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.5, 3, 10])
def test_select__given_uniform_numbers_picks_as_by_hand(gamma):
    rng = np.random.default_rng(3)
    p = rng.dirichlet(np.ones(4), 40).astype(np.float32)
    uniforms = rng.random(12)
    drawn = Falcun(gamma=gamma).select(Pool(probabilities=p), 12, rng=Supplied(uniforms))
    assert drawn.rows.tolist() == by_hand(p.astype(np.float64), gamma, uniforms)


@pytest.mark.slow
def test_select__first_draw_follows_its_law():
    count = Counter(int(select(["falcun"], Pool(probabilities=P), budget=1, seed=s).rows[0]) for s in range(2000))
    expected = 2000 * np.array([DRAW_1[0] + DRAW_1[2] + DRAW_1[4], DRAW_1[1], DRAW_1[3]])
    seen = np.array([count[0] + count[2] + count[4], count[1], count[3]])
    assert ((seen - expected) ** 2 / expected).sum() < 13.8  # chi-square with 2 degrees of freedom, p = 0.001


def test_select__certain_rows_are_drawn_last():
    p = np.eye(4)[[0, 0, 0, 0, 0, 0]]
    p[[2, 4]] = [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]
    drawn = select(["falcun"], Pool(probabilities=p), budget=6)
    assert sorted(drawn.rows[:2].tolist()) == [2, 4]
    assert drawn.gain[0] == 2.0


def test_select__one_class_and_no_distance_is_uniform():
    assert sorted(select(["falcun"], Pool(probabilities=np.ones((5, 1))), budget=5).rows.tolist()) == list(range(5))


def test_select__refuses_bad_input():
    with pytest.raises(InvalidOption, match="falcun: gamma must be"):
        select([{"falcun": {"gamma": -1}}], Pool(probabilities=P), budget=1)
    with pytest.raises(MissingInput, match="probabilities"):
        select(["falcun"], Pool(vectors=np.eye(3)), budget=1)
    bad = P.copy()
    bad[3] = 0.5
    with pytest.raises(InvalidInput, match=r"row 3 sums to 1\.5"):
        select(["falcun"], Pool(probabilities=bad), budget=1)
