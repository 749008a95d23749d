"""Search by cosine, whatever the lengths of the stored vectors."""

from __future__ import annotations

import numpy as np
import pytest

from selection import Pool, select
from selection.kernels.anchor_search import CosineSearch, nearest_of
from selection.vectors import ArrayVectors


class Indexed:
    """Vectors with an index: `nearest` by inner product of the vectors as they are, every row looked at."""

    def __init__(self, x: np.ndarray) -> None:
        self.inner = ArrayVectors(x)
        self.shape, self.device, self.blocks, self.take = x.shape, "cpu", self.inner.blocks, self.inner.take

    def nearest(self, queries: np.ndarray, k: int, within: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        return self.inner.nearest(queries, k, within)


def alike(n: int, seed: int) -> np.ndarray:
    """Stored vectors of cosines around 0.9996."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=256) + 0.02 * rng.normal(size=(n, 256))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def cosines(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


@pytest.mark.parametrize("seed", range(3))
def test_nearest__exact_search_goes_by_the_angle(seed: int) -> None:
    x = alike(300, seed)
    cosine = cosines(x)
    anchors = np.array([3, 7, 150])
    within = np.arange(300) % 2 == 0
    found = nearest_of(CosineSearch(ArrayVectors(x)), anchors, 10, within)
    for place, anchor in enumerate(anchors):
        rows = np.flatnonzero(within)
        expected = rows[np.argsort(-cosine[anchor, rows], kind="stable")[:10]]
        assert set(found.row[found.anchor == place]) == set(expected)
        np.testing.assert_allclose(
            np.sort(found.similarity[found.anchor == place]), np.sort(cosine[anchor, expected]), atol=1e-7
        )


def test_nearest__rows_of_an_index_are_compared_by_cosine() -> None:
    x = alike(300, 0)
    cosine = cosines(x)
    similarity, row = CosineSearch(Indexed(x)).nearest(x[:100].astype(np.float32), 20)
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine[:100], row, 1), atol=1e-7)
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert similarity.max() <= 1
    assert {frozenset(some) for some in row} == {
        frozenset(some) for some in Indexed(x).nearest(CosineSearch(ArrayVectors(x)).take(np.arange(100)), 20)[1]
    }
    short = CosineSearch(Indexed(x)).nearest(x[:2].astype(np.float32), 5, np.array([4, 9]))
    assert short[1][:, 2:].tolist() == [[-1] * 3] * 2


@pytest.mark.parametrize("step", [{"anchors": {"rows": 20, "aggregation": "max"}}, {"seals": {"rows": 20}}])
def test_select__filters_keep_the_nearest_by_angle(step: dict) -> None:
    x = alike(400, 1)
    cosine = cosines(x)
    labels = np.full(400, -1)
    labels[5] = 0
    pool = Pool(vectors=x, labels=labels, unit_length=True, already_selected=[5])
    picked = select([step, "random"], pool, budget=20)
    assert set(picked.rows.tolist()) == set((np.argsort(-cosine[5])[1:21]).tolist())
    (report,) = picked.retrieved
    assert report.reason.value.max() <= 1


def test_select__outliers_are_those_of_lowest_cosine() -> None:
    x = alike(200, 2)
    cosine = cosines(x)
    np.fill_diagonal(cosine, -1)
    mean = np.sort(cosine, axis=1)[:, -10:].mean(axis=1)
    picked = select(["outliers", "random"], Pool(vectors=x, unit_length=True), budget=10)
    (dropped,) = picked.dropped
    assert set(dropped.rows.tolist()) == set(np.argsort(mean)[:10].tolist())
    assert dropped.reason.value.max() <= 1
