from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from selection import InvalidOption, MissingInput, Pool, Selection, build_step, select
from selection.kernels.graph_greedy import vote_k
from selection.kernels.neighbor_graph import nearest_neighbours
from selection.selectors.vote_k import VoteK, equal_buckets

NONE = np.empty(0, np.int64)
NINE = np.array(
    [
        [1.05, 1.78, -2.55],
        [-0.14, 1.01, 1.35],
        [0.65, 1.5, 0.29],
        [0.55, 0.18, -1.07],
        [-0.85, 0.38, -0.58],
        [1.27, 1.29, 1.8],
        [-0.03, 1.38, -0.91],
        [-0.82, 0.08, 0.28],
        [-1.6, -1.73, 0.36],
    ],
    np.float32,
)


def on_circle(degrees: list[float]) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def literal(x: np.ndarray, k: int, budget: int, *, rho: float = 10.0, taken: tuple[int, ...] = ()) -> list[int]:
    """Vote-k as it is published: lists of voters, scores summed anew for every row before every pick."""
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    voters: dict[int, list[int]] = defaultdict(list)
    for i in range(len(x)):
        nearest = np.argsort(-(unit @ unit[i]), kind="stable").tolist()
        nearest.remove(i)
        for j in nearest[:k]:
            voters[j].append(i)
    times: dict[int, int] = defaultdict(int)
    selected: list[int] = []

    def take(row: int) -> None:
        selected.append(row)
        for voter in voters[row]:
            times[voter] += 1

    for row in taken:
        take(row)
    while len(selected) < budget + len(taken):
        scores: dict[int, float] = {}
        for row in range(len(x)):
            if row not in selected:
                scores[row] = sum(rho ** (-times[voter]) for voter in voters[row] if voter not in selected)
        best = max(scores.values())
        tied = [row for row, score in scores.items() if score >= best * (1 - 1e-12)]
        take(max(tied, key=lambda row: (len(voters[row]), -row)))
    return selected[len(taken) :]


def clustered(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(8, d))[rng.integers(0, 8, n)] + rng.normal(size=(n, d))).astype(np.float32)


def run(x: np.ndarray, budget: int, **options: int) -> Selection:
    return select([VoteK(**options)], Pool(vectors=x), budget=budget)


def test_select__rows_on_a_circle() -> None:
    x = on_circle([0, 11, 23, 36, 90, 101, 114, 200])
    assert np.sort(nearest_neighbours(Pool(vectors=x).get_vectors(), 2)).tolist() == [
        [1, 2], [0, 2], [1, 3], [1, 2], [5, 6], [4, 6], [4, 5], [5, 6],
    ]  # fmt: skip
    picked = run(x, 4, n_neighbors=2)
    assert picked.rows.tolist() == [1, 5, 2, 6]  # 2 and 6 tie with 1 and 5: the lowest row
    np.testing.assert_allclose(picked.gain, [3, 3, 0.2, 0.2], rtol=1e-6)


def test_select__no_ties() -> None:
    assert np.sort(nearest_neighbours(Pool(vectors=NINE).get_vectors(), 3)).tolist() == [
        [2, 3, 6], [2, 5, 7], [1, 5, 6], [0, 4, 6], [0, 6, 7], [1, 2, 6], [0, 2, 3], [1, 4, 8], [1, 4, 7],
    ]  # fmt: skip
    picked = run(NINE, 4, n_neighbors=3)
    assert picked.rows.tolist() == [6, 1, 4, 2]
    np.testing.assert_allclose(picked.gain, [5, 2.2, 0.3, 0.11], rtol=1e-6)


def test_vote_k__rows_on_a_line() -> None:
    neighbours = np.array([[1, 2], [0, 2], [1, 3], [2, 1], [5, 6], [4, 6], [5, 4]], np.int32)
    picks, gain = vote_k(neighbours, rho=10, taken=NONE, parts=[np.arange(7)] * 4)
    assert picks.tolist() == [1, 4, 2, 5]
    np.testing.assert_allclose(gain, [3, 2, 0.2, 0.1], rtol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_select__is_the_published_algorithm_pick_for_pick(seed: int) -> None:
    x = clustered(200, 16, seed)
    assert run(x, 60, n_neighbors=12).rows.tolist() == literal(x, 12, 60)
    picked = select([VoteK(n_neighbors=12)], Pool(vectors=x, already_selected=[3, 50, 190]), budget=30)
    assert picked.rows.tolist() == literal(x, 12, 30, taken=(3, 50, 190))


def test_select__a_budget_that_most_votes_were_cut_many_times_for_is_as_published() -> None:
    x = clustered(120, 8, 0)  # the last votes count some 10 ** -35
    graph = nearest_neighbours(Pool(vectors=x).get_vectors(), 40)
    votes = np.zeros((120, 120), np.int64)  # of the row for the column
    np.put_along_axis(votes, graph.astype(np.int64), 1, axis=1)
    selected: list[int] = []
    for _ in range(110):
        times = votes[:, selected].sum(axis=1).tolist()
        weight = np.array([0 if v in selected else 10 ** (40 - times[v]) for v in range(120)], object)
        score = {u: (weight * votes[:, u]).sum() for u in range(120) if u not in selected}
        selected.append(max(score, key=lambda u: (score[u], votes[:, u].sum(), -u)))
    whole = run(x, 110, n_neighbors=40).rows
    assert whole.tolist() == selected
    for first in (20, 64, 100):
        rest = Pool(vectors=x, already_selected=whole[:first])
        assert select([VoteK(n_neighbors=40)], rest, budget=110 - first).rows.tolist() == selected[first:]


@pytest.mark.slow
def test_select__two_thousand_rows_as_published() -> None:
    x = clustered(2000, 64, 0)
    assert run(x, 18).rows.tolist() == literal(x, 150, 18)


def test_select__never_a_row_twice_and_rows_without_votes_last() -> None:
    x = on_circle([0, 11, 23, 36, 90, 101, 114, 200])
    picked = run(x, 8, n_neighbors=2)
    assert sorted(picked.rows.tolist()) == list(range(8))
    assert picked.rows.tolist() == literal(x, 2, 8)
    assert picked.gain[-1] == 0


@pytest.mark.parametrize(
    ("neighbours", "rows"),
    [
        # 4 and 5 tie at 1.1: 5 has three votes, 4 has two
        ([[5, 2], [0, 4], [5, 0], [4, 2], [1, 5], [0, 3]], [0, 5, 4]),
        # 3 and 0 tie at one full vote: 3 has a vote of the selected row 2 as well
        ([[2, -1], [0, 2], [3, -1], [2, -1], [3, 2]], [2, 3, 0]),
        # nobody votes: by row
        ([[-1, -1], [-1, -1], [-1, -1]], [0, 1, 2]),
        # as many votes: by row
        ([[1, 2], [2, 0], [0, 1]], [0, 1, 2]),
    ],
)
def test_vote_k__ties_go_by_votes_then_by_row(neighbours: list, rows: list[int]) -> None:
    graph = np.array(neighbours, np.int32)
    assert vote_k(graph, rho=10, taken=NONE, parts=[np.arange(len(graph))] * 3)[0].tolist() == rows


def test_vote_k__version_1_breaks_ties_by_row() -> None:
    graph = np.array([[5, 2], [0, 4], [5, 0], [4, 2], [1, 5], [0, 3]], np.int32)
    rows, _ = vote_k(graph, rho=10, taken=NONE, parts=[np.arange(6)] * 3, ties_to_votes=False)
    assert rows.tolist() == [0, 4, 2]


def test_vote_k__ten_tenths_tie_with_one() -> None:
    # Row 0 has one full vote, row 11 ten of 1/10, which in floats is less than 1: their voters voted for 12 as well.
    neighbours = np.full((23, 2), -1, np.int32)
    neighbours[22, 0] = 0
    neighbours[1:11] = [12, 11]
    picks, gain = vote_k(neighbours, rho=10, taken=np.array([12]), parts=[np.array([0, 11])])
    assert (picks.tolist(), gain.tolist()) == ([11], [1.0])  # more votes
    by_row = {"rho": 10, "taken": np.array([12]), "ties_to_votes": False}
    picks, gain = vote_k(neighbours, parts=[np.array([11, 0])], **by_row)
    assert (picks.tolist(), gain.tolist()) == ([0], [1.0])
    neighbours[neighbours == 0] = 13  # now the one full vote is for a higher row
    picks, gain = vote_k(neighbours, rho=10, taken=np.array([12]), parts=[np.array([13, 11])])
    assert (picks.tolist(), gain.tolist()) == ([11], [1.0])


def test_equal_buckets__the_least_confident_first_and_the_most_confident_tenth_dropped() -> None:
    confidence = np.array([0.95, 0.1, 0.8, 0.4, 0.3, 0.6, 0.2, 0.7, 0.55, 0.99])
    buckets = equal_buckets(np.arange(10), 1 - confidence, 3)
    assert [part.tolist() for part in buckets] == [[1, 6, 4], [3, 8, 5], [7, 2, 0]]


def test_select__second_stage_takes_the_best_vote_of_each_bucket() -> None:
    x = clustered(120, 8, 1)
    doubt = np.random.default_rng(1).random(120).astype(np.float32)
    first = [5, 17, 60]
    pool = Pool(vectors=x, scores=doubt, already_selected=first)
    picked = select([VoteK(n_neighbors=10, buckets=True)], pool, budget=6)
    left = np.setdiff1d(np.arange(120), first)
    ordered = left[np.argsort(-doubt[left], kind="stable")]
    size = int(0.9 * 117 / 6)
    graph = nearest_neighbours(pool.get_vectors(), 10)
    selected = list(first)
    for i, row in enumerate(picked.rows.tolist()):
        bucket = ordered[i * size : (i + 1) * size]
        times = np.isin(graph, selected).sum(axis=1)
        voting = ~np.isin(np.arange(120), selected)
        score = [(10.0 ** -times[(graph == u).any(axis=1) & voting]).sum() for u in bucket]
        tied = bucket[np.array(score) >= max(score) - 1e-9]
        assert row == max(tied, key=lambda u: ((graph == u).sum(), -u))
        assert picked.gain[i] == pytest.approx(max(score), rel=1e-6)
        selected.append(row)
    assert picked.reason.text() == [f"bucket {i} of 6" for i in range(1, 7)]


def test_select__buckets_need_scores() -> None:
    with pytest.raises(MissingInput, match="scores"):
        select([VoteK(buckets=True)], Pool(vectors=NINE), budget=2)


@pytest.mark.parametrize("options", [{"n_neighbors": 0}, {"rho": 1}, {"rho": 2.5}, {"buckets": 1}, {"version": 0}])
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption, match="vote_k"):
        build_step({"vote_k": options})
