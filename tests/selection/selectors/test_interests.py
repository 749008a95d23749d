from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from selection import InvalidBudget, InvalidInput, InvalidOption, MissingInput, Pool, Targets, select
from selection.kernels.clusters import hashed_order, spherical_clusters
from selection.noise import hash_bits
from selection.streams import child, step_stream


def circle(degrees):
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


# Three groups of rows around 0, 90 and 180 degrees.
ROWS = [-6, -3, 0, 3, 6, 84, 87, 90, 93, 96, 178, 180, 182]


def draw(X, Q, budget, *, already=(), seed=0, allow_short=True, **options):
    pool = Pool(vectors=np.asarray(X), targets=np.asarray(Q, np.float32), already_selected=list(already))
    return select([{"interests": options}], pool, budget=budget, seed=seed, allow_short=allow_short)


def test_select__the_budget_is_divided_as_the_targets_are():
    s = draw(circle(ROWS), circle([2, 4, 89]), 3, n_clusters=3, smoothing=0)
    assert sorted(s.rows.tolist()) == [3, 4, 7] or sorted(s.rows.tolist()) == [
        2,
        3,
        7,
    ]  # 3 and 0, 6 are as near 3 degrees
    assert s.reason.kind.tolist() == ["cluster"] * 3
    s = draw(circle(ROWS), circle([-1, 90, 181]), 3, n_clusters=3, smoothing=0)
    assert sorted(s.rows.tolist()) in ([2, 7, 11], [2, 7, 12])
    s = draw(circle(ROWS), circle([88]), 3, n_clusters=3, smoothing=0)
    assert s.rows.tolist() == [6, 7, 5]  # 87, 90, 84
    assert s.gain == pytest.approx(np.cos(np.radians([1, 2, 4])))
    assert s.reason.rank.tolist() == [0, 1, 2]


def test_select__smoothing_gives_a_part_to_the_clusters_of_the_nearest_rows():
    # Of the ten nearest rows of 80 degrees five are around 90 and five around 0; a budget of 10 is 10 * (1 - s/2, s/2).
    counts = {}
    for smoothing in (0, 0.2, 0.6, 1):
        rows = draw(circle(ROWS), circle([80]), 4, n_clusters=3, smoothing=smoothing).rows
        counts[smoothing] = [int((rows < 5).sum()), int(((rows >= 5) & (rows < 10)).sum()), int((rows >= 10).sum())]
    assert counts == {0: [0, 4, 0], 0.2: [0, 4, 0], 0.6: [1, 3, 0], 1: [2, 2, 0]}


def test_select__what_a_cluster_cannot_give_goes_to_the_others():
    s = draw(circle(ROWS), circle([180, 180, 180, 0]), 8, n_clusters=3, smoothing=0)
    assert [int((s.rows < 5).sum()), int((s.rows >= 10).sum())] == [5, 3]
    assert not s.exhausted
    with pytest.raises(InvalidBudget, match="interests found only 8 rows for a budget of 9; allow_short takes these"):
        draw(circle(ROWS), circle([180, 180, 180, 0]), 9, n_clusters=3, smoothing=0, allow_short=False)


def test_select__already_selected_rows_count_towards_their_cluster():
    options = {"n_clusters": 3, "smoothing": 0}
    s = draw(circle(ROWS), circle([0, 90]), 2, already=[2, 3], **options)
    assert (s.rows >= 5).all()
    assert (s.rows < 10).all()
    s = draw(circle(ROWS), circle([0, 90]), 5, already=[10, 2], **options)  # of 7, one is in a cluster without targets
    assert [int((s.rows < 5).sum()), int((s.rows >= 5).sum())] == [2, 3]


def test_select__zero_vectors_are_in_no_cluster():
    X = circle(ROWS)
    X[[1, 6]] = 0
    s = draw(X, circle([0, 90]), 13, n_clusters=3, smoothing=1, n_neighbors=50)
    assert sorted(s.rows.tolist()) == sorted(set(range(13)) - {1, 6})
    assert s.exhausted
    assert len(draw(np.zeros((4, 2)), circle([0]), 2).rows) == 0
    targets = Targets(np.array([[1, 0], [0, 0]], np.float32), ids=("p", "q"), names=("task",))
    with pytest.raises(InvalidInput, match="interests: target task/q is a zero vector"):
        select(["interests"], Pool(vectors=X, targets=targets), budget=1)


def case(seed):
    rng = np.random.default_rng(seed)
    n, m, d = int(rng.integers(2, 50)), int(rng.integers(1, 7)), int(rng.integers(2, 6))
    X = rng.normal(size=(4, d))[rng.integers(0, 4, n)] * 2 + rng.normal(size=(n, d))
    X[rng.random(n) < 0.2] = X[0]
    X[1:][rng.random(n - 1) < 0.1] = 0
    Q = rng.normal(size=(m, d))
    Q[rng.random(m) < 0.3] = X[0]
    options = {
        "n_clusters": int(rng.integers(1, 6)),
        "smoothing": float(rng.choice([0, 0.2, 1 / 3, 1])),
        "n_neighbors": int(rng.integers(1, 12)),
    }
    return X.astype(np.float16 if seed % 2 else np.float32), Q.astype(np.float32), int(rng.integers(1, n)), options


def unit32(X):
    X = np.asarray(X, np.float64)
    length = np.linalg.norm(X, axis=1, keepdims=True)
    return (X / np.where(length > 0, length, 1)).astype(np.float32).astype(np.float64)


def shares(mass, room, budget):
    """Capped shares by largest remainder: clusters that would get too much are settled, then the rest again."""
    parts = [0] * len(mass)
    free = {c for c, weight in enumerate(mass) if weight}
    budget = min(budget, sum(room[c] for c in free))
    while True:
        total = sum(mass[c] for c in free)
        full = {c for c in free if budget * mass[c] / total > room[c]}
        if not full:
            break
        for c in full:
            parts[c] = room[c]
        budget -= sum(room[c] for c in full)
        free -= full
    exact = {c: budget * mass[c] / total for c in free}
    for c in free:
        parts[c] = floor(exact[c])
    for c in sorted(free, key=lambda c: (parts[c] - exact[c], c))[: budget - sum(parts[c] for c in free)]:
        parts[c] += 1
    return parts


@pytest.mark.parametrize("seed", range(80))
def test_select__is_the_definition(seed):
    X, Q, budget, options = case(seed)
    pool = Pool(vectors=X, targets=Q)
    rng = step_stream(seed, 0, 0, "interests")
    order = hashed_order(pool.get_vectors(), hash_bits(pool.get_keys(), child(rng, 0)))
    count = min(options["n_clusters"], len(order))
    found, centroids = spherical_clusters(pool.get_vectors(), order, count, rng=child(rng, 1))
    cluster = [int(found.place[row]) if X[row].any() else -1 for row in range(len(X))]
    U, V = unit32(X), unit32(Q)
    smoothing = Fraction(options["smoothing"]).limit_denominator(1000)
    weight = [[Fraction(0)] * count for _ in V]
    for j, q in enumerate(V):
        cosines = [float(q @ unit32(centroids)[c]) for c in range(count)]
        weight[j][int(np.argmax(cosines))] += 1 - smoothing
        near = sorted(
            (row for row in range(len(X)) if cluster[row] >= 0), key=lambda row: (-np.round(U[row] @ q, 12), row)
        )
        near = near[: options["n_neighbors"]]
        for row in near:
            weight[j][cluster[row]] += smoothing / len(near)
    mass = [sum(weight[j][c] for j in range(len(V))) for c in range(count)]
    parts = shares(mass, [cluster.count(c) for c in range(count)], budget)
    s = draw(X, Q, budget, seed=seed, **options)
    assert s.exhausted == (sum(parts) < budget)
    for c in range(count):
        centre = sum(float(weight[j][c]) * V[j] for j in range(len(V)))
        centre = centre / (np.linalg.norm(centre) or 1)
        rows = sorted((r for r in range(len(X)) if cluster[r] == c), key=lambda r: (-np.round(U[r] @ centre, 12), r))
        mine = s.reason.ref == c
        assert s.rows[mine].tolist() == rows[: parts[c]]
        assert s.gain[mine] == pytest.approx(U[rows[: parts[c]]] @ centre, abs=1e-6)
        assert s.reason.rank[mine].tolist() == list(range(parts[c]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_clusters", 0), ("n_clusters", "many"), ("n_clusters", 2.5), ("smoothing", -0.1), ("smoothing", 1.1),
        ("smoothing", "0.2"), ("n_neighbors", 0), ("n_neighbors", True),
    ],
)  # fmt: skip
def test_options__out_of_range_is_an_error(option, value):
    with pytest.raises(InvalidOption, match=f"interests: {option} must be"):
        draw(circle(ROWS), circle([0]), 1, **{option: value})


def test_select__no_targets():
    with pytest.raises(MissingInput, match="interests needs targets"):
        select(["interests"], Pool(vectors=circle(ROWS)), budget=1)
    with pytest.raises(InvalidInput, match="targets: there are none"):
        draw(circle(ROWS), np.empty((0, 2)), 1)
