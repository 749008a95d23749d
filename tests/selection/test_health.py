"""Measures of a representation beside literal ones, and numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from selection import health
from selection.errors import InvalidInput

SAMPLE = np.array([[1.0, 0.0, 0.2], [0.9, 0.1, 0.3], [0.8, 0.5, 0.1], [0.7, 0.2, 0.6], [0.6, 0.6, 0.5]])
SMALL = arrays.arrays(
    np.float32,
    st.tuples(st.integers(2, 12), st.integers(1, 6)),
    elements=st.floats(-2, 2, width=16).filter(lambda value: value == 0 or abs(value) > 0.01),
)


def naive_rank(sample: np.ndarray) -> float:
    """RankMe, by its formula."""
    values = np.linalg.svd(np.asarray(sample, np.float64), compute_uv=False)
    if not values.sum():
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-sum(share * np.log(share) for share in shares if share > 0)))


def test_effective_rank__known_answer() -> None:
    assert health.effective_rank(SAMPLE) == pytest.approx(2.368568611, abs=1e-9)


def test_mean_cosine__known_answer() -> None:
    unit = SAMPLE / np.linalg.norm(SAMPLE, axis=1, keepdims=True)
    assert health.mean_cosine(unit) == pytest.approx(0.858505754, abs=1e-9)
    assert health.mean_cosine(unit[:1]) is None


@given(SMALL, st.booleans())
def test_effective_rank__is_that_of_the_singular_values(sample: np.ndarray, centred: bool) -> None:
    wide = np.asarray(sample, np.float64)
    expected = naive_rank(wide - wide.mean(axis=0) if centred else wide)
    found = health.effective_rank(sample, centred=centred)
    if centred and np.ptp(sample, axis=0).max() == 0:
        return  # rounding of the mean alone is left
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert found <= min(sample.shape) + 1e-9


@pytest.mark.parametrize("turned", [False, True])
def test_effective_rank__of_more_rows_than_dimensions_and_of_fewer(turned: bool) -> None:
    sample = np.random.default_rng(0).normal(size=(40, 7)) @ np.diag(np.arange(1, 8))
    sample = sample.T if turned else sample
    assert health.effective_rank(sample) == pytest.approx(naive_rank(sample), rel=1e-9)
    assert health.effective_rank(np.zeros((3, 2))) == 0.0
    assert health.effective_rank(np.ones((0, 2))) == 0.0


@given(SMALL)
def test_neighbours_and_mean__beside_literal_loops(sample: np.ndarray) -> None:
    unit = health.at_unit_length(sample)
    cosines = np.asarray(unit, np.float64) @ np.asarray(unit, np.float64).T
    pairs = [cosines[i, j] for i in range(len(unit)) for j in range(len(unit)) if i != j]
    assert health.mean_cosine(unit) == pytest.approx(np.mean(pairs), abs=1e-6)
    rows, highest = health.nearest_other(unit)
    for row in range(len(unit)):
        others = [cosines[row, other] for other in range(len(unit)) if other != row]
        assert rows[row] != row
        assert highest[row] == pytest.approx(max(others), abs=1e-5)
        assert cosines[row, rows[row]] == pytest.approx(max(others), abs=1e-5)


def test_nearest_other__blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = health.at_unit_length(np.random.default_rng(1).normal(size=(50, 5)))
    whole = health.nearest_other(unit)
    monkeypatch.setattr(health, "BLOCK_ROWS", 7)
    parts = health.nearest_other(unit)
    assert (whole[0] == parts[0]).all()
    assert np.allclose(whole[1], parts[1], atol=1e-6)


def test_at_unit_length__undoes_the_rounding_of_float16() -> None:
    wide = np.random.default_rng(2).normal(size=(20, 64))
    stored = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16)
    lengths = np.linalg.norm(health.at_unit_length(stored).astype(np.float64), axis=1)
    assert np.abs(np.linalg.norm(stored.astype(np.float64), axis=1) - 1).max() > 1e-6
    assert np.abs(lengths - 1).max() < 1e-6


def test_plants_recalled__nearest_only_and_never_without_a_vector() -> None:
    unit = health.at_unit_length(np.random.default_rng(3).normal(size=(30, 8)))
    planted = unit[[4, 9, 20]] + np.float32(0.01)
    planted[2] = 0
    assert health.plants_recalled(planted, unit, np.array([4, 8, 20])).tolist() == [True, False, False]
    # Of vectors that are all the same, only the first row is nearest: they recall nothing.
    same = np.ones((30, 2), np.float32) / np.float32(np.sqrt(2))
    assert health.plants_recalled(same[:5], same, np.arange(5)).tolist() == [True, False, False, False, False]
    with pytest.raises(InvalidInput, match="dimensions among rows of"):
        health.plants_recalled(unit[:, :3], unit, np.array([0]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 2)), min_size=1, max_size=30))
def test_collapse__beside_counting(pairs: list[tuple[int, int]]) -> None:
    cells, groups = (np.array(column) for column in zip(*pairs, strict=True))
    for number, found in enumerate(health.collapse(cells, groups, 3)):
        of_group = [cell for cell, group in pairs if group == number]
        counts = [of_group.count(cell) for cell in range(5)]
        assert found.rows == len(of_group)
        assert found.cell == counts.index(max(counts))
        assert found.share == (max(counts) / len(of_group) if of_group else 0)
        assert found.share_of_all == [cell for cell, _ in pairs].count(found.cell) / len(pairs)


def test_fit_cells__the_same_again_and_each_row_in_the_nearest() -> None:
    rng = np.random.default_rng(4)
    centres = np.eye(8, dtype=np.float32)[:4]
    unit = health.at_unit_length(np.repeat(centres, 50, axis=0) + rng.normal(size=(200, 8)) * 0.05)
    fitted = health.fit_cells(unit, 4, seed=0)
    assert (fitted == health.fit_cells(unit, 4, seed=0)).all()
    cells = health.cells_of(unit, fitted)
    assert sorted(np.bincount(cells)) == [50] * 4
    found = health.collapse(cells, np.repeat([0, 1], 100), 2)
    assert [(each.share, each.share_of_all) for each in found] == [(0.5, 0.25)] * 2
