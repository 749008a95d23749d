from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selection import InvalidInput, InvalidOption, MissingInput, Pool, build_step, select, step_spec

SIX = np.array([[0, 0], [2, 0], [0, 2], [2, 2], [1, 1], [5, 1]], np.float32)


def draw(X, budget, *, already=(), columns=None, **options):
    pool = Pool(vectors=np.array(X, np.float32), already_selected=list(already), columns=columns or {})
    return select([{"herding": options}], pool, budget=budget)


def naive(X, budget, already=(), weights=None):
    """Each pick has the smallest |(t+1) mu - sum of S - x|^2, in fractions."""
    X = [[Fraction(float(v)) for v in x] for x in X]
    weights = [Fraction(float(w)) for w in (np.ones(len(X)) if weights is None else weights)]
    mu = [sum(w * v for w, v in zip(weights, feature, strict=True)) / sum(weights) for feature in zip(*X, strict=True)]
    picked = list(already)
    for _ in range(budget):
        wanted = [(len(picked) + 1) * m - sum(X[i][f] for i in picked) for f, m in enumerate(mu)]
        left = [i for i in range(len(X)) if i not in picked]
        picked.append(min(left, key=lambda i: (sum((p - v) ** 2 for p, v in zip(wanted, X[i], strict=True)), i)))
    return picked[len(already) :]


def test_select__known_answers():
    s = draw(SIX, 4)
    # Rows 1 and 3 tie for the second pick, although 5/3, the mean, is no float.
    assert s.rows.tolist() == [4, 1, 3, 0]
    np.testing.assert_allclose(s.reason.value, [0.6666666667, 0.5270462767, 0, 0.4859126579], rtol=1e-6)
    assert s.reason.value[2] == 0
    assert s.reason.rank.tolist() == [0, 1, 2, 3]


def test_select__the_gain_is_how_much_nearer_the_means_come():
    s = draw(SIX, 6)
    length = np.linalg.norm([5 / 3, 1])
    np.testing.assert_allclose(s.gain, -np.diff([length, *s.reason.value]), atol=1e-6)
    assert s.reason.value[-1] == 0
    assert draw(SIX, 2, already=s.rows[:3]).gain.tolist() == s.gain[3:5].tolist()


vectors = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 14), st.integers(1, 9)), elements=st.sampled_from([-3, -1, 0, 0.125, 1, 2])
)


@settings(max_examples=120)
@given(vectors, st.data())
def test_select__equals_the_definition_in_fractions(X, data):
    n = len(X)
    already = data.draw(st.lists(st.integers(0, n - 1), max_size=n - 1, unique=True))
    weights = data.draw(st.none() | hnp.arrays(np.float64, n, elements=st.sampled_from([0, 1, 3, 0.5])))
    if weights is None or not weights.any():
        assert draw(X, n - len(already), already=already).rows.tolist() == naive(X, n - len(already), already)
    else:
        s = draw(X, n - len(already), already=already, columns={"w": weights}, weights="w")
        assert s.rows.tolist() == naive(X, n - len(already), already, weights)


def test_select__equals_a_plain_loop_on_vectors_of_an_encoder_s_size():
    X = np.random.default_rng(3).standard_normal((3000, 384)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    wide, rows = X.astype(np.float64), []
    for t in range(200):
        wanted = (t + 1) * wide.mean(axis=0) - wide[rows].sum(axis=0)
        square = ((wanted - wide) ** 2).sum(axis=1)
        square[rows] = np.inf
        rows.append(int(square.argmin()))
    assert draw(X, 200).rows.tolist() == rows


def test_select__the_distance_of_the_means_falls_like_one_over_the_number_of_picks():
    X = np.random.default_rng(0).uniform(-1, 1, (5000, 8)).astype(np.float32)
    s = draw(X, 2000)
    t = np.arange(1, 2001)
    assert (t * s.reason.value).max() < np.sqrt(8)  # no more than the longest vector could be
    at_random = np.linalg.norm(X[:2000].mean(axis=0) - X.mean(axis=0))
    assert s.reason.value[-1] < at_random / 20


def test_select__a_permuted_pool_gives_the_same_vectors_though_its_sums_run_in_another_order():
    rng = np.random.default_rng(5)
    X = np.concatenate([v := rng.standard_normal((100, 7)).astype(np.float32), -v])  # mirrored rows tie in truth
    picked = X[draw(X, 60).rows]
    for _ in range(5):
        order = np.concatenate([p := rng.permutation(100), p + 100])
        np.testing.assert_array_equal(X[order][draw(X[order], 60).rows], picked)


def test_select__labelled_rows_that_a_filter_keeps_are_not_matched():
    X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    X[:10] += 50
    labels = np.where(np.arange(40) < 10, 1, -1)
    pool = {"columns": {"n": np.arange(40.0)}, "labels": labels}
    steps = [{"column": {"field": "n"}}, {"keep_top": {"times": 6}}, "herding"]
    s = select(steps, Pool(vectors=X, **pool), budget=5)
    assert s.rows.tolist() == (10 + draw(X[10:], 5).rows).tolist()
    X[3] = np.nan
    assert select(steps, Pool(vectors=X, **pool), budget=5).rows.tolist() == s.rows.tolist()


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_select__a_bad_weight_is_named(bad):
    with pytest.raises(InvalidInput, match=r"'w'.*row 2"):
        draw(SIX, 2, weights="w", columns={"w": np.array([1, 1, bad, 1, 1, 1])})


def test_select__refuses_bad_input():
    with pytest.raises(InvalidInput, match="every weight is 0"):
        draw(SIX, 2, weights="w", columns={"w": np.zeros(6)})
    with pytest.raises(InvalidInput, match="must be numeric"):
        draw(SIX, 2, weights="w", columns={"w": np.array(list("abcdef"))})
    with pytest.raises(MissingInput, match="column 'w'"):
        draw(SIX, 2, weights="w")
    with pytest.raises(MissingInput, match="vectors"):
        select(["herding"], Pool(scores=np.ones(3)), budget=1)
    with pytest.raises(InvalidOption, match="herding: weights must be a name"):
        draw(SIX, 2, weights="")
    with pytest.raises(InvalidInput, match="row 4"):
        draw(np.where(np.arange(6)[:, None] == 4, np.nan, SIX), 2)


def test_options__round_trip():
    step = build_step({"herding": {"weights": "quality"}})
    assert build_step(step_spec(step)) == step
    assert step.columns == {"quality"}
