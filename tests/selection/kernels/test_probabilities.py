from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, Pool, Targets, select
from selection.blocks import ArrayBlocks
from selection.checks import ShuffledVectors
from selection.kernels.compiled import probabilities as loops
from selection.kernels.probabilities import TILE_VALUES, by_row, checked, taken, tiles


def test_log__within_a_unit_in_the_last_place_of_libm() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.random(5000), 10.0 ** -rng.uniform(0, 300, 5000), rng.random(1000) * 1e9, [1.0, 0.5, 2.0]])
    out = np.empty(len(x))
    loops.log(x, out)
    np.testing.assert_array_max_ulp(out, np.log(x), maxulp=2)
    assert out[-3] == 0.0


def test_log__the_place_in_the_array_does_not_matter() -> None:
    x = np.random.default_rng(1).random(3001)
    whole = loops.logs(x)
    for start in (1, 7, 1023, 1500):
        assert np.array_equal(loops.logs(np.ascontiguousarray(x[start:])), whole[start:])


def test_log__zero_times_the_log_of_zero_is_zero() -> None:
    assert 0.0 * loops.logs(np.zeros(1))[0] == 0.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tiles__every_row_once_in_storage_order(dtype: type) -> None:
    P = np.random.default_rng(0).dirichlet(np.ones(400), 500).astype(dtype)
    order = np.random.default_rng(1).permutation(500)
    seen = []
    for rows, tile in tiles(ShuffledVectors(P, order, block_rows=201), "p"):
        assert tile.dtype == np.float64
        assert tile.size <= TILE_VALUES
        assert np.array_equal(tile, P[rows])
        seen += rows.tolist()
    assert seen == order.tolist()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "row 3 holds nan, must be finite and >= 0"),
        (np.inf, "row 3 holds inf, must be finite and >= 0"),
        (-0.25, "row 3 holds -0.25, must be finite and >= 0"),
        (0.252, "row 3 sums to 1.002, must sum to 1"),
    ],
)
def test_tiles__a_row_that_is_no_distribution_is_named(value: float, message: str) -> None:
    P = np.full((5, 4), 0.25)
    P[3, 2] = value
    with pytest.raises(InvalidInput, match=f"probabilities: {message}"):
        by_row(ArrayBlocks(P), "probabilities", loops.entropy)
    with pytest.raises(InvalidInput, match=message):
        taken(ArrayBlocks(P), np.array([0, 3]), "probabilities")
    committee = np.full((5, 3, 4), 0.25)
    committee[3, 1, 2] = value
    with pytest.raises(InvalidInput, match=message.replace("row 3", "committee: row 3, member 1")):
        list(tiles(ArrayBlocks(committee), "committee"))


def test_checked__rounding_is_no_error_and_no_classes_are() -> None:
    checked(np.array([[0.5004, 0.5004], [0.4996, 0.4996]]), None, "p")
    for shape in ((2, 0), (2, 0, 3), (2, 3, 0)):
        with pytest.raises(InvalidInput, match="at least one class and one member"):
            checked(np.zeros(shape), None, "p")


@pytest.mark.parametrize("values", [[["a", "b"]], np.array([[0.5, 0.5]], object)])
def test_select__probabilities_that_are_no_numbers_are_refused(values: object) -> None:
    pool = Pool(probabilities=np.array(values))
    for around in ({}, {"quota": {"by": "predicted_class", "balance": "water_fill"}}):
        with pytest.raises(InvalidInput, match="probabilities: must be numbers, got"):
            select(["entropy"], pool, budget=1, **around)


def test_select__lazy_probabilities_are_computed_and_checked_only_where_asked() -> None:
    P = np.random.default_rng(0).dirichlet(np.ones(3), 40).astype(np.float32)
    P[7] = np.nan

    class Model(ArrayBlocks):
        asked: list[int] = []  # noqa: RUF012

        def take(self, rows: np.ndarray) -> np.ndarray:
            self.asked.extend(rows.tolist())
            return super().take(rows)

    eligible = np.arange(40) % 2 == 0
    model = Model(P)
    picked = select(["entropy"], Pool(probabilities=model, eligible=eligible), budget=5)
    assert sorted(model.asked) == list(range(0, 40, 2))
    assert (picked.rows % 2 == 0).all()
    with pytest.raises(InvalidInput, match="probabilities: row 7 holds nan"):
        select(["entropy"], Pool(probabilities=model, eligible=~eligible), budget=5)


def test_targets__a_committee_is_checked() -> None:
    vectors, sets = np.eye(2, dtype=np.float32), np.zeros(2, np.int64)
    with pytest.raises(
        InvalidInput, match=r"three axes \(targets, members, classes\) and 2 targets, got shape \(1, 2, 2\)"
    ):
        Targets(vectors, sets, ("t",), committee=np.full((1, 2, 2), 0.5))
    with pytest.raises(InvalidInput, match=r"targets: committee: row 1, member 0 sums to 1.5"):
        Targets(vectors, sets, ("t",), committee=np.array([[[0.5, 0.5]], [[0.5, 1.0]]]))
