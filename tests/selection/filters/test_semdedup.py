from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, Pool, build_step, select, step_spec
from selection.filters.semdedup import SemDedup
from selection.kernels import clusters
from selection.kernels import duplicates as kernel

RNG = np.random.default_rng([0, 0, 0, 1])
ARC = np.deg2rad([0, 8, 16, 24, 60, 63])
ARC6 = np.stack([np.cos(ARC), np.sin(ARC)], axis=1).astype(np.float32)
EPS = 0.01519224698779198  # 10 degrees


def clustered(n: int = 600, d: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n // 10, d))[rng.integers(0, n // 10, n)]
    return (x + 0.15 * rng.normal(size=(n, d))).astype(np.float32)


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit @ unit.T


def naive(c: np.ndarray, order: np.ndarray, threshold: float, *, chain: bool) -> list[int]:
    kept: list[int] = []
    for i, row in enumerate(order):
        earlier = order[:i] if chain else kept
        if not (c[row, earlier] > threshold).any():
            kept.append(int(row))
    return sorted(kept)


@pytest.mark.parametrize(
    ("rule", "kept", "of"),
    [("reference", [0, 4], [0, 1, 2, 4]), ("greedy", [0, 2, 4], [0, 2, 4]), ("component", [0, 4], [0, 0, 0, 4])],
)
@pytest.mark.parametrize("block", [1, 2, 1024])
def test_duplicates__chain_on_an_arc(
    rule: str, kept: list[int], of: list[int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "BLOCK_ROWS", block)
    pool = Pool(vectors=ARC6, columns={"order": -np.arange(6.0)})
    step = SemDedup(eps=EPS, n_clusters=1, rule=rule, prefer="column", column="order")
    assert step.keep(pool, 1, rng=RNG).tolist() == kept
    duplicates = step.duplicates(pool, rng=RNG)
    assert duplicates.row.tolist() == [row for row in range(6) if row not in kept]
    assert duplicates.of.tolist() == of
    np.testing.assert_allclose(duplicates.similarity, np.cos(ARC[duplicates.row] - ARC[duplicates.of]), atol=1e-7)


@pytest.mark.parametrize("prefer", ["hard", "easy"])
def test_duplicates__order_by_distance_to_the_centroid(prefer: str) -> None:
    x = clustered(240)  # as many as a sample for one cluster holds, so the centroid is the mean of all
    c = cosines(x)
    mean = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64).sum(axis=0)
    to_centroid = (x @ (mean / np.linalg.norm(mean))) / np.linalg.norm(x, axis=1)
    order = np.argsort(to_centroid if prefer == "hard" else -to_centroid)
    for rule, chain in (("greedy", False), ("reference", True)):
        kept = SemDedup(eps=0.05, n_clusters=1, prefer=prefer, rule=rule).keep(Pool(vectors=x), 1, rng=RNG)
        assert kept.tolist() == naive(c, order, 0.95, chain=chain)


@pytest.mark.parametrize("n_clusters", ["sqrt", 1, 7])
def test_duplicates__every_dropped_row_lies_within_eps_of_a_kept_one(n_clusters: int | str) -> None:
    x = clustered()
    pool = Pool(vectors=x, already_selected=[5, 6, 100])
    step = SemDedup(eps=0.04, n_clusters=n_clusters)
    duplicates = step.duplicates(pool, rng=RNG)
    kept = step.keep(pool, 1, rng=RNG)
    assert 50 < len(duplicates.row) < 550
    assert sorted([*duplicates.row, *kept, 5, 6, 100]) == list(range(600))
    assert np.isin(duplicates.of, [*kept, 5, 6, 100]).all()
    np.testing.assert_allclose(duplicates.similarity, cosines(x)[duplicates.row, duplicates.of], rtol=1e-12)
    assert (duplicates.similarity > 0.96).all()
    if n_clusters == 1:
        c = cosines(x)[np.ix_(kept, kept)]
        assert (c[~np.eye(len(kept), dtype=bool)] <= 0.96).all()


def test_select__what_is_already_selected_removes_its_copies_and_no_one_removes_it() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 3, axis=0)
    picked = select(
        [SemDedup(n_clusters=1), "random"], Pool(vectors=x, already_selected=[1, 2]), budget=2, allow_short=True
    )
    assert sorted(picked.rows.tolist()) == [3, 6]  # 0 repeats what is already selected
    for rule in ("greedy", "reference", "component"):
        step = SemDedup(n_clusters=1, rule=rule)
        duplicates = step.duplicates(Pool(vectors=x, already_selected=[1, 2]), rng=RNG)
        assert duplicates.row.tolist() == [0, 4, 5, 7, 8]


def test_select__tells_what_was_dropped_in_the_rows_of_the_pool() -> None:
    x = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    eligible = np.array([False, True, True, True, True, True, True, True])
    steps = [SemDedup(n_clusters=1), {"random_subpool": {"rows": 3}}, "random"]
    picked = select(steps, Pool(vectors=x, eligible=eligible, already_selected=[7]), budget=3)
    (dropped,) = picked.dropped
    assert dropped.step == "semdedup"
    assert dropped.rows.tolist() == [3, 5, 6]
    assert dropped.reason.ref.tolist() == [2, 4, 7]
    assert set(dropped.reason.kind) == {"neighbour"}
    np.testing.assert_allclose(dropped.reason.value, 1)
    assert sorted(picked.rows.tolist()) == [1, 2, 4]


def test_duplicates__zero_vectors_are_similar_to_nothing() -> None:
    x = np.zeros((6, 4), np.float32)
    assert SemDedup().keep(Pool(vectors=x), 1, rng=RNG).tolist() == list(range(6))
    x[1:3] = 1
    assert SemDedup(n_clusters=1).keep(Pool(vectors=x), 1, rng=RNG).tolist() == [0, 1, 3, 4, 5]


def test_keep__does_not_depend_on_order_blocks_or_rows_that_are_not_eligible() -> None:
    x, keys = clustered(), np.random.default_rng(9).integers(0, 2**63, 600)
    order = np.random.default_rng(1).permutation(600)
    for prefer in ("hard", "random"):
        step = SemDedup(eps=0.04, prefer=prefer)
        rng = lambda: np.random.default_rng([0, 0, 0, 1])  # noqa: E731
        kept = step.keep(Pool(vectors=x, keys=keys), 1, rng=rng())
        again = step.keep(Pool(vectors=x[order], keys=keys[order]), 1, rng=rng())
        assert kept.tolist() == np.sort(order[again]).tolist()


def test_clusters__find_what_is_there() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 400)
    x = (np.eye(5, 12)[true] + 0.05 * rng.normal(size=(400, 12))).astype(np.float32)
    # One row of each cluster first: the start is then a good one, and k-means must keep it.
    order = np.concatenate([[np.flatnonzero(true == i)[0] for i in range(5)], np.arange(400)])
    assigned, centroids = clusters.spherical_clusters(
        Pool(vectors=x).get_vectors(), np.unique(order, return_index=True)[0], 5, rng=None
    )
    assert centroids.shape == (5, 12)
    assert assigned.value.min() > 0.5
    assigned, _ = clusters.spherical_clusters(Pool(vectors=x).get_vectors(), order.astype(np.int64), 5, rng=None)
    assert assigned.place.tolist() == true.tolist()


def test_keep__a_value_that_is_not_finite_is_named() -> None:
    x = clustered()
    x[17] = np.inf
    with pytest.raises(InvalidInput, match="row 17"):
        SemDedup().keep(Pool(vectors=x), 1, rng=RNG)


@pytest.mark.parametrize(
    "options",
    [
        {"eps": 0},
        {"eps": 3},
        {"n_clusters": 0},
        {"n_clusters": "many"},
        {"prefer": "first"},
        {"prefer": "column"},
        {"column": "quality"},
        {"rule": "chain"},
    ],
)
def test_options__out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(InvalidOption):
        build_step({"semdedup": options})


def test_options__round_trip() -> None:
    step = SemDedup(eps=0.2, n_clusters=3, prefer="column", column="q", rule="component")
    assert SemDedup(**step_spec(step)["semdedup"]) == step
