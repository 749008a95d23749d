from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import InvalidOption, Pool, build_step, select, step_spec
from selection.scorers.uncertainty import Entropy, ExpectedCost, LeastConfidence, Margin

RNG = np.random.default_rng(0)
P = np.array(
    [[0.7, 0.2, 0.1], [0.4, 0.35, 0.25], [0.05, 0.9, 0.05], [0.34, 0.33, 0.33], [0.5, 0.49, 0.01], [1.0, 0.0, 0.0]]
)
COST = [[0.0, 1.0, 5.0], [1.0, 0.0, 1.0], [10.0, 1.0, 0.0]]

# Equal to scikit-activeml 1.0.1 and modAL 0.4.2.1.
KNOWN = [
    (LeastConfidence(), [0.3, 0.6, 0.1, 0.66, 0.5, 0.0], [3, 1, 4]),
    (Margin(), [0.5, 0.95, 0.15, 0.99, 0.99, 0.0], [3, 4, 1]),
    (Entropy(), [0.8018185525, 1.0805276266, 0.3943976914, 1.0985126171, 0.7421667372, 0.0], [3, 1, 0]),
    (ExpectedCost(cost=COST), [0.8, 0.65, 0.1, 0.67, 0.51, 0.0], [0, 3, 1]),
    (ExpectedCost(cost=COST, by="margin"), [-0.4, -1.7, -1.05, -1.36, -0.08, -1.0], [4, 0, 5]),
]


@pytest.mark.parametrize(("step", "expected", "top"), KNOWN, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_score__known_answers(step, expected, top, dtype) -> None:
    pool = Pool(probabilities=P.astype(dtype))
    scores = step.score(pool, rng=RNG)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=2e-7)
    assert select([step], pool, budget=3).rows.tolist() == top


def naive(step, row):
    first, second = [*sorted(row.tolist(), reverse=True), 0.0][:2]
    if step.name == "least_confidence":
        return 1 - first
    if step.name == "margin":
        return 1 - (first - second)
    if step.name == "entropy":
        return -sum(p * np.log(p) for p in row.tolist() if p > 0)
    first, second = sorted((row @ np.array(step.cost)).tolist())[:2]
    return first - second if step.by == "margin" else first


@pytest.mark.parametrize("classes", [2, 3, 17])
@pytest.mark.parametrize("kind", [LeastConfidence, Margin, Entropy, ExpectedCost, "by margin"])
def test_score__as_the_naive_one_and_the_same_batch(classes, kind) -> None:
    rng = np.random.default_rng(classes)
    probabilities = rng.dirichlet(np.full(classes, 0.3), 300).astype(np.float32)
    probabilities[:20] = np.eye(classes)[rng.integers(0, classes, 20)]
    cost = rng.random((classes, classes)).tolist()
    options = {ExpectedCost: {"cost": cost}, "by margin": {"cost": cost, "by": "margin"}}.get(kind, {})
    step = (ExpectedCost if kind == "by margin" else kind)(**options)
    wanted = np.array([naive(step, row) for row in probabilities.astype(np.float64)])
    scores = step.score(Pool(probabilities=probabilities), rng=RNG)
    np.testing.assert_allclose(scores, wanted, rtol=2e-7, atol=1e-7)
    picked = select([step], Pool(probabilities=probabilities), budget=30).rows
    assert picked.tolist() == np.argsort(-wanted.astype(np.float32), kind="stable")[:30].tolist()


def test_score__one_class_is_certain() -> None:
    pool = Pool(probabilities=np.ones((3, 1)))
    for step in (LeastConfidence(), Margin(), Entropy()):
        assert step.score(pool, rng=RNG).tolist() == [0, 0, 0]


def test_expected_cost__of_zero_and_one_is_least_confidence() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(4), 50)
    pool = Pool(probabilities=probabilities)
    by_cost = ExpectedCost(cost=(1 - np.eye(4)).tolist()).score(pool, rng=RNG)
    np.testing.assert_allclose(by_cost, LeastConfidence().score(pool, rng=RNG), atol=1e-6)
    by_gap = ExpectedCost(cost=(1 - np.eye(4)).tolist(), by="margin").score(pool, rng=RNG)
    np.testing.assert_allclose(by_gap, Margin().score(pool, rng=RNG) - 1, atol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda p: sum(p) > 0.01))
def test_score__within_its_range(weights) -> None:
    p = np.array(weights) / np.sum(weights)
    pool = Pool(probabilities=p[None])
    assert 0 <= Entropy().score(pool, rng=RNG)[0] <= np.log(len(p)) + 1e-6
    assert 0 <= LeastConfidence().score(pool, rng=RNG)[0] <= 1 - 1 / len(p) + 1e-6
    assert 0 <= Margin().score(pool, rng=RNG)[0] <= 1


@pytest.mark.parametrize(
    "cost", [None, 3, [], [[0]], [[0, 1]], [[0, 1], [1]], [[0, 1], [1, "a"]], [[0, 1], [float("nan"), 0]], [0, 1]]
)
def test_expected_cost__cost_must_be_a_square_of_numbers(cost) -> None:
    with pytest.raises(InvalidOption, match="cost"):
        ExpectedCost(cost=cost)


def test_expected_cost__options_are_checked_against_the_classes() -> None:
    with pytest.raises(InvalidOption, match="by must be one of lowest, margin, got 'max'"):
        ExpectedCost(cost=COST, by="max")
    with pytest.raises(InvalidOption, match="cost is for 3 classes, but the probabilities have 2"):
        select([{"expected_cost": {"cost": COST}}], Pool(probabilities=[[0.5, 0.5]]), budget=1)
    with pytest.raises(InvalidOption, match="needs the option 'cost'"):
        build_step("expected_cost")
    step = ExpectedCost(cost=COST)
    assert build_step(step_spec(step)) == step
