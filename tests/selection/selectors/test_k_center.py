from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from selection import InvalidBudget, InvalidInput, InvalidOption, MissingInput, Pool, select

LINE = [[0.0], [1.0], [2.0], [10.0], [11.0], [20.0]]
SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
DUPLICATES = [[0.0, 0.0], [0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [0.0, 0.0]]
TWELVE = [
    [18, 12], [13, 17], [11, 15], [16, 4], [1, 6], [5, 17], [18, 0], [9, 16], [2, 15], [2, 9], [16, 6], [6, 5],
]  # fmt: skip


def draw(X, budget, *, already=(), seed=0, allow_short=False, columns=None, **options):
    pool = Pool(vectors=np.array(X, np.float32), already_selected=list(already), columns=columns or {})
    return select([{"k_center": options}], pool, budget=budget, seed=seed, allow_short=allow_short)


def radius(X, rows):
    X = np.asarray(X, float)
    return np.linalg.norm(X[:, None] - X[list(rows)], axis=2).min(axis=1).max()


@pytest.mark.parametrize(
    ("X", "budget", "order", "distances", "left"),
    [
        (LINE, 3, [0, 5, 3], [20, 10], 2),
        (DUPLICATES, 4, [0, 2, 1, 3], [5, 0, 0], 0),
        (SQUARE, 3, [0, 2, 1], [2**0.5, 1], 1),
        (TWELVE, 2, [0, 4], None, 12),
        (TWELVE, 3, [0, 4, 6], None, 11.704699910719626),
        (TWELVE, 4, [0, 4, 6, 5], None, 7.0710678118654755),
    ],
)
def test_select__known_answers(X, budget, order, distances, left):
    s = draw(X, budget, first=0)
    assert s.rows.tolist() == order
    assert radius(X, s.rows) == pytest.approx(left)
    assert np.isnan(s.reason.value[0])
    assert s.reason.ref[0] == -1
    assert s.gain[0] == 0
    if distances is not None:
        assert s.reason.value[1:] == pytest.approx(distances)
        assert s.gain[1:] == pytest.approx(distances)


def test_select__already_selected_rows_are_centres_and_first_is_not_used():
    s = draw(LINE, 2, already=[3, 0], first=5)
    assert s.rows.tolist() == [5, 2]
    assert s.reason.value.tolist() == [10, 2]
    assert s.reason.ref.tolist() == [3, 0]
    assert s.reason.kind.tolist() == ["centre", "centre"]


def test_select__reasons_name_rows_of_the_whole_pool():
    pool = Pool(vectors=np.array([[5.0], *LINE], np.float32), eligible=[False, *[True] * 6], already_selected=[1])
    s = select(["k_center"], pool, budget=2)
    assert s.rows.tolist() == [6, 4]
    assert s.reason.ref.tolist() == [1, 1]


def test_select__zero_stop_ends_where_all_coincide_with_centres():
    with pytest.raises(InvalidBudget, match="found only 2"):
        draw(DUPLICATES, 4, first=0, zero="stop")
    s = draw(DUPLICATES, 4, first=0, zero="stop", allow_short=True)
    assert (s.rows.tolist(), s.exhausted) == ([0, 2], True)


def test_select__farthest_from_mean_begins_there():
    assert draw(LINE, 1, first="farthest_from_mean").rows.tolist() == [5]
    assert draw(SQUARE, 2, first="farthest_from_mean").rows.tolist() == [0, 2]
    weights = {"w": np.array([9.0, 1, 1, 1, 1, 1])}
    assert draw(LINE, 1, first="farthest_from_mean", weights="w", columns=weights).rows.tolist() == [0]


def test_select__random_first_follows_seed_and_covers_the_pool():
    firsts = {int(draw(LINE, 1, seed=seed).rows[0]) for seed in range(60)}
    assert firsts == set(range(6))


def test_select__random_first_follows_the_keys_not_the_order():
    X = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    keys = np.arange(100, 130, dtype=np.uint64)
    back = np.arange(30)[::-1]
    plain = select(["k_center"], Pool(vectors=X, keys=keys), budget=12, seed=3).rows
    permuted = select(["k_center"], Pool(vectors=X[back], keys=keys[back]), budget=12, seed=3).rows
    assert keys[plain].tolist() == keys[back][permuted].tolist()


def test_select__weights_multiply_distances():
    weights = {"w": np.array([1, 1, 1, 1, 3.0, 1])}
    s = draw(LINE, 2, first=0, weights="w", columns=weights)
    assert s.rows.tolist() == [0, 4]
    assert s.gain.tolist() == [0, 33]


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_select__a_weight_out_of_range_is_named(bad):
    with pytest.raises(InvalidInput, match=r"'w'.*row 2"):
        draw(LINE, 2, weights="w", columns={"w": np.array([1, 1, bad, 1, 1, 1])})


def test_select__weights_that_are_no_numbers_or_not_there():
    with pytest.raises(InvalidInput, match="must be numbers"):
        draw(LINE, 2, weights="w", columns={"w": np.array(list("abcdef"))})
    with pytest.raises(MissingInput, match="column 'w'"):
        draw(LINE, 2, weights="w")


def test_select__outlier_quantile_passes_over_the_farthest():
    # One of six is passed over at each pick: 20 from first to last, and at the end it is all there is.
    s = draw(LINE, 6, first=0, outlier_quantile=1 / 6)
    assert s.rows.tolist() == [0, 4, 2, 1, 3, 5]
    assert s.reason.value[1:].tolist() == [11, 2, 1, 1, 9]


def test_select__outlier_quantile_is_counted_as_it_is_written():
    pool = Pool(vectors=np.arange(100, dtype=np.float32)[:, None])
    # 29 of 100 are passed over, 99 down to 71; in floats 0.29 * 100 is less than 29.
    assert select([{"k_center": {"first": 0, "outlier_quantile": 0.29}}], pool, budget=2).rows.tolist() == [0, 70]


@pytest.mark.parametrize(
    "options",
    [
        {"first": "middle"}, {"first": {"id": 3}}, {"first": {"ids": "a"}}, {"first": -1}, {"first": True}, {"first": 1.5}, {"weights": ""}, {"weights": 3},
        {"outlier_quantile": 1}, {"outlier_quantile": -0.1}, {"outlier_quantile": float("nan")}, {"zero": "no"},
    ],
)  # fmt: skip
def test_options__out_of_range_is_an_error(options):
    with pytest.raises(InvalidOption, match=f"k_center: {next(iter(options))} must be"):
        draw(LINE, 2, **options)


@pytest.mark.parametrize("first", [6, 100])
def test_select__a_first_row_that_is_no_candidate_is_an_error(first):
    with pytest.raises(InvalidOption, match="first must be a candidate"):
        draw(LINE, 2, first=first)


@pytest.mark.parametrize("step", ["k_center", "kmeans_pp"])
@pytest.mark.parametrize(
    "changes",
    [
        {"eligible": [False, True, False, True, True, True]},
        {"columns": {"keep": np.array([0, 1, 0, 1, 1, 1])}},  # and a filter
        {"eligible": [True, True, False, True, True, True], "columns": {"keep": np.array([0, 1, 1, 1, 1, 1])}},
    ],
)
def test_select__first_is_a_row_of_the_pool_whatever_the_step_sees(step, changes):
    steps = [{step: {"first": 4}}]
    if "columns" in changes:
        steps = [{"column": {"field": "keep"}}, {"keep_top": {"times": 2}}, *steps]
    pool = Pool(vectors=np.array(LINE, np.float32), **changes)
    assert select(steps, pool, budget=2).rows[0] == 4
    with pytest.raises(InvalidOption, match=r"row [02] of the pool is not among the [45] rows that this step chooses"):
        select([*steps[:-1], {step: {"first": 2 if "eligible" in changes else 0}}], pool, budget=2)


def test_select__first_in_a_part_of_a_pool_is_a_row_of_what_was_given():
    pool = Pool(vectors=np.array(LINE, np.float32)).take(np.array([1, 3, 5]))
    assert select([{"k_center": {"first": 1}}], pool, budget=1).rows.tolist() == [1]
    groups = np.array(["a", "a", "a", "b", "b", "b"])
    pool = Pool(vectors=np.array(LINE, np.float32), groups=groups, eligible=groups == "b")
    assert 4 in select([{"stratified": {"within": {"k_center": {"first": 4}}}}], pool, budget=1).rows


@pytest.mark.parametrize("step", ["k_center", "kmeans_pp"])
def test_select__version_1_counts_first_among_the_rows_at_hand(step):
    pool = Pool(vectors=np.array(LINE, np.float32), eligible=[False, True, True, True, True, True])
    assert select([{step: {"first": 0, "version": 1}}], pool, budget=1).rows.tolist() == [1]


def test_select__an_id_is_for_recipes():
    with pytest.raises(InvalidOption, match="only a recipe knows ids"):
        draw(LINE, 2, first={"id": "a"})


vectors = hnp.arrays(np.float32, st.tuples(st.integers(2, 12), st.integers(1, 3)), elements=st.integers(-8, 8))


@settings(max_examples=60)
@given(vectors, st.integers(1, 4), st.sampled_from(["random", "farthest_from_mean", 0]))
def test_select__radius_is_at_most_twice_the_best(X, budget, first):
    budget = min(budget, len(X))
    rows = draw(X, budget, first=first).rows
    best = min(radius(X, subset) for subset in combinations(range(len(X)), budget))
    assert radius(X, rows) <= 2 * best + 1e-9


@settings(max_examples=60)
@given(vectors, st.integers(0, 3), st.sampled_from([0.0, 0.2]), st.integers(0, 99))
def test_select__nested_incremental_and_gains_do_not_rise(X, seed, quantile, split):
    n = len(X)
    whole = draw(X, n, seed=seed, outlier_quantile=quantile)
    some = 1 + split % n
    part = draw(X, some, seed=seed, outlier_quantile=quantile)
    assert part.rows.tolist() == whole.rows[:some].tolist()
    if some < n:
        rest = draw(X, n - some, already=part.rows, seed=seed, outlier_quantile=quantile)
        assert rest.rows.tolist() == whole.rows[some:].tolist()
        if not quantile:
            left = np.linalg.norm(X[:, None].astype(float) - X[part.rows], axis=2).min(axis=1).max()
            assert rest.gain[0] == pytest.approx(left)
    if not quantile:
        assert (np.diff(whole.gain[1:]) <= 0).all()


def test_select__one_row():
    assert draw([[1.0]], 1).rows.tolist() == [0]
