from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from selection import ArrayVectors
from selection.blocks import restricted
from selection.checks import ShuffledVectors
from selection.kernels import duplicates
from selection.kernels.assign import nearest_centres
from selection.kernels.compiled import facility_location as facility_location_loops
from selection.kernels.device import facility_location as device_facility_location
from selection.kernels.device import k_center as device_k_center
from selection.kernels.device import tensor
from selection.kernels.duplicates import duplicates_in
from selection.kernels.facility_location import Coverage
from selection.kernels.k_center import k_center
from selection.kernels.kmeans_pp import kmeans_pp
from selection.kernels.nearest import farthest_from
from selection.kernels.neighbor_graph import nearest_neighbours
from selection.kernels.normalize import unit_rows, unit_vectors
from selection.kernels.top_k import max_similarity, similarity_to, top_k
from selection.vectors import TensorVectors, exact, on_gpu

sys.path.insert(0, str(Path(__file__).parents[1]))
from coverage_cases import hard_vectors, row_dots, row_square_distances

from tests.quick import quick_first

torch = pytest.importorskip("torch")
HARD = hard_vectors()


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def device(request):
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return request.param


@pytest.fixture(params=[pytest.param(2**24, marks=pytest.mark.slow), 3000])
def tile_values(request, monkeypatch):
    monkeypatch.setattr(tensor, "TILE_VALUES", request.param)


@pytest.mark.parametrize("d", [1, 3, 4, 8, 9, 31, 64])
def test_sums__are_those_of_the_compiled_loops_to_the_bit(d, device):
    rng = np.random.default_rng(d)
    X, Y = (
        (rng.standard_normal((200, d)) * 10.0 ** rng.integers(-20, 20, (200, d))).astype(np.float32) for _ in range(2)
    )
    x, y = torch.tensor(X, device=device), torch.tensor(Y, device=device)
    for ours, theirs in (
        (tensor.dots(x, y), row_dots(X, Y)),
        (tensor.square_distances(x, y), row_square_distances(X, Y)),
    ):
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_top_k__both_implementations_agree_to_the_bit(name, device, tile_values):
    X = HARD[name]
    rng = np.random.default_rng(0)
    queries = np.concatenate([X[:7], X[50:60], np.zeros_like(X[:1])])
    skip = rng.random(len(X)) < 0.3
    host = ArrayVectors(X)
    there = TensorVectors(ShuffledVectors(X, rng.permutation(len(X)), block_rows=17), device)
    for starts in (None, np.array([0, 3, 4, 18])):
        for depth in (1, 40, len(X)):
            first = top_k(host, queries, depth=depth, starts=starts)
            below = first.score[:, depth // 8].copy(), first.row[:, depth // 8].copy()
            for options in ({}, {"skip": skip, "below": below}):
                expected = top_k(host, queries, depth=depth, starts=starts, **options)
                found = top_k(there, queries, depth=depth, starts=starts, **options)
                assert found.row.tolist() == expected.row.tolist()
                assert found.score.tolist() == expected.score.tolist()
    assert max_similarity(there, queries).tolist() == max_similarity(host, queries).tolist()
    query = rng.standard_normal(X.shape[1])
    assert similarity_to(there, query).tolist() == similarity_to(host, query).tolist()


def test_top_k__entries_held_are_cut_back(monkeypatch, device):
    from selection.kernels.device import top_k as device_top_k

    monkeypatch.setattr(device_top_k, "HELD", 1)
    monkeypatch.setattr(tensor, "TILE_VALUES", 200)
    X = np.tile(HARD["clustered"][:3], (50, 1))  # every row ties with fifty
    expected = top_k(ArrayVectors(X), X[:3], depth=5)
    found = top_k(TensorVectors(ArrayVectors(X), device), X[:3], depth=5)
    assert (found.row.tolist(), found.score.tolist()) == (expected.row.tolist(), expected.score.tolist())


def test_tensor_vectors__a_restriction_shares_the_copy(device):
    X = HARD["float16"]
    there = TensorVectors(ArrayVectors(X), device)
    rows = np.arange(1, 300, 3)
    part = restricted(restricted(there, rows), np.arange(0, 100, 2))
    assert part.copy is there.copy
    assert part.part(slice(3, 6)).cpu().numpy().tolist() == X[rows[::2][3:6]].tolist()
    assert (part.take(np.array([4, 1])) == X[rows[::2][[4, 1]]]).all()
    assert np.concatenate([block for _, block in part.blocks()]).tolist() == X[rows[::2]].tolist()
    for one, other in ((part, ArrayVectors(X[rows[::2]])), (exact(part), ArrayVectors(X[rows[::2]]))):
        for within in (None, np.array([3, 40]), np.arange(45)):
            got, expected = one.nearest(X[:4], 3, within), other.nearest(X[:4], 3, within)
            assert (got[0].tolist(), got[1].tolist()) == (expected[0].tolist(), expected[1].tolist())


def test_tensor_vectors__a_restriction_is_searched_on_the_device_too(device, monkeypatch):
    from selection.kernels.device import top_k as device_top_k

    searched = []
    monkeypatch.setattr(device_top_k, "top_k", lambda vectors, *_: searched.append(vectors.shape[0]))
    there = TensorVectors(ArrayVectors(HARD["clustered"]), device)
    there.nearest(HARD["clustered"][:2], 3)
    restricted(restricted(there, np.arange(0, 300, 2)), np.arange(100)).nearest(HARD["clustered"][:2], 3)
    assert searched == [300, 100]


def test_tensor_vectors__search_the_index_of_the_source_until_asked_to_be_exact(device):
    class Indexed(ArrayVectors):
        def nearest(self, queries, k, within=None):
            return np.zeros((len(queries), k), np.float32), np.full((len(queries), k), 7)

    class Stored:  # not one of ours
        def __init__(self, held):
            self.shape, self.device, self.blocks, self.take, self.nearest = (
                held.shape,
                "cpu",
                held.blocks,
                held.take,
                held.nearest,
            )

    there = TensorVectors(Stored(Indexed(np.eye(9, dtype=np.float32))), device)
    assert there.nearest(np.eye(9)[:1], 1)[1].tolist() == [[7]]
    assert exact(there).nearest(np.eye(9)[:1], 1)[1].tolist() == [[0]]


@pytest.mark.parametrize(("setting", "fast", "full"), [("allow_tf32", True, False), ("fp32_precision", "tf32", "ieee")])
def test_full_float32__turns_tf32_off_and_then_back(setting, fast, full):
    backend = torch.backends.cuda.matmul
    if setting == "fp32_precision" and not hasattr(backend, setting):
        pytest.skip("this torch has only the older setting")
    before = getattr(backend, setting)
    setattr(backend, setting, fast)
    try:
        with tensor.full_float32():
            assert getattr(backend, setting) == full
        assert getattr(backend, setting) == fast
    finally:
        setattr(backend, setting, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_on_gpu__without_a_gpu_is_the_same_vectors_and_imports_no_torch():
    vectors = ArrayVectors(np.eye(3, dtype=np.float32))
    assert on_gpu(vectors, least=0) is vectors
    code = "import sys, numpy as np; from selection.vectors import *; on_gpu(ArrayVectors(np.eye(3)), least=0); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" not in found.stdout.split()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_gpu__what_fits_is_put_there():
    vectors = ArrayVectors(np.eye(3, dtype=np.float32))
    assert on_gpu(vectors, least=0).device == "cuda:0"
    assert on_gpu(vectors, least=0, share=0.0) is vectors
    assert on_gpu(vectors) is vectors


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_k_center_and_kmeans_pp__both_implementations_agree_to_the_bit(name, device, tile_values, monkeypatch):
    monkeypatch.setattr(device_k_center, "CENTRES_AT_ONCE", 5)
    X = HARD[name]
    budget = min(60, len(X) // 2)
    host, there = ArrayVectors(X), TensorVectors(ArrayVectors(X, block_rows=17), device)
    centres, candidates = np.array([4, 2]), np.ones(len(X), bool)
    candidates[[2, 4, 9]] = False
    order = np.random.default_rng(1).permutation(np.flatnonzero(candidates))
    point = np.random.default_rng(2).standard_normal(X.shape[1])
    for draw in (
        lambda vectors: k_center(vectors, budget, centres=centres, candidates=candidates, skip=2),
        lambda vectors: kmeans_pp(vectors, budget, centres=centres, order=order, rng=np.random.default_rng(0)),
    ):
        got, expected = draw(there), draw(host)
        assert got.rows.tolist() == expected.rows.tolist()
        assert got.near.tolist() == expected.near.tolist()
        assert got.distance.tolist() == expected.distance.tolist()
    assert farthest_from(point, there, candidates) == farthest_from(point, host, candidates)


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_assign__both_implementations_agree_to_the_bit(name, device, tile_values):
    X = HARD[name]
    host, there = ArrayVectors(X), TensorVectors(ArrayVectors(X, block_rows=17), device)
    for centres in (X[:40].astype(np.float32), X[::3].astype(np.float32), np.zeros((2, X.shape[1]), np.float32)):
        for got, expected in zip(nearest_centres(there, centres), nearest_centres(host, centres), strict=True):
            assert got.place.tolist() == expected.place.tolist()
            assert got.value.tolist() == expected.value.tolist()


@pytest.mark.parametrize("rule", ["greedy", "reference", "component"])
@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_duplicates_in__both_implementations_agree_to_the_bit(name, rule, device, monkeypatch):
    monkeypatch.setattr(duplicates, "BLOCK_VALUES", 20_000)
    monkeypatch.setattr(tensor, "TILE_VALUES", 3000)
    X = HARD[name]
    rows = np.random.default_rng(3).permutation(np.flatnonzero(X.any(axis=1)))
    there = TensorVectors(ArrayVectors(X, block_rows=17), device)
    part, inner = np.unique(rows, return_inverse=True)
    for threshold in (1 - 1e-7, 0.97, -1.0):
        expected = duplicates_in(ArrayVectors(X), rows, fixed=9, threshold=threshold, rule=rule)
        found = duplicates_in(there, rows, fixed=9, threshold=threshold, rule=rule)
        again = duplicates_in(restricted(there, part), inner, fixed=9, threshold=threshold, rule=rule)
        assert found.row.tolist() == part[again.row].tolist() == expected.row.tolist()
        assert found.of.tolist() == part[again.of].tolist() == expected.of.tolist()
        assert found.similarity.tolist() == again.similarity.tolist() == expected.similarity.tolist()


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_facility_location__both_implementations_agree_to_the_bit(name, device, tile_values, monkeypatch):
    monkeypatch.setattr(device_facility_location, "CHUNK_ROWS", 7)
    monkeypatch.setattr(device_facility_location, "BOUND_VALUES", 3000)
    X = HARD[name]
    rng = np.random.default_rng(4)
    weights = rng.random(len(X)) * (rng.random(len(X)) < 0.9)
    part = np.sort(rng.permutation(len(X))[: len(X) // 2])
    there = TensorVectors(ArrayVectors(X, block_rows=17), device)
    for options in (
        {"weights": weights, "taken": np.array([3, 11]), "max_bytes": 1},
        {"references": np.arange(1, len(part), 3), "taken": part[:0], "max_bytes": 2**30},
        {"weights": weights, "taken": part[:0], "max_bytes": len(X) * 2**7},
    ):
        for one, other in ((there, ArrayVectors(X)), (restricted(there, part), ArrayVectors(X[part]))):
            known = options | ({"weights": weights[: one.shape[0]]} if "weights" in options else {})
            found, expected = Coverage(one, **known), Coverage(other, **known)
            among = np.setdiff1d(np.arange(one.shape[0]), options["taken"])
            got, wanted = found.greedy(among, len(among)), expected.greedy(among, len(among))
            assert got[0].tolist() == wanted[0].tolist()
            assert got[1].tolist() == wanted[1].tolist()
            assert found.before == expected.before
            assert found.twin.tolist() == expected.twin.tolist()


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_facility_location__no_bound_of_a_gpu_is_below_the_exact_gain(name, device, tile_values):
    X = HARD[name]
    weights = np.random.default_rng(5).random(len(X)) ** 9
    there = TensorVectors(ArrayVectors(X), device)
    coverage = Coverage(ArrayVectors(X), weights=weights, taken=np.array([0, 5]), max_bytes=2**30)
    references = np.flatnonzero(coverage.norms > 0)
    references = references[np.argsort(coverage.place[references])]  # as `coverage` has them, by weight
    similarities = device_facility_location.Similarities(there, references, coverage.weight32, coverage.unit)
    bounds = similarities.bounds(references, coverage.low)
    for row, bound in zip(references, bounds, strict=True):
        exact = np.array(
            [
                facility_location_loops.exact(
                    coverage.refs[coverage.place[row]], coverage.norms[row], y, y_norm, coverage.unit
                )
                for y, y_norm in zip(coverage.refs, coverage.ref_norm, strict=True)
            ]
        )
        gain = np.floor(coverage.weight * np.maximum(exact - coverage.covered, 0)).sum()
        assert gain <= bound <= gain + (2**-13 * gain + 4 * coverage.margin * coverage.weight.sum() * coverage.unit + 1)


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_nearest_neighbours__both_implementations_find_the_same(name, device, tile_values):
    X = HARD[name]
    part = np.arange(0, len(X), 2)
    there = TensorVectors(ArrayVectors(X, block_rows=17), device)
    for one, other in ((there, ArrayVectors(X)), (restricted(there, part), ArrayVectors(X[part]))):
        for count in (1, 9, 400):
            found, expected = nearest_neighbours(one, count), nearest_neighbours(other, count)
            assert np.sort(found, axis=1).tolist() == np.sort(expected, axis=1).tolist()


@pytest.mark.parametrize("name", quick_first(5, HARD))
def test_unit_vectors__are_the_same_on_a_device_to_the_bit(name, device):
    X = HARD[name]
    there = unit_vectors(TensorVectors(ArrayVectors(X), device))
    assert there.part(slice(None)).cpu().numpy().tolist() == unit_rows(X).tolist()
    assert there.part(torch.tensor([3, 50], device=device))[1:].cpu().numpy().tolist() == unit_rows(X[50:51]).tolist()
