from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import ArrayVectors, InvalidInput, InvalidOption
from selection.metrics import balance, coverage, mean_discrepancy, vendi_score

LINE = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [20.0]], np.float32)
EIGHT = np.array([[-1, 0], [5, 9], [-9, -7], [6, 9], [-5, -4], [7, -1], [-4, 6], [-5, -2]], np.float32)


def test_coverage__line_of_six() -> None:
    measured = coverage(LINE, [0, 5, 3], shares=[0.5, 0.8, 1.0])
    assert measured.radius == 2.0
    assert measured.mean_distance == pytest.approx(2 / 3, abs=1e-15)
    assert measured.p_radius == {0.5: 0.0, 0.8: 1.0, 1.0: 2.0}


def test_coverage__eight_in_the_plane() -> None:
    measured = coverage(EIGHT, [0, 3, 5])
    assert measured.facility_location == pytest.approx(7.52506348102226, rel=1e-14)
    assert measured.mean_similarity == pytest.approx(0.9406329351277825, rel=1e-14)


@settings(max_examples=25)
@given(
    n=st.integers(1, 60), d=st.integers(1, 40), seed=st.integers(0, 99), scale=st.sampled_from([1e-25, 1e-3, 1, 1e19])
)
def test_coverage__is_what_float64_says(n: int, d: int, seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, d)) * scale).astype(np.float32)
    x[rng.random(n) < 0.2] = 0
    rows = rng.permutation(n)[: rng.integers(1, n + 1)]
    exact = x.astype(np.float64)
    distance = np.sqrt(((exact[:, None] - exact[None, rows]) ** 2).sum(axis=2)).min(axis=1)
    norm = np.linalg.norm(exact, axis=1)
    cosine = exact @ exact[rows].T / np.where(norm > 0, norm, 1)[:, None] / np.where(norm > 0, norm, 1)[rows]
    similarity = np.where((norm[:, None] > 0) & (norm[rows] > 0), (1 + cosine) / 2, 0).max(axis=1)
    measured = coverage(x, rows, shares=[0.3, 1.0])
    np.testing.assert_allclose(measured.radius, distance.max(), rtol=1e-12)
    np.testing.assert_allclose(measured.mean_distance, distance.mean(), rtol=1e-12)
    np.testing.assert_allclose(measured.p_radius[0.3], np.sort(distance)[math.ceil(0.3 * n - 1e-9) - 1], rtol=1e-12)
    np.testing.assert_allclose(measured.facility_location, similarity.sum(), rtol=1e-12)


def test_coverage__blocks_do_not_matter_and_half_precision_is_read_as_it_is() -> None:
    x = np.random.default_rng(0).normal(size=(500, 33)).astype(np.float16)
    rows = [3, 77, 400, 401]
    whole = coverage(x, rows)
    assert whole == coverage(ArrayVectors(x, block_rows=13), rows) == coverage(x.astype(np.float32), rows)


def test_coverage__copies_of_a_selected_row_lie_at_distance_zero() -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32) * 100, 20, axis=0)
    assert coverage(x, [7]).radius == 0


def test_coverage__bad_input_is_named() -> None:
    x = LINE.copy()
    x[2] = np.nan
    with pytest.raises(InvalidInput, match="row 2"):
        coverage(x, [0])
    for bad in ([], [6], [-1], [0.5]):
        with pytest.raises(InvalidInput, match="selected"):
            coverage(LINE, bad)
    with pytest.raises(InvalidOption, match="share"):
        coverage(LINE, [0], shares=[0])
    with pytest.raises(InvalidOption, match="coverage: shares must be a finite number, got '90%'"):
        coverage(LINE, [0], shares=["90%"])


def test_metrics__take_their_rows_by_name_and_lists_for_arrays() -> None:
    vectors = EIGHT.tolist()
    assert coverage(vectors, rows=[0, 3, 5]) == coverage(EIGHT, np.array([0, 3, 5]))
    assert vendi_score(vectors, rows=[0, 3]) == vendi_score(EIGHT, [0, 3])
    assert mean_discrepancy(vectors, rows=[0, 3]) == mean_discrepancy(EIGHT, [0, 3])
    assert balance(groups=["a", "b"], rows=[1]).shares == {"a": 0.0, "b": 1.0}
    with pytest.raises(InvalidInput, match="groups: must have one value a row"):
        balance([["a", "b"]], [0])


def test_vendi_score__eight_in_the_plane_and_its_ends() -> None:
    assert vendi_score(EIGHT, [0, 3, 5]) == pytest.approx(1.6859299362886182, rel=1e-12)
    assert vendi_score(np.eye(7), np.arange(7)) == pytest.approx(7)
    assert vendi_score(np.outer(np.arange(1, 6), [1.0, 2.0, 3.0]), np.arange(5)) == pytest.approx(1)
    assert vendi_score(np.eye(3)[[0, 1, 2, 2]] * [[1], [1], [0], [5]], np.arange(4)) == pytest.approx(
        3
    )  # zero left out


@settings(max_examples=25)
@given(b=st.integers(1, 30), d=st.integers(1, 30), seed=st.integers(0, 99))
def test_vendi_score__is_the_definition_by_either_product(b: int, d: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(b, d))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    share = np.linalg.svd(unit, compute_uv=False) ** 2 / b
    share = share[share > 1e-13]
    assert vendi_score(x, np.arange(b)) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert 1 - 1e-6 <= vendi_score(x, np.arange(b)) <= min(b, d) + 1e-6


def test_mean_discrepancy__eight_in_the_plane_and_its_ends() -> None:
    assert mean_discrepancy(EIGHT, [0, 3, 5]) == pytest.approx(0.2061230574077345, rel=1e-12)
    assert mean_discrepancy(EIGHT, np.arange(8)) == 0
    kernel = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in EIGHT.astype(float)] for b in EIGHT])
    rows = [1, 2]
    by_kernel = kernel.mean() - 2 * kernel[rows].mean() + kernel[np.ix_(rows, rows)].mean()
    assert mean_discrepancy(EIGHT, rows) == pytest.approx(by_kernel, rel=1e-6)


def test_mean_discrepancy__blocks_do_not_matter() -> None:
    x = np.random.default_rng(0).normal(size=(5000, 9)).astype(np.float16)
    assert mean_discrepancy(x, [3, 77]) == mean_discrepancy(ArrayVectors(x, block_rows=13), [3, 77])


def test_vendi_score_and_mean_discrepancy__bad_input_is_named() -> None:
    x = LINE.copy()
    x[2] = np.inf
    for metric in (vendi_score, mean_discrepancy):
        with pytest.raises(InvalidInput, match="row 2"):
            metric(x, [2])
        with pytest.raises(InvalidInput, match="selected"):
            metric(LINE, [6])
    with pytest.raises(InvalidInput, match="every vector is zero"):
        vendi_score(LINE, [0])


def test_balance__entropy_and_distance_to_the_pool() -> None:
    groups = np.array(["a", "a", "b", "c"])
    measured = balance(groups, [0, 1, 2, 3])
    assert measured.entropy == pytest.approx(1.0397207708399179)
    assert measured.entropy / math.log(2) == pytest.approx(1.5)
    assert measured.normalized_entropy == pytest.approx(0.946394630357186)
    assert measured.kl_to_pool == 0
    single = balance(groups, [2])
    assert single.entropy == 0
    assert single.kl_to_pool == pytest.approx(math.log(4))
    assert single.shares == {"a": 0, "b": 1, "c": 0}


def test_balance__null_is_a_group_and_one_group_is_balanced() -> None:
    measured = balance(np.array(["x", None, "x", None], object), [0, 1])
    assert measured.shares == {"x": 0.5, "null": 0.5}
    assert balance([1, 1, 1], [0]).normalized_entropy == 1
    with pytest.raises(InvalidInput, match="outside"):
        balance([1, 1, 1], [3])
