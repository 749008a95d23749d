from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selection import InvalidOption, MissingInput, Pool, select

LINE = np.array([[0.0], [1.0], [4.0], [9.0]], np.float32)


def draw(X, budget, *, already=(), seed=0, keys=None, columns=None, **options):
    pool = Pool(vectors=np.asarray(X, np.float32), already_selected=list(already), keys=keys, columns=columns or {})
    return select([{"kmeans_pp": options}], pool, budget=budget, seed=seed)


def test_select__first_pick_is_uniform_and_has_no_reason():
    counts = Counter()
    for seed in range(200):
        s = draw(LINE, 1, seed=seed)
        counts[int(s.rows[0])] += 1
        assert s.reason.ref.tolist() == [-1]
        assert np.isnan(s.reason.value[0])
        assert s.gain.tolist() == [0]
    assert min(counts[i] for i in range(4)) > 25


def test_select__second_pick_follows_the_squared_distance():
    # After row 0 the masses are 1, 16 and 81.
    counts = Counter(int(draw(LINE, 2, first=0, seed=seed).rows[1]) for seed in range(500))
    assert counts[3] == pytest.approx(500 * 81 / 98, abs=40)
    assert counts[2] == pytest.approx(500 * 16 / 98, abs=40)


def test_select__reason_is_the_nearest_earlier_centre():
    s = draw(LINE, 3, already=[2], seed=1)
    seen = [2]
    for row, ref, value, gain in zip(s.rows, s.reason.ref, s.reason.value, s.gain, strict=True):
        distances = np.abs(LINE[seen, 0] - LINE[row, 0])
        assert (ref, value, gain) == (seen[int(np.argmin(distances))], distances.min(), distances.min())
        seen.append(int(row))
    assert set(s.reason.kind) == {"centre"}


def test_select__already_selected_rows_are_never_taken_again():
    X = np.repeat([[0.0], [1.0]], 10, axis=0)
    s = draw(X, 15, already=[0, 3, 11], seed=5)
    assert len(set(s.rows.tolist())) == 15
    assert not {0, 3, 11} & set(s.rows.tolist())


def test_select__identical_rows_are_drawn_uniformly():
    counts = Counter(int(draw(np.ones((5, 2)), 2, first=4, seed=seed).rows[1]) for seed in range(400))
    assert set(counts) == {0, 1, 2, 3}
    assert min(counts.values()) > 60


def test_select__the_draw_follows_the_keys_not_the_order():
    X = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    keys = np.random.default_rng(1).permutation(1000)[:60].astype(np.uint64)
    order = np.random.default_rng(2).permutation(60)
    plain = draw(X, 30, keys=keys, seed=3).rows
    permuted = draw(X[order], 30, keys=keys[order], seed=3).rows
    assert keys[plain].tolist() == keys[order][permuted].tolist()


def test_select__local_trials_lower_the_cost():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 8))[rng.integers(30, size=600)] + 0.2 * rng.standard_normal((600, 8))

    def cost(rows):
        return (((X[:, None] - X[rows]) ** 2).sum(axis=2).min(axis=1)).sum()

    plain = np.mean([cost(draw(X, 20, seed=seed).rows) for seed in range(15)])
    greedy = np.mean([cost(draw(X, 20, seed=seed, local_trials=5).rows) for seed in range(15)])
    assert greedy < 0.95 * plain


@pytest.mark.slow
def test_select__weights_multiply_squared_distances_and_the_first_draw():
    # After row 0 the masses are 1 * 81, 16 * 1 and 81 * 0.
    columns = {"w": np.array([0, 81, 1, 0.0])}
    counts = Counter(int(draw(LINE, 2, first=0, seed=s, columns=columns, weights="w").rows[1]) for s in range(500))
    assert set(counts) == {1, 2}
    assert counts[1] == pytest.approx(500 * 81 / 97, abs=40)
    firsts = Counter(int(draw(LINE, 1, seed=s, columns=columns, weights="w").rows[0]) for s in range(500))
    assert set(firsts) <= {1, 2}
    assert firsts[2] == pytest.approx(500 / 82, abs=8)
    nothing = {"w": np.zeros(4)}
    assert {int(draw(LINE, 1, seed=s, columns=nothing, weights="w").rows[0]) for s in range(60)} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "options",
    [
        {"weights": ""},
        {"first": "farthest_from_mean"},
        {"first": -2},
        {"local_trials": 0},
        {"local_trials": 1.5},
        {"max_rejects": 0},
    ],
)
def test_options__out_of_range_is_an_error(options):
    with pytest.raises(InvalidOption, match=f"kmeans_pp: {next(iter(options))} must be"):
        draw(LINE, 2, **options)


def test_select__a_first_row_that_is_no_candidate_is_an_error():
    with pytest.raises(InvalidOption, match="first must be a candidate"):
        draw(LINE, 2, first=4)


def test_select__needs_vectors():
    with pytest.raises(MissingInput, match="kmeans_pp needs vectors"):
        select(["kmeans_pp"], Pool(scores=np.ones(3)), budget=1)
