from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from selection import InvalidOption, Pool, Selection, build_step, select
from selection.kernels.graph_greedy import SAMPLES, spread
from selection.kernels.neighbor_graph import cosines, nearest_neighbours
from selection.selectors.influence import Influence, edge_weights, live_edges
from selection.streams import child

NONE = np.empty(0, np.int64)
# (from, to, probability)
FIVE = [(0, 1, 0.6), (0, 2, 0.4), (1, 0, 0.5), (1, 2, 0.5), (2, 3, 0.7), (2, 1, 0.3), (3, 4, 0.8), (3, 2, 0.2), (4, 3, 1.0)]  # fmt: skip
NEIGHBOURS = np.array([[1, 2], [0, 2], [3, 1], [4, 2], [3, -1]], np.int32)
WEIGHTS = np.array([[0.6, 0.4], [0.5, 0.5], [0.7, 0.3], [0.8, 0.2], [1.0, 0.0]])


def reached(edges: list[tuple[int, int]], rows: set[int]) -> int:
    """How many rows the edges lead to from some rows, these included."""
    seen, waiting = set(rows), list(rows)
    while waiting:
        row = waiting.pop()
        new = {end for start, end in edges if start == row} - seen
        seen |= new
        waiting += new
    return len(seen)


def sigma(edges: list[tuple[int, int, float]], rows: set[int]) -> float:
    """The expected number of rows reached: over every set of live edges, with its probability."""
    total = 0.0
    for live in product([False, True], repeat=len(edges)):
        chance = np.prod([p if is_live else 1 - p for (_, _, p), is_live in zip(edges, live, strict=True)])
        total += chance * reached([(a, b) for (a, b, _), is_live in zip(edges, live, strict=True) if is_live], rows)
    return total


def greedy(value, n: int, budget: int, taken: tuple[int, ...] = ()) -> tuple[list[int], list[float]]:
    rows: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        before = value({*taken, *rows}) if taken or rows else 0.0
        gain = [-1.0 if i in {*taken, *rows} else value({*taken, *rows, i}) - before for i in range(n)]
        rows.append(int(np.flatnonzero(np.array(gain) >= max(gain) - 1e-9)[0]))
        gains.append(gain[rows[-1]])
    return rows, gains


def run(x: np.ndarray, budget: int, **options: int) -> Selection:
    return select([Influence(**options)], Pool(vectors=x), budget=budget)


def test_sigma__five_rows() -> None:
    np.testing.assert_allclose([sigma(FIVE, {i}) for i in range(5)], [2.9588, 2.856, 2.71, 2.09, 2.29], atol=1e-9)
    np.testing.assert_allclose([sigma(FIVE, {0, i}) for i in range(1, 5)], [3.582, 3.98, 4.1264, 4.3264], atol=1e-9)
    assert greedy(lambda rows: sigma(FIVE, rows), 5, 2)[0] == [0, 4]


@pytest.mark.slow
def test_live_edges__reach_what_enumeration_says() -> None:
    rng = np.random.default_rng(0)
    single, pair = np.zeros(5), np.zeros(5)
    words = 400  # 25 600 samples: the standard error is below 0.01
    for _ in range(words):
        live = live_edges(NEIGHBOURS, WEIGHTS, rng.integers(0, 2**63, 5, dtype=np.uint64), rng)
        for i in range(5):
            single[i] += spread(NEIGHBOURS, live, np.array([i]), 1, taken=NONE)[1][0]
        for i in range(1, 5):
            pair[i] += spread(NEIGHBOURS, live, np.array([i]), 1, taken=np.array([0]))[1][0]
    np.testing.assert_allclose(single / words, [2.9588, 2.856, 2.71, 2.09, 2.29], atol=0.04)
    np.testing.assert_allclose((pair / words + 2.9588)[1:], [3.582, 3.98, 4.1264, 4.3264], atol=0.04)


def six_edges(seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int, float]]]:
    """A graph of six edges live with probability 1/2 each, and its 64 sets of live edges as the bits of a word."""
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(6) for b in range(6) if a != b]
    edges = [pairs[i] for i in sorted(rng.choice(len(pairs), 6, replace=False).tolist())]
    neighbours, live = np.full((6, 6), -1, np.int32), np.zeros((6, 6), np.uint64)
    for e, (a, b) in enumerate(edges):
        neighbours[a, e] = b
        live[a, e] = sum(1 << r for r in range(SAMPLES) if r >> e & 1)
    return neighbours, live, [(a, b, 0.5) for a, b in edges]


@pytest.mark.parametrize("seed", range(6))
def test_spread__is_exact_greedy_where_the_samples_are_all_there_are(seed: int) -> None:
    neighbours, live, edges = six_edges(seed)
    rows, gains = greedy(lambda chosen: sigma(edges, chosen), 6, 6)
    picks, gain = spread(neighbours, live, np.arange(6), 6, taken=NONE)
    assert picks.tolist() == rows
    np.testing.assert_allclose(gain, gains, atol=1e-9)
    rows, gains = greedy(lambda chosen: sigma(edges, chosen), 6, 3, taken=(2, 4))
    picks, gain = spread(neighbours, live, np.array([0, 1, 3, 5]), 3, taken=np.array([2, 4]))
    assert picks.tolist() == rows
    np.testing.assert_allclose(gain, gains, atol=1e-9)


def test_spread__a_row_hit_twice_counts_once() -> None:
    neighbours = np.array([[1, 2], [3, -1], [3, -1], [-1, -1]], np.int32)
    live = np.where(neighbours >= 0, ~np.uint64(0), np.uint64(0))
    assert spread(neighbours, live, np.arange(4), 1, taken=NONE)[1].tolist() == [4.0]


@pytest.mark.parametrize("seed", range(3))
def test_select__is_plain_greedy_over_its_samples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    pool = Pool(vectors=x, keys=rng.integers(0, 2**63, 60, dtype=np.uint64))
    graph = nearest_neighbours(pool.get_vectors(), 4)
    stream = child(np.random.default_rng([0, 0, 0, 1]))
    live = live_edges(graph, edge_weights(cosines(pool.get_vectors(), graph)), pool.get_keys(), stream)
    samples = [
        [(i, int(graph[i, e])) for i in range(60) for e in range(4) if int(live[i, e]) >> r & 1] for r in range(SAMPLES)
    ]
    rows, gains = greedy(lambda chosen: float(np.mean([reached(s, chosen) for s in samples])), 60, 4)
    picks, gain = spread(graph, live, np.arange(60), 4, taken=NONE)
    assert picks.tolist() == rows
    np.testing.assert_allclose(gain, gains, atol=1e-9)


def test_select__gains_fall_and_add_up_to_what_is_reached() -> None:
    x = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
    picked = run(x, 300)
    assert sorted(picked.rows.tolist()) == list(range(300))
    assert (np.diff(picked.gain) <= 0).all()
    assert picked.reason.value[-1] == 300  # in the end every row is reached


def test_live_edges__have_the_chance_of_their_weight_and_no_two_the_same() -> None:
    rng = np.random.default_rng(1)
    neighbours = np.array([[j for j in range(200) if j != i][:50] for i in range(200)], np.int32)
    weights = np.tile(np.linspace(0, 1, 50), (200, 1))
    live = live_edges(neighbours, weights, rng.integers(0, 2**63, 200, dtype=np.uint64), rng)
    share = np.unpackbits(live.view(np.uint8)).reshape(200, 50, 64).mean(axis=(0, 2))
    np.testing.assert_allclose(share, weights[0], atol=0.02)
    assert (live[:, 0] == 0).all()
    assert (live[:, -1] == ~np.uint64(0)).all()
    assert len(np.unique(live[:, 10:40])) == 200 * 30


def test_edge_weights__shares_of_the_similarities() -> None:
    np.testing.assert_allclose(edge_weights(np.array([[0.9, 0.8, 0.3]])), [[0.45, 0.4, 0.15]])
    assert edge_weights(np.array([[0.5, -0.4], [-0.1, -0.2]])).tolist() == [[1, 0], [0, 0]]


def test_edge_weights__are_the_same_to_the_bit_in_any_order_of_neighbours() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.random((200, 12))
    order = rng.permuted(np.tile(np.arange(12), (200, 1)), axis=1)
    again = edge_weights(np.take_along_axis(similarity, order, axis=1))
    np.testing.assert_array_equal(again, np.take_along_axis(edge_weights(similarity), order, axis=1))


def test_options__out_of_range_are_refused() -> None:
    with pytest.raises(InvalidOption, match="n_neighbors"):
        build_step({"influence": {"n_neighbors": 0}})
