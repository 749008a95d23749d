from __future__ import annotations

import math

import numpy as np
import pytest

from selection import InvalidInput, Pool, Targets, select
from selection.scorers.rds import RdsMax, RdsMean

S = np.array(
    [
        [0.90, 0.80, 0.70, 0.10, 0.20, 0.30],
        [0.95, 0.60, 0.85, 0.40, 0.10, 0.20],
        [0.50, 0.99, 0.20, 0.60, 0.65, 0.10],
    ]
)


def pool_of(similarity):
    m = len(similarity)
    return Pool(vectors=similarity.T, targets=Targets(np.eye(m), np.zeros(m, int), ("t",)))


@pytest.mark.parametrize(
    ("step", "scores", "order"),
    [
        (RdsMax(), [0.95, 0.99, 0.85, 0.6, 0.65, 0.3], [1, 0, 2, 4, 3, 5]),
        (RdsMean(), [0.783333, 0.796667, 0.583333, 0.366667, 0.316667, 0.2], [1, 0, 2, 3, 4, 5]),
        (
            RdsMean(normalized=True),
            [0.816479, 0.821078, 0.581571, 0.304913, 0.247659, 0.122549],
            [1, 0, 2, 3, 4, 5],
        ),
    ],
)
def test_rds__known_answers(step, scores, order):
    selection = select([step], pool_of(S), budget=6)
    assert selection.rows.tolist() == order
    np.testing.assert_allclose(selection.gain[np.argsort(selection.rows)], scores, atol=1e-6)


def test_rds_max__is_the_float32_of_the_exact_maximum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 96)).astype(np.float16)
    q = rng.normal(size=(40, 96)).astype(np.float32)
    q[7] = np.nextafter(q[3], np.float32(9))  # near ties between targets
    pool = Pool(vectors=x, targets=Targets(q, np.zeros(40, int), ("t",)))
    scores = RdsMax().score(pool, rng=rng)
    exact = [max(math.fsum(a * b for a, b in zip(v, w, strict=True)) for w in q.tolist()) for v in x.tolist()]
    assert scores.tolist() == np.array(exact).astype(np.float32).tolist()


def test_rds_mean__a_target_close_to_everything_counts_nothing_when_normalized():
    similarity = np.array([[0.9, 0.9, 0.9], [0.1, 0.2, 0.3]])
    scores = RdsMean(normalized=True).score(pool_of(similarity), rng=np.random.default_rng(0))
    np.testing.assert_allclose(scores, [0, 0.25, 0.5], atol=1e-6)


def test_rds_max__no_targets_is_an_error():
    pool = Pool(vectors=np.ones((2, 3)), targets=Targets(np.zeros((0, 3)), np.zeros(0, int), ()))
    for step in (RdsMax(), RdsMean()):
        with pytest.raises(InvalidInput, match="targets: there are none"):
            select([step], pool, budget=1)


def alike(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of cosines around 0.9996, as float16 keeps them, and targets among them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=256) + 0.02 * rng.normal(size=(n, 256))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    return x, x[rng.choice(n, m, replace=False)]


def cosines(x: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(n, m) float64."""
    x, targets = x.astype(np.float64), targets.astype(np.float64)
    return x @ targets.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(targets, axis=1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("m", [1, 5])
def test_rds__stored_vectors_go_by_the_angle(seed: int, m: int) -> None:
    x, targets = alike(500, m, seed)
    pool = Pool(vectors=x, targets=targets, unit_length=True)
    cosine = cosines(x, targets)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(RdsMax().score(pool, rng=rng), cosine.max(axis=1), rtol=0, atol=1e-7)
    np.testing.assert_allclose(RdsMean().score(pool, rng=rng), cosine.mean(axis=1), rtol=0, atol=1e-7)
    scaled = (cosine - cosine.min(axis=0)) / (cosine.max(axis=0) - cosine.min(axis=0))
    normalized = RdsMean(normalized=True).score(pool, rng=rng)
    np.testing.assert_allclose(normalized, scaled.mean(axis=1), rtol=0, atol=1e-3)
    least = np.sort(cosine[:, 0])[-20] - 1e-7  # scores are float32
    alone = Pool(vectors=x, targets=targets[:1], unit_length=True)
    for steps in (["rds_max"], ["rds_mean"], ["rds_plus"], [{"rds_plus": {"on_duplicate": "advance"}}]):
        picked = select(steps, alone, budget=20)
        assert cosine[picked.rows, 0].min() >= least
        assert picked.reason.value.max() <= 1
        assert picked.gain.max() <= 1
    assert cosine[select([{"rds_plus": {"version": 1}}], alone, budget=20).rows, 0].min() < least


def test_rds__a_part_of_a_pool_and_other_vectors_are_as_before() -> None:
    x, targets = alike(100, 2, 0)
    pool = Pool(vectors=x, targets=targets, unit_length=True)
    part = pool.take(np.arange(10, 90))
    rng = np.random.default_rng(0)
    assert RdsMax().score(part, rng=rng).tolist() == RdsMax().score(pool, rng=rng)[10:90].tolist()
    plain = Pool(vectors=4 * x, targets=targets)
    assert (RdsMax().score(plain, rng=rng) > 3.9).all()
    assert (RdsMax(version=1).score(pool, rng=rng) == RdsMax().score(Pool(vectors=x, targets=targets), rng=rng)).all()


def test_rds_max__per_subtask_is_the_best_mean_of_a_set():
    rng = np.random.default_rng(3)
    x, q = rng.normal(size=(50, 9)).astype(np.float16), rng.normal(size=(7, 9)).astype(np.float32)
    sets = np.array([2, 0, 2, 2, 0, 1, 0])
    scores = RdsMax(per="subtask").score(Pool(vectors=x, targets=Targets(q, sets, ("a", "b", "c"))), rng=rng)
    products = x.astype(np.float64) @ q.T.astype(np.float64)
    literal = np.max([products[:, sets == s].mean(axis=1) for s in range(3)], axis=0)
    np.testing.assert_allclose(scores, literal, atol=1e-6)


def test_rds_max__per_subtask_over_parts_of_checkpoints_is_the_influence_of_less():
    """Two checkpoints of weights 3/4 and 1/4; the parts of vectors and targets stand behind each other, times the root."""
    train = [np.array([[1, 0], [0.6, 0.8]]), np.array([[0, 1], [1, 0]])]
    validation = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]])
    x = np.hstack([w**0.5 * part for w, part in zip((0.75, 0.25), train, strict=True)])
    q = np.hstack([w**0.5 * validation for w in (0.75, 0.25)])
    targets = Targets(q, np.array([0, 0, 1, 1]), ("first", "second"))
    scores = RdsMax(per="subtask").score(Pool(vectors=x, targets=targets), rng=np.random.default_rng(0))
    np.testing.assert_allclose(scores, [0.70, 0.91], atol=1e-6)
