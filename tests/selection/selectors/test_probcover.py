from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, Pool, Selection, build_step, select
from selection.kernels.neighbor_graph import distance_to_others
from selection.selectors.probcover import ProbCover, largest_pure_radius

LINE = np.array([[0.0], [0.4], [0.8], [1.2], [3.0], [3.3], [3.6], [8.0]], np.float32)


def naive(x: np.ndarray, delta: float, budget: int, taken: tuple[int, ...] = ()) -> tuple[list[int], list[int]]:
    """Count the uncovered rows in every ball before every pick."""
    wide = x.astype(np.float64)
    near = np.sqrt(((wide[:, None] - wide[None]) ** 2).sum(axis=2)) <= delta
    covered = near[list(taken)].any(axis=0)
    rows: list[int] = []
    gains: list[int] = []
    while len(rows) < budget:
        degree = (near & ~covered).sum(axis=1)
        degree[rows + list(taken)] = -1
        best = int(degree.argmax())
        if degree[best] <= 0:
            break
        rows.append(best)
        gains.append(int(degree[best]))
        covered |= near[best]
    return rows, gains


def clustered(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(5, d))[rng.integers(0, 5, n)] * 2 + rng.normal(size=(n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def run(x: np.ndarray, budget: int, **options: float) -> Selection:
    return select([ProbCover(**options)], Pool(vectors=x), budget=budget, allow_short=True)


def test_select__rows_on_a_line() -> None:
    pool = Pool(vectors=LINE, already_selected=[0])
    picked = select([ProbCover(delta=0.5)], pool, budget=3)
    assert picked.rows.tolist() == [5, 2, 7]
    assert picked.gain.tolist() == [3, 2, 1]
    assert picked.reason.value.tolist() == [0.625, 0.875, 1.0]


def test_largest_pure_radius__rows_on_a_line() -> None:
    clusters = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    distance = distance_to_others(Pool(vectors=LINE).get_vectors(), np.arange(8), clusters)
    deltas = [0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 5.0]
    purity = [float((distance > delta).mean()) for delta in deltas]
    assert purity == [1, 1, 1, 1, 1, 0.75, 0.125, 0.125]
    best = largest_pure_radius(distance, 0.95)
    assert max(delta for delta in deltas if delta <= best) == 1.0  # the best of these
    assert best == pytest.approx(1.8, rel=1e-6)  # the best of all: 1.2 and 3.0 are of two clusters
    assert largest_pure_radius(distance, 0.75) == pytest.approx(2.1, rel=1e-6)
    assert largest_pure_radius(np.array([3.0, 1.0]), 1.0) < 1.0  # at the distance itself the ball holds the other row
    assert largest_pure_radius(np.arange(1, 101), 0.9) == pytest.approx(
        11
    )  # ten of a hundred balls hold another cluster at 11


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("delta", [0.3, 0.7, 1.1])
def test_select__is_the_definition_pick_for_pick(seed: int, delta: float) -> None:
    x = clustered(300, 8, seed)
    rows, gains = naive(x, delta, 60)
    picked = run(x, 60, delta=delta)
    assert picked.rows.tolist() == rows
    assert picked.gain.tolist() == gains
    assert picked.exhausted == (len(rows) < 60)
    pool = Pool(vectors=x, already_selected=[7, 100, 299])
    picked = select([ProbCover(delta=delta)], pool, budget=40, allow_short=True)
    assert picked.rows.tolist() == naive(x, delta, 40, (7, 100, 299))[0]


def test_select__stops_when_all_is_covered() -> None:
    picked = run(LINE, 8, delta=1.0)
    assert picked.exhausted
    assert picked.reason.value[-1] == 1.0
    assert picked.gain.sum() == 8
    with pytest.raises(InvalidBudget, match="probcover found only 3 rows for a budget of 8"):
        select([ProbCover(delta=1.0)], Pool(vectors=LINE), budget=8)


@pytest.mark.parametrize("budget", [3, 5, 8])
def test_select__fills_up_at_random_when_all_is_covered(budget: int) -> None:
    covering = run(LINE, 8, delta=1.0).rows.tolist()
    picked = select([ProbCover(delta=1.0, when_covered="random")], Pool(vectors=LINE), budget=budget)
    assert len(picked.rows) == budget == len(set(picked.rows.tolist()))
    assert picked.rows[:3].tolist() == covering
    assert picked.gain[3:].tolist() == [0.0] * (budget - 3)
    assert picked.reason.value[2:].tolist() == [1.0] * (budget - 2)
    others = {
        tuple(select([ProbCover(delta=1.0, when_covered="random")], Pool(vectors=LINE), budget=8, seed=seed).rows[3:])
        for seed in range(5)
    }
    assert len(others) > 1


def test_select__fills_up_also_where_what_is_selected_covers_all() -> None:
    pool = Pool(vectors=LINE, already_selected=range(6), eligible=np.arange(8) != 7)
    picked = select([ProbCover(delta=9.0, when_covered="random")], pool, budget=1)
    assert (picked.rows.tolist(), picked.gain.tolist()) == ([6], [0.0])


@pytest.mark.parametrize("seed", range(4))
def test_select__delta_varies_little_with_the_seed(seed: int) -> None:
    rng = np.random.default_rng(7)
    centre = rng.normal(size=(20, 16))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    x = centre[np.arange(1000) % 20] + 0.05 * rng.normal(size=(1000, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    distance = distance_to_others(Pool(vectors=x).get_vectors(), np.arange(1000), np.arange(1000) % 20)
    true = largest_pure_radius(distance, 0.95)
    one_each = select([ProbCover(classes=20)], Pool(vectors=x), budget=20, seed=seed, allow_short=True)
    given = select([ProbCover(delta=true)], Pool(vectors=x), budget=20, allow_short=True)
    assert one_each.rows.tolist() == given.rows.tolist()


def test_select__delta_of_pure_balls_keeps_clusters_apart() -> None:
    rng = np.random.default_rng(3)
    centre = np.eye(4, 16, dtype=np.float64)[rng.integers(0, 4, 400)]
    x = centre + 0.05 * rng.normal(size=(400, 16))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    picked = run(x, 10, classes=4)
    # Four balls hold nearly all; each begins another cluster.
    assert sorted(centre[picked.rows[:4]].argmax(axis=1).tolist()) == [0, 1, 2, 3]
    assert picked.reason.value[3] > 0.95
    distance = distance_to_others(Pool(vectors=x).get_vectors(), np.arange(400), centre.argmax(axis=1))
    assert picked.rows.tolist() == run(x, 10, delta=largest_pure_radius(distance, 0.95)).rows.tolist()


def test_select__zero_vectors_and_copies_are_points_like_others() -> None:
    x = np.concatenate([np.zeros((3, 4)), np.ones((2, 4)), np.eye(4)]).astype(np.float32)
    picked = run(x, 9, delta=0.5)
    assert picked.rows.tolist() == [0, 3, 5, 6, 7, 8]
    assert picked.gain.tolist() == [3, 2, 1, 1, 1, 1]


def test_select__one_cluster_has_no_pure_radius() -> None:
    with pytest.raises(InvalidInput, match="do not fall into two clusters"):
        run(np.ones((10, 4), np.float32), 2, classes=3)


def test_select__too_many_pairs_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more memory"):
        run(clustered(100, 4, 0), 2, delta=2.0, memory_gb=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"delta": 0.5, "classes": 3},
        {"delta": 0},
        {"classes": 1},
        {"delta": 0.5, "alpha": 0},
        {"classes": 3, "alpha": 1.1},
        {"delta": 0.5, "memory_gb": 0},
    ],
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption, match="probcover"):
        build_step({"probcover": options})
