from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.kernels.kmeans_pp import by_mass
from selection.kernels.nearest import Nearest
from selection.selectors.badge import gradients

X = np.array([[1, 0], [0, 2], [1, 1], [-1, 0.5], [2, -1]], np.float32)
P = np.array([[0.7, 0.2, 0.1], [0.34, 0.33, 0.33], [0.1, 0.8, 0.1], [0.45, 0.45, 0.1], [0.25, 0.05, 0.7]])
RESIDUAL = [[-0.3, 0.2, 0.1], [-0.66, 0.33, 0.33], [0.1, -0.2, 0.1], [-0.55, 0.45, 0.1], [0.25, 0.05, -0.3]]
SQUARE_NORM = [0.14, 2.6136, 0.12, 0.64375, 0.775]
SQUARE_DISTANCE = np.array(
    [
        [0.0, 2.7536, 0.38, 1.31375, 1.295],
        [2.7536, 0.0, 3.1296, 2.16835, 2.3986],
        [0.38, 3.1296, 0.0, 0.62875, 0.925],
        [1.31375, 2.16835, 0.62875, 0.0, 0.69375],
        [1.295, 2.3986, 0.925, 0.69375, 0.0],
    ]
)
DRAW = {
    (1,): [0.2634986101, 0.0, 0.2994789548, 0.2074946293, 0.2295278058],
    (1, 2): [0.196509373, 0.0, 0.0, 0.3251454428, 0.4783451842],
}


def draw(budget, *, x=X, p=P, seed=0, already=(), **options):
    pool = Pool(vectors=x, probabilities=p, already_selected=list(already))
    return select([{"badge": options}], pool, budget=budget, seed=seed)


def masses(centres):
    """The squared distances that the next draw follows, from the kernel that draws."""
    known = Nearest(gradients(Pool(vectors=X, probabilities=P)), np.array(centres), np.ones(5, bool), 5)
    known.measure(np.arange(5))
    return known.distance(known.state["bound"]) ** 2


def test_gradients__known_answers():
    points = gradients(Pool(vectors=X, probabilities=P))
    np.testing.assert_allclose(points.factors, RESIDUAL, atol=1e-7)
    for row in range(5):
        np.testing.assert_allclose(masses([row]), SQUARE_DISTANCE[row], atol=1e-6)


@pytest.mark.parametrize("centres", DRAW)
def test_select__the_next_draw_has_the_known_probabilities(centres):
    mass = masses(centres)
    np.testing.assert_allclose(mass / mass.sum(), DRAW[centres], atol=1e-6)


def test_select__known_picks_of_given_uniform_numbers():
    chosen = [int(draw(1).rows[0])]
    for uniform in (0.5, 0.9):
        mass = masses(chosen)
        chosen += by_mass(mass, np.cumsum(mass), np.array([uniform])).tolist()
    assert chosen == [1, 2, 4]


def test_select__first_pick_is_the_longest_gradient():
    s = draw(1)
    assert s.rows.tolist() == [1]
    assert s.gain == pytest.approx([np.sqrt(SQUARE_NORM[1])])
    assert (s.reason.ref.tolist(), s.reason.kind.tolist()) == ([-1], ["centre"])


def test_select__equal_lengths_give_the_lowest_row():
    x = np.array([[0, 1], [1, 0], [-1, 0]], np.float32)
    assert draw(1, x=x, p=np.full((3, 2), 0.5)).rows.tolist() == [0]


def test_select__greedy_known_answer():
    s = draw(3, greedy=True)
    assert s.rows.tolist() == [1, 2, 4]
    np.testing.assert_allclose(s.gain**2, [2.6136, 3.1296, 0.925], rtol=1e-6)
    assert s.reason.ref.tolist() == [-1, 1, 2]


@pytest.mark.slow
def test_select__sequences_follow_the_law():
    from scipy.stats import chisquare

    law = {}
    for second in (0, 2, 3, 4):
        p = SQUARE_DISTANCE[1] / SQUARE_DISTANCE[1].sum()
        left = SQUARE_DISTANCE[[1, second]].min(axis=0)
        for third in np.flatnonzero(left):
            law[1, second, int(third)] = p[second] * left[third] / left.sum()
    counts = Counter(tuple(draw(3, seed=seed).rows.tolist()) for seed in range(3_000))
    assert set(counts) <= set(law)
    assert chisquare([counts[key] for key in law], [3_000 * p for p in law.values()]).pvalue > 1e-4


def test_select__reasons_are_distances_to_the_nearest_earlier_pick():
    s = draw(5, seed=3)
    for i in range(1, 5):
        square = SQUARE_DISTANCE[s.rows[:i], s.rows[i]]
        assert s.reason.ref[i] == s.rows[int(np.argmin(square))]
        assert s.gain[i] ** 2 == pytest.approx(square.min(), rel=1e-5)


def test_select__already_selected_rows_are_no_centres():
    # Rows 5.. repeat the others: were they centres, every distance would be 0.
    x, p = np.concatenate([X, X]), np.concatenate([P, P])
    s = draw(3, x=x, p=p, already=range(5, 10), greedy=True)
    assert s.rows.tolist() == [1, 2, 4]
    assert s.gain.min() > 0


def test_select__certain_rows_are_drawn_uniformly():
    # One row is uncertain; the others have no gradient.
    p = np.eye(2)[np.array([0, 1, 0, 1, 0])]
    p[3] = 0.5
    counts = Counter()
    for seed in range(300):
        s = draw(3, p=p, seed=seed)
        assert s.rows[0] == 3
        counts.update(s.rows[2:].tolist())
    assert set(counts) == {0, 1, 2, 4}
    assert min(counts.values()) > 45


def test_select__the_draw_follows_the_keys_not_the_order():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)).astype(np.float32)
    p = rng.dirichlet(np.ones(3), 60)
    keys, order = rng.permutation(1000)[:60].astype(np.uint64), rng.permutation(60)
    plain = select(["badge"], Pool(vectors=x, probabilities=p, keys=keys), budget=30, seed=3).rows
    permuted = select(
        ["badge"], Pool(vectors=x[order], probabilities=p[order], keys=keys[order]), budget=30, seed=3
    ).rows
    assert keys[plain].tolist() == keys[order][permuted].tolist()


def test_select__one_class_has_no_gradient():
    assert sorted(draw(5, p=np.ones((5, 1))).rows.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("bad", [[0.5, 0.6, 0.1], [-0.1, 0.6, 0.5], [np.nan, 0.5, 0.5]])
def test_select__a_row_that_is_no_distribution_is_named(bad):
    p = P.copy()
    p[2] = bad
    with pytest.raises(InvalidInput, match=r"probabilities.*row 2|probabilities: row 2"):
        draw(2, p=p)


def test_select__needs_and_options():
    with pytest.raises(MissingInput, match="badge needs probabilities"):
        select(["badge"], Pool(vectors=X), budget=1)
    with pytest.raises(InvalidOption, match="badge: greedy must be"):
        draw(1, greedy="yes")
