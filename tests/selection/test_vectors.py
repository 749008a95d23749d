from __future__ import annotations

import numpy as np
import pytest

from selection import ArrayVectors, InvalidInput, Pool, Vectors, select
from selection.blocks import SubBlocks, SubVectors, check_finite, restricted
from selection.checks import ShuffledVectors
from selection.vectors import ExactVectors, exact


def whole(vectors):
    out = np.full(vectors.shape, np.nan)
    for rows, block in vectors.blocks():
        out[rows] = block
    return out


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(100, 4)).astype(np.float16)


@pytest.mark.parametrize("count", [0, 5, 60, 100])
@pytest.mark.parametrize("block_rows", [1, 9, 1000])
def test_sub_vectors__are_the_rows_in_their_own_frame(array, count, block_rows):
    rng = np.random.default_rng(1)
    parent = ShuffledVectors(array, rng.permutation(100), block_rows=block_rows)
    rows = np.sort(rng.permutation(100)[:count])
    sub = SubVectors(parent, rows)
    assert isinstance(sub, Vectors)
    assert sub.shape == (count, 4)
    assert (whole(sub) == array[rows]).all()
    assert (sub.take(np.arange(count)[::-1]) == array[rows][::-1]).all()


def test_sub_vectors__nearest_is_searched_among_the_rows_only(array):
    rows = np.arange(10, 90, 3)
    query = np.ones((1, 4), np.float32)
    similarity, found = SubVectors(ArrayVectors(array), rows).nearest(query, 3)
    expected = np.argsort(-array[rows].astype(float).sum(axis=1))[:3]
    assert found.tolist() == [expected.tolist()]
    np.testing.assert_allclose(similarity[0], array[rows][expected].astype(float).sum(axis=1), rtol=1e-6)
    assert SubVectors(ArrayVectors(array), rows).nearest(query, 2, within=np.array([4]))[1].tolist() == [[4, -1]]


def test_take__of_a_take_refers_to_the_first_parent(array):
    pool = Pool(vectors=array).take(np.arange(20, 80)).take(np.array([0, 5, 59]))
    vectors = pool.get_vectors()
    assert isinstance(vectors, SubVectors)
    assert not isinstance(vectors.parent, SubBlocks)
    assert (vectors.take(np.arange(3)) == array[[20, 25, 79]]).all()


def test_take__asks_a_lazy_input_for_its_rows_only():
    class Model:
        """Probabilities that cost a model pass for each row."""

        shape = (1000, 2)

        def __init__(self):
            self.evaluated = []

        def blocks(self):
            raise AssertionError("evaluates every row")

        def take(self, rows):
            self.evaluated += rows.tolist()
            return np.full((len(rows), 2), 0.5)

    model = Model()
    sub = Pool(probabilities=model).take(np.array([3, 500])).get_probabilities()
    assert [rows.tolist() for rows, _ in sub.blocks()] == [[0, 1]]
    assert model.evaluated == [3, 500]


def test_array_vectors__nearest_pads_what_is_missing():
    similarity, rows = ArrayVectors(np.eye(2, dtype=np.float32)).nearest(np.ones((1, 2), np.float32), 3)
    assert rows.tolist() == [[0, 1, -1]]
    assert similarity.tolist() == [[1, 1, -np.inf]]


def test_sub_vectors__nearest_names_a_bad_row_in_its_own_frame(array):
    array[40, 1] = np.nan
    sub = SubVectors(ArrayVectors(array), np.arange(30, 60))
    with pytest.raises(InvalidInput) as found:
        sub.nearest(np.ones((1, 4), np.float32), 3)
    assert found.value.row == 10


class Approximate(ShuffledVectors):
    """Vectors whose own search finds nothing."""

    def nearest(self, queries, k, within=None):
        return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)


@pytest.mark.parametrize("count", [0, 3, 20, 70, 100])
def test_exact__searches_every_row_whatever_the_vectors_do(array, count):
    rng = np.random.default_rng(3)
    order, within = rng.permutation(100), np.sort(rng.permutation(100)[:count])
    queries = rng.normal(size=(5, 4)).astype(np.float32)
    vectors = exact(restricted(Approximate(array, order, block_rows=7), np.arange(100)))
    similarity, found = vectors.nearest(queries, 4, within)
    expected = ArrayVectors(array).nearest(queries, 4, within)
    assert found.tolist() == expected[1].tolist()
    assert similarity.tolist() == expected[0].tolist()
    product = queries.astype(np.float64) @ array[within].T.astype(np.float64)
    assert found[:, :count].tolist() == within[np.argsort(-product, axis=1)[:, :4]].tolist()


def test_exact__stays_so_in_a_subpool(array):
    vectors = exact(restricted(Approximate(array, np.arange(100), block_rows=7), np.arange(100)))
    sub = Pool(vectors=vectors).take(np.arange(10, 90, 2)).take(np.arange(0, 40, 3)).get_vectors()
    assert isinstance(sub, ExactVectors)
    assert exact(sub) is sub
    assert (whole(sub) == array[10:90:2][::3]).all()
    assert sub.nearest(array[[16]].astype(np.float32), 1)[1].min() >= 0
    assert exact(ArrayVectors(array)).shape == (100, 4)


def test_exact__names_a_bad_row_in_the_frame_of_the_vectors(array):
    array[40, 1] = np.nan
    vectors = exact(SubVectors(ArrayVectors(array), np.arange(30, 60)))
    for within in (np.array([2, 10]), np.arange(30)):
        with pytest.raises(InvalidInput) as found:
            vectors.nearest(np.ones((1, 4), np.float32), 3, within)
        assert found.value.row == 10


@pytest.mark.parametrize("layout", ["rows", "columns", "every other", "backwards"])
def test_array_vectors__of_any_layout_lead_to_the_same_rows(layout):
    X = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    wide = np.zeros((300, 48), np.float32)
    wide[:, ::2] = X
    given = {
        "rows": X,
        "columns": np.asfortranarray(X),
        "every other": wide[:, ::2],
        "backwards": X[::-1].copy()[::-1],
    }[layout]
    held = ArrayVectors(given)
    assert (held.take(np.array([7, 3])) == X[[7, 3]]).all()
    assert (
        select(["k_center"], Pool(vectors=held), budget=20).rows.tolist()
        == select(["k_center"], Pool(vectors=X), budget=20).rows.tolist()
    )


def test_check_finite__names_the_first_bad_row_of_those_given():
    values = np.zeros((4, 2), np.float32)
    check_finite(values, np.arange(4))
    values[2:, 1] = np.nan, np.inf
    with pytest.raises(InvalidInput, match="row 12 holds a value that is not finite") as error:
        check_finite(values, np.arange(10, 14))
    assert error.value.row == 12
