from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, build_step, select
from selection.filters.anchors import Anchors, best_of_each_class
from selection.filters.seals import Seals
from selection.kernels.anchor_search import nearest_of, row_scores
from selection.kernels.ranking import highest
from tests.quick import quick_first
from tests.selection.filters.retrieval_cases import LABELLED, LABELS, POOL, circle, clustered, naive, on_circle

RNG = np.random.default_rng([0, 0, 0, 1])


@pytest.mark.parametrize(
    ("aggregation", "scores", "kept"),
    [
        (
            "mean_hits",
            [0.9810602622, 0.9834581082, 0.9466579708, 0.8660254038, 0.9876883406, 0.984807753],
            [4, 5, 1, 0],
        ),
        ("max", [0.9961946981, 0.9925461516, 0.9945218954, 0.8660254038, 0.9876883406, 0.984807753], [0, 2, 1, 4]),
        ("mean_all", [0.683092089, 0.7306224236, 0.7772290295, 0.710689949, 0.5429774753, 0.328269251], [2, 1, 3, 0]),
    ],
)
def test_row_scores__known_answers(aggregation, scores, kept):
    pool = circle()
    neighbors = nearest_of(pool.get_vectors(), np.array([8, 9, 10]), 3, pool.candidates)
    assert neighbors.row.tolist() == [0, 1, 2, 2, 1, 0, 4, 5, 3]
    assert neighbors.anchor.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    rows, score, _ = row_scores(neighbors, aggregation, pool.get_vectors())
    assert rows.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(score, scores, atol=1e-7)
    assert rows[highest(score, 4)].tolist() == kept
    step = Anchors(n_neighbors=3, rows=4, aggregation=aggregation, balanced=False)
    assert step.keep(pool, 1, rng=RNG).tolist() == kept


@pytest.mark.parametrize("aggregation", ["mean_hits", "max", "mean_all"])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("choose", ["kmeans_pp", "random", "all"])
@pytest.mark.parametrize("rows", quick_first(1, [40, 7, 200]))
def test_keep__is_the_definition(aggregation, balanced, choose, rows):
    pool = clustered()
    step = Anchors(n_anchors=5, n_neighbors=9, rows=rows, aggregation=aggregation, balanced=balanced, choose=choose)
    anchors = step.anchors(pool, rng=np.random.default_rng([0, 0, 0, 1]))
    kept = step.keep(pool, 1, rng=np.random.default_rng([0, 0, 0, 1]))
    assert len(kept) <= rows
    assert kept.tolist() == naive(pool, anchors.tolist(), 9, rows, aggregation, balanced) or not balanced
    assert sorted(kept.tolist()) == sorted(naive(pool, anchors.tolist(), 9, rows, aggregation, balanced))


@pytest.mark.parametrize("step", [Anchors(rows=100), Seals(), Seals(rows=100)], ids=str)
def test_keep__labelled_rows_are_not_found_although_they_are_candidates(step):
    pool = clustered()
    free = Pool(vectors=pool.vectors, labels=pool.labels, keys=pool.keys)
    kept = step.keep(free, 1, rng=np.random.default_rng([0, 0, 0, 1]))
    assert len(kept)
    assert (free.get_labels()[kept] < 0).all()


def test_anchors__so_many_of_each_class_and_all_of_a_small_one():
    pool = clustered(labelled=60)
    labels = pool.get_labels().copy()
    labels[np.flatnonzero(labels == 2)[3:]] = 0
    pool = Pool(vectors=pool.vectors, labels=labels, keys=pool.keys)
    for choose in ("kmeans_pp", "random"):
        anchors = Anchors(n_anchors=5, choose=choose).anchors(pool, rng=RNG)
        assert len(set(anchors.tolist())) == len(anchors)
        assert Counter(labels[anchors].tolist()) == {0: 5, 1: 5, 2: 3}
    every = Anchors(n_anchors=5, choose="all").anchors(pool, rng=RNG)
    assert sorted(every.tolist()) == np.flatnonzero(labels >= 0).tolist()


@pytest.mark.slow
def test_anchors__follow_the_law_of_kmeans_pp():
    # The conditional law of the second and third anchor, given the first two of the known answer.
    x = np.array([[0, 0], [1, 0], [0, 1], [5, 5], [5, 6], [10, 0]], np.float32)
    second = [0.0056497175, 0.0, 0.011299435, 0.2316384181, 0.2937853107, 0.4576271186]
    third = [0.0153846154, 0.0, 0.0307692308, 0.0153846154, 0.0, 0.9384615385]
    pool = Pool(vectors=x, labels=np.zeros(6, np.int64))
    after_one, after_two = Counter(), Counter()
    for seed in range(3000):
        picked = Anchors(n_anchors=3).anchors(pool, rng=np.random.default_rng([seed, 0, 0, 1])).tolist()
        if picked[0] == 1:
            after_one[picked[1]] += 1
            if picked[1] == 4:
                after_two[picked[2]] += 1
    for counts, law in ((after_one, second), (after_two, third)):
        total = sum(counts.values())
        assert total > 100
        for row, p in enumerate(law):
            assert abs(counts[row] - total * p) <= 4 * np.sqrt(total * p * (1 - p)) + (0 if p == 0 else 1)


def test_keep__a_large_class_cannot_fill_the_subpool():
    pool = circle(pool=[*range(1, 31), 88, 92], labelled=[0, 5, 10, 15, 20, 90], labels=[0, 0, 0, 0, 0, 1])
    of_minority = [30, 31]
    kept = Anchors(n_neighbors=10, rows=6, aggregation="max").keep(pool, 1, rng=RNG)
    assert set(of_minority) < set(kept.tolist())
    assert len(kept) == 6
    unequal = Anchors(n_neighbors=10, rows=6, aggregation="mean_all", balanced=False).keep(pool, 1, rng=RNG)
    assert not set(of_minority) & set(unequal.tolist())


def test_keep__new_anchors_every_round():
    pool = clustered(labelled=100)
    steps = [Anchors(n_anchors=2, n_neighbors=5, rows=30), "random"]
    rounds = [select(steps, pool, budget=10, round=r).rows.tolist() for r in (0, 0, 1)]
    assert rounds[0] == rounds[1] != rounds[2]


def test_keep__without_labels_rows_at_random():
    pool = clustered(labelled=0)
    kept = Anchors(rows=50).keep(pool, 1, rng=np.random.default_rng(1))
    assert len(kept) == 50
    assert (
        kept.tolist()
        == build_step({"random_subpool": {"rows": 50}}).keep(pool, 1, rng=np.random.default_rng(1)).tolist()
    )


def test_keep__a_small_pool_stays_whole():
    pool = circle()
    assert Anchors(rows=8, n_neighbors=1).keep(pool, 1, rng=RNG).tolist() == list(range(8))
    assert Seals(rows=8, n_neighbors=1).keep(pool, 1, rng=RNG).tolist() == list(range(8))


def test_select__what_found_each_row_is_told():
    eligible = np.arange(11) != 3
    pool = Pool(
        vectors=on_circle(POOL + LABELLED),
        labels=np.array([-1] * 8 + LABELS),
        already_selected=[8, 9, 10],
        eligible=eligible,
    )
    for step in (Anchors(n_neighbors=2, rows=5), Seals(n_neighbors=2)):
        picked = select([step, {"random_subpool": {"rows": 4}}, "random"], pool, budget=3)
        (retrieved,) = picked.retrieved
        assert retrieved.step == step.name
        assert retrieved.rows.tolist() == picked.rows.tolist()
        assert set(retrieved.reason.kind) == {"anchor"}
        by = dict(zip(retrieved.rows.tolist(), retrieved.reason.ref.tolist(), strict=True))
        assert by.items() <= {0: 8, 1: 9, 2: 9, 4: 10, 5: 10}.items()
        angle = np.deg2rad(np.array(POOL + LABELLED))
        np.testing.assert_allclose(
            retrieved.reason.value, np.cos(angle[retrieved.rows] - angle[retrieved.reason.ref]), atol=1e-6
        )
    assert picked.reason.kind[0] == "draw"
    assert select([Anchors(), "random"], pool, budget=3).retrieved == ()  # nothing was searched: the whole pool stays


def test_best_of_each__ties_to_the_lowest_class_and_row():
    kept = best_of_each_class(np.array([3, 5, 8, 9]), np.ones(4), np.array([7, 2, 7, 2]), 3)
    assert kept.tolist() == [5, 9, 3]


def test_steps__a_vector_of_an_anchor_that_is_not_finite_is_named():
    x = on_circle(POOL + LABELLED)
    x[9] = np.nan
    labels = np.array([-1] * 8 + LABELS)
    for step in (Anchors(rows=4), Seals()):
        with pytest.raises(InvalidInput, match="row 9"):
            select([step, "random"], Pool(vectors=x, labels=labels, already_selected=[8, 9, 10]), budget=2)


def test_steps__need_labels():
    for name in ("anchors", "seals"):
        with pytest.raises(MissingInput, match=f"{name} needs labels"):
            select([name, "random"], Pool(vectors=on_circle(POOL)), budget=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_anchors": 0}, "anchors: n_anchors must be an integer >= 1, got 0"),
        ({"n_neighbors": 1.5}, "n_neighbors must be an integer"),
        ({"rows": None}, "rows must be an integer"),
        ({"aggregation": "mean"}, "aggregation must be one of mean_hits, max, mean_all, got 'mean'"),
        ({"choose": "entropy"}, "choose must be one of kmeans_pp, random, all, got 'entropy'"),
        ({"balanced": 1}, "balanced must be true or false, got 1"),
        ({"local_trials": 0}, "local_trials must be"),
    ],
)
def test_options__out_of_range_are_refused(options, message):
    with pytest.raises(InvalidOption, match=message):
        build_step({"anchors": options})
    with pytest.raises(InvalidOption, match="seals: rows must be an integer >= 1, got 0"):
        build_step({"seals": {"rows": 0}})
