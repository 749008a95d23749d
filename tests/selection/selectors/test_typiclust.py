from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.selectors.typiclust import TypiClust
from selection.vectors import ArrayVectors

X = np.array(
    [
        [0, 0], [0.1, 0], [0, 0.2], [0.3, 0.3], [5, 5], [5.2, 5], [5, 5.5], [9, 0], [9.3, 0], [9, 0.4], [9.1, 0.1]
    ],
    np.float32,
)  # fmt: skip
CLUSTERS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
TYPICALITY = {
    False: {4: 2.85706123, 5: 2.70805851, 6: 1.92578695, 7: 3.56526848, 8: 2.930727, 9: 2.4665824, 10: 4.40343755},
    True: {4: 6.89607613, 5: 6.06023877, 6: 3.70356653, 7: 11.10987668, 8: 7.69171602, 9: 5.88200694, 10: 17.64394519},
}


def draw(budget, *, clusters=CLUSTERS, x=X, already=(), **options):
    return TypiClust(**options).draw(Pool(vectors=x, already_selected=list(already)), budget, np.asarray(clusters))


@pytest.mark.parametrize("squared", [False, True])
def test_draw__known_answer(squared):
    s = draw(3, already=[0], min_size=2, squared=squared)
    assert s.rows.tolist() == [10, 4, 1]
    assert s.reason.ref.tolist() == [2, 1, 0]
    assert s.reason.rank.tolist() == [0, 0, 0]
    assert s.reason.text() == ["2", "1", "0"]
    # Of three rows one mate counts: row 4 is 0.2 from row 5, which ties with it.
    assert s.gain[1] == pytest.approx(1 / (0.2 ** (1 + squared) + 1e-5), rel=1e-5)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("cluster", "rows"), [(1, [4, 5, 6]), (2, [7, 8, 9, 10])])
def test_typicality__known_answers_of_all_mates(cluster, rows, squared):
    from selection.kernels.typicality import most_typical

    assert (CLUSTERS[rows] == cluster).all()
    place, mean = most_typical(X[rows], len(rows) - 1, squared=squared)
    known = [TYPICALITY[squared][row] for row in rows]
    assert place == int(np.argmax(known))
    assert 1 / (mean + 1e-5) == pytest.approx(max(known), rel=1e-6)


def naive(x, clusters, already, budget, *, k, min_size):
    """The authors' loop, with Euclidean distances."""
    labels = np.array(clusters)
    size = np.bincount(labels)
    before = np.bincount(labels[already], minlength=len(size)) if len(already) else np.zeros(len(size))
    order = [c for c in sorted(range(len(size)), key=lambda c: (before[c], -size[c], c)) if size[c] > min_size]
    labels[already] = -1
    picks = []
    for i in range(budget):
        rows = np.flatnonzero(labels == order[i % len(order)])
        distance = np.linalg.norm(x[rows][:, None].astype(float) - x[rows], axis=2)
        near = np.sort(distance, axis=1)[:, 1 : min(k, len(rows) // 2) + 1]
        picks.append(int(rows[np.argmax(1 / (near.mean(axis=1) + 1e-5))]))
        labels[picks[-1]] = -1
    return picks


@pytest.mark.parametrize(("k", "min_size", "budget"), [(20, 5, 8), (3, 5, 25), (5, 20, 40)])
def test_draw__equals_the_authors_loop(k, min_size, budget):
    rng = np.random.default_rng(k)
    clusters = np.sort(rng.choice(9, 400, p=[0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.06, 0.03, 0.01]))
    x = (rng.standard_normal((9, 6))[clusters] + 0.4 * rng.standard_normal((400, 6))).astype(np.float32)
    already = [0, 3, 200]
    s = draw(budget, clusters=clusters, x=x, already=already, n_neighbors=k, min_size=min_size)
    assert s.rows.tolist() == naive(x, clusters, already, budget, k=k, min_size=min_size)


def test_draw__small_clusters_wait_until_the_larger_are_used_up_and_zero_vectors_come_last():
    s = draw(11, clusters=[0, 0, 0, 0, 0, 0, 1, 1, 1, -1, -1])
    assert s.reason.ref.tolist() == [0] * 6 + [1] * 3 + [2] * 2
    assert s.reason.rank.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1]
    assert s.reason.text()[-1] == "none"
    assert sorted(s.rows.tolist()) == list(range(11))
    assert s.gain[5] == 0  # no mate is left


def pool_of(n=600, seed=0, **inputs):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((12, 8))[rng.integers(12, size=n)] + 0.3 * rng.standard_normal((n, 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Pool(vectors=x, **inputs)


def test_select__as_many_clusters_as_selected_rows_and_picks():
    s = select(["typiclust"], pool_of(already_selected=[5, 80]), budget=9)
    assert len(s.reason.names) == 12  # 2 + 9, and none
    assert len(set(s.reason.ref.tolist())) == 9
    assert len(select([{"typiclust": {"max_clusters": 4}}], pool_of(), budget=9).reason.names) == 5


def test_select__what_is_covered_waits():
    # One row of each of two clear clusters is selected, so the third comes first.
    x = np.repeat(np.eye(3), 10, axis=0).astype(np.float32)
    s = select(["typiclust"], Pool(vectors=x, already_selected=[0, 10]), budget=1)
    assert s.rows[0] >= 20


def test_select__order_of_the_pool_and_blocks_change_nothing():
    keys = np.random.default_rng(3).permutation(5000)[:600].astype(np.uint64)
    pool = pool_of(keys=keys)
    x = pool.get_vectors().take(np.arange(600))
    expected = select(["typiclust"], pool, budget=30, seed=2)
    order = np.random.default_rng(4).permutation(600)
    vectors = ArrayVectors(x[order], block_rows=17)
    got = select(["typiclust"], Pool(vectors=vectors, keys=keys[order]), budget=30, seed=2)
    assert order[got.rows].tolist() == expected.rows.tolist()
    assert got.gain.tolist() == expected.gain.tolist()
    assert got.reason.ref.tolist() == expected.reason.ref.tolist()


def test_select__picks_are_typical():
    pool = pool_of(2000)
    x = pool.get_vectors().take(np.arange(2000))
    rows = select(["typiclust"], pool, budget=12).rows

    def density(rows):
        return np.sort(np.linalg.norm(x[rows][:, None] - x, axis=2), axis=1)[:, 1:21].mean()

    assert density(rows) < 0.8 * density(np.arange(2000))


def test_select__a_vector_that_is_not_finite_is_named():
    x = np.ones((50, 3), np.float32)
    x[31, 1] = np.nan
    with pytest.raises(InvalidInput, match="row 31"):
        select(["typiclust"], Pool(vectors=x), budget=3)


def test_select__needs_and_options():
    with pytest.raises(MissingInput, match="typiclust needs vectors"):
        select(["typiclust"], Pool(scores=np.ones(3)), budget=1)


@pytest.mark.parametrize("options", [{"n_neighbors": 0}, {"min_size": -1}, {"max_clusters": 0}, {"squared": 1}])
def test_options__out_of_range_is_an_error(options):
    with pytest.raises(InvalidOption, match=f"typiclust: {next(iter(options))} must be"):
        TypiClust(**options)
