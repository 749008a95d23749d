from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput, InvalidOption, Pool, select
from selection.scorers.class_probability import ClassProbability

P = np.array([[0.2, 0.8, 0], [0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32)


@pytest.mark.parametrize(("of", "rows"), [(0, [1, 0, 2]), (1, [0, 2, 1]), ("good", [0, 2, 1]), ("x", [1, 2, 0])])
def test_class_probability__by_number_and_by_name(of: Any, rows: list[int]) -> None:
    pool = Pool(probabilities=P, classes=["bad", "good", "x"])
    selection = select([{"class_probability": {"of": of}}], pool, budget=3)
    assert selection.rows.tolist() == rows


@pytest.mark.parametrize("seed", range(60))
def test_class_probability__is_the_column(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, classes = int(rng.integers(1, 30)), int(rng.integers(1, 6))
    counts = rng.integers(0, 3, (n, classes)) + np.eye(classes, dtype=int)[rng.integers(0, classes, n)]
    probabilities = (counts / counts.sum(axis=1, keepdims=True)).astype([np.float16, np.float32, np.float64][seed % 3])
    of = int(rng.integers(0, classes))
    pool = Pool(probabilities=ArrayVectors(probabilities, block_rows=int(rng.integers(1, 9))))
    expected = sorted(range(n), key=lambda row: (-float(np.float32(probabilities[row, of])), row))
    selection = select([ClassProbability(of=of)], pool, budget=n)
    assert selection.rows.tolist() == expected
    assert selection.gain.tolist() == [float(np.float32(probabilities[row, of])) for row in expected]


def test_class_probability__names_follow_the_pool_into_its_parts() -> None:
    pool = Pool(probabilities=P, classes=("bad", "good", "x"), columns={"q": np.array([3, 2, 1])})
    steps = [{"column": {"field": "q"}}, {"keep_top": {"times": 2}}, {"class_probability": {"of": "bad"}}]
    assert select(steps, pool, budget=1).rows.tolist() == [1]


@pytest.mark.parametrize(
    ("of", "classes", "message"),
    [
        (3, (), r"of is 3, but the classes are 0..2; their names are not known"),
        ("good", (), r"of is 'good', but the classes are 0..2; their names are not known"),
        ("fine", ("bad", "good", "x"), r"of is 'fine', but the classes are 0..2, bad, good, x"),
        (7, ("bad", "good", "x"), r"of is 7, but the classes are 0..2, bad, good, x"),
    ],
)
def test_class_probability__an_unknown_class_is_an_error(of: Any, classes: Any, message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        select([ClassProbability(of=of)], Pool(probabilities=P, classes=classes), budget=1)


@pytest.mark.parametrize("of", [-1, True, "", 1.0, None, [0]])
def test_class_probability__bad_options(of: Any) -> None:
    with pytest.raises(InvalidOption, match="of must be a class's name or its number"):
        ClassProbability(of=of)


@pytest.mark.parametrize("classes", [["a", "b"], ["a", "a", "b"], ["a", 1, "b"], "abc"])
def test_pool__classes_must_be_one_name_for_each(classes: Any) -> None:
    with pytest.raises(InvalidInput, match="classes"):
        Pool(probabilities=P, classes=classes)


def test_class_probability__no_distribution_names_its_row() -> None:
    with pytest.raises(InvalidInput, match="probabilities: row 1 sums to 2"):
        select([ClassProbability(of=0)], Pool(probabilities=np.array([[0.5, 0.5], [1, 1]])), budget=1)
