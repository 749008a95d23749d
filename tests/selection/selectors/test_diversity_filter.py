from __future__ import annotations

import math

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.kernels import diversity
from tests.quick import quick_first

DEGREES = [0, 10, 40, 20, 90, 95]
SCORES = [12, 15, 12, 16, 2, 4]


def circle(degrees):
    return np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees], np.float32)


def draw(X, scores, budget, *, already=(), allow_short=True, **options):
    pool = Pool(vectors=np.asarray(X), scores=np.asarray(scores), already_selected=list(already))
    return select([{"diversity_filter": options}], pool, budget=budget, allow_short=allow_short)


def naive(X, scores, budget, tau, already=()):
    """Row by row in plain Python; exact where the values are whole numbers."""
    X = [[float(value) for value in row] for row in X]
    norms = [math.sqrt(math.fsum(v * v for v in x)) for x in X]

    def cosine(a, b):
        size = norms[a] * norms[b]
        return min(1.0, max(-1.0, math.fsum(p * q for p, q in zip(X[a], X[b], strict=True)) / size)) if size else 0.0

    picks = []
    for row in sorted(set(range(len(X))) - set(already), key=lambda r: (-scores[r], r)):
        near = min(((-cosine(row, k), k) for k in [*already, *(p[0] for p in picks)]), default=(-math.nan, -1))
        if len(picks) < budget and not -near[0] > tau:
            picks.append((row, -near[0], near[1]))
    return picks


def test_select__known_answer_of_deita():
    s = draw(circle(DEGREES), SCORES, 6)
    assert s.rows.tolist() == [3, 5]
    assert s.gain.tolist() == [16, 4]
    assert s.reason.kind.tolist() == ["neighbour", "neighbour"]
    assert s.reason.ref.tolist() == [-1, 3]
    assert s.reason.value[1:] == pytest.approx([math.cos(math.radians(75))])
    assert np.isnan(s.reason.value[0])
    assert s.exhausted
    assert draw(circle(DEGREES), SCORES, 6, tau=1).rows.tolist() == [3, 1, 0, 2, 5, 4]  # order: score, then row


def test_select__a_row_that_was_left_out_rules_out_no_other():
    # 20 is too close to 0, and 40 is too close to 20; a batch that compares with its rejected rows loses 40.
    assert draw(circle([90, 0, 20, 40]), [4, 3, 2, 1], 4).rows.tolist() == [0, 1, 3]


def test_select__a_row_at_exactly_tau_is_taken():
    X = [[4, 3], [5, 0], [3, 4]]  # cosines .8, .96 and .6
    assert draw(X, [3, 2, 1], 3, tau=0.8).rows.tolist() == [0, 1]
    assert draw(X, [3, 2, 1], 3, tau=np.nextafter(0.8, 0).item()).rows.tolist() == [0]
    assert draw(X, [1, 3, 2], 3, tau=0.6).rows.tolist() == [1, 2]


def test_select__already_selected_rows_count_as_taken():
    s = draw(circle(DEGREES), SCORES, 6, already=[2])
    assert s.rows.tolist() == [1, 5]
    assert s.reason.ref.tolist() == [2, 2]


def test_select__what_the_pool_cannot_give_is_an_error():
    with pytest.raises(InvalidBudget, match="diversity_filter found only 2 rows for a budget of 3; allow_short takes"):
        draw(circle(DEGREES), SCORES, 3, allow_short=False)
    assert not draw(circle(DEGREES), SCORES, 2, allow_short=False).exhausted


def test_select__zero_vectors_are_similar_to_nothing():
    X = [[0, 0], [1, 0], [0, 0], [1, 0]]
    assert draw(X, [1, 1, 1, 1], 4, tau=0).rows.tolist() == [0, 1, 2]
    assert draw(X, [1, 1, 1, 1], 4, tau=-0.1).rows.tolist() == [0]


def test_select__lengths_do_not_matter():
    X = circle(DEGREES) * np.array([[1e-20], [1e18], [1], [1e-3], [2], [1e15]], np.float32)
    assert draw(X, SCORES, 6).rows.tolist() == [3, 5]


def test_select__a_subpool_names_rows_of_the_whole_pool():
    pool = Pool(vectors=circle([1, *DEGREES]), scores=[99, *SCORES], eligible=[False, *[True] * 6])
    s = select(["diversity_filter"], pool, budget=2)
    assert (s.rows.tolist(), s.reason.ref.tolist()) == ([4, 6], [-1, 4])


def case(seed):
    """Small whole numbers, so that every way of summing gives the same cosines; some rows equal, some zero."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(1, 60)), int(rng.integers(1, 9))
    X = rng.integers(-2, 3, (n, d)).astype(np.float16 if seed % 2 else np.float32)
    X[rng.random(n) < 0.2] = X[0]
    X[rng.random(n) < 0.1] = 0
    X = X * rng.choice([1, 4], (n, 1)).astype(X.dtype)
    already = np.flatnonzero(rng.random(n) < 0.1).tolist() if seed % 3 == 0 else []
    already = already if len(already) < n else []
    # The cosines of such rows, so that pairs at exactly tau occur.
    tau = float(rng.choice([-0.5, 0.0, 0.5, 1 / math.sqrt(2), 0.8, 2 / 3, 1.0]))
    return X, rng.integers(0, 4, n).astype(np.float32), int(rng.integers(1, n + 1)), tau, already


@pytest.mark.parametrize("block_rows", [1, 5, 1024])
@pytest.mark.parametrize("seed", range(80))
def test_select__equals_going_row_by_row(seed, block_rows, monkeypatch):
    monkeypatch.setattr(diversity, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(diversity, "TILE_ROWS", 3 * block_rows)
    X, scores, budget, tau, already = case(seed)
    budget = min(budget, len(X) - len(already))
    picks = naive(X, scores.tolist(), budget, tau, already)
    s = draw(X, scores, budget, tau=tau, already=already)
    assert s.rows.tolist() == [row for row, _, _ in picks]
    assert s.reason.ref.tolist() == [near for _, _, near in picks]
    assert s.reason.value.tolist() == pytest.approx([value for _, value, _ in picks], nan_ok=True)
    assert s.exhausted == (len(picks) < budget)


@pytest.mark.parametrize("seed", quick_first(1, range(3)))
def test_select__many_rows_at_384_dimensions(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 384))[rng.integers(0, 60, 3000)] + rng.uniform(0.1, 1, (3000, 1)) * rng.normal(
        size=(3000, 384)
    )
    X = (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float16)
    scores = rng.integers(0, 50, 3000)
    wide = X.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    kept: list[int] = []
    for row in np.lexsort((np.arange(3000), -scores)):
        if not kept or (wide[kept] @ wide[row]).max() <= 0.7:
            kept.append(int(row))
    assert 200 < len(kept) < 2800
    assert draw(X, scores, 3000, tau=0.7).rows.tolist() == kept
    assert draw(X, scores, 100, tau=0.7).rows.tolist() == kept[:100]


@pytest.mark.parametrize("tau", [1.01, -2, float("nan"), True, "0.9", None])
def test_options__out_of_range_is_an_error(tau):
    with pytest.raises(InvalidOption, match="diversity_filter: tau must be"):
        draw(circle(DEGREES), SCORES, 2, tau=tau)


def test_select__missing_scores_and_values_that_are_not_finite():
    with pytest.raises(MissingInput, match="diversity_filter needs scores"):
        select(["diversity_filter"], Pool(vectors=circle(DEGREES)), budget=1)
    X = circle(DEGREES)
    X[4] = np.nan  # of the lowest score: no pick comes near it
    with pytest.raises(InvalidInput, match="row 4"):
        draw(X, SCORES, 1)
