from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select

P = np.array([[0.9, 0.05, 0.05], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.34, 0.33, 0.33], [0.5, 0.5, 0]])


def draw(p, budget, *, already=(), seed=0, **options):
    pool = Pool(probabilities=p, already_selected=list(already))
    return select([{"pcoreset": options}], pool, budget=budget, seed=seed)


def test_select__known_answer():
    s = draw(P, 3, already=[0])
    assert s.rows.tolist() == [2, 3, 4]
    np.testing.assert_allclose(s.gain, [1.09772492, 0.9899494937, 0.5756735186], rtol=1e-6)
    assert s.reason.ref.tolist() == [0, 2, 2]
    left = np.linalg.norm(P[:, None] - P[[0, 2, 3, 4]], axis=2).min(axis=1).max()
    assert left == pytest.approx(0.4042276586)
    assert draw(P, 4, already=[0]).gain[3] == pytest.approx(left)


def test_select__equals_the_published_loop():
    p = np.random.default_rng(0).dirichlet(np.full(5, 0.5), 200).astype(np.float32)
    taken = [3, 77]
    for _ in range(30):  # all distances anew for each pick
        distance = np.linalg.norm(p[:, None].astype(float) - p[taken], axis=2).min(axis=1)
        distance[taken] = -1
        taken.append(int(np.argmax(distance)))
    assert draw(p, 30, already=[3, 77]).rows.tolist() == taken[2:]


def test_select__first_without_anything_selected():
    assert draw(P, 1, first="farthest_from_mean").rows.tolist() == [3]
    assert draw(P, 1, first=4).rows.tolist() == [4]
    assert {int(draw(P, 1, seed=seed).rows[0]) for seed in range(60)} == set(range(6))


def test_select__zero_stop_ends_where_all_are_predicted_alike():
    pool = Pool(probabilities=P[[0, 2, 0, 2, 2]])
    selection = select([{"pcoreset": {"first": 0, "zero": "stop"}}], pool, budget=4, allow_short=True)
    assert (selection.rows.tolist(), selection.exhausted) == ([0, 1], True)


def test_select__a_row_that_is_no_distribution_is_named():
    p = P.copy()
    p[3] = [0.2, 0.2, 0.2]
    with pytest.raises(InvalidInput, match=r"row 3 sums to 0\.6"):
        draw(p, 2)


def test_select__needs_and_options():
    with pytest.raises(MissingInput, match="pcoreset needs probabilities"):
        select(["pcoreset"], Pool(vectors=np.eye(3)), budget=1)
    with pytest.raises(InvalidOption, match="pcoreset: zero must be"):
        draw(P, 1, zero="no")
