"""Vectors that several processes read: the selections of one process, however the segments are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import vector_shards
from pipelines.vector_shards import StoredParts
from selection import InvalidInput, Pool, Targets, select
from selection.kernels import estimates, facility_location, k_center, quantized
from selection.kernels.assign import nearest_centres
from selection.kernels.normalize import unit_rows
from selection.kernels.top_k import top_k
from selection.learning.classifier import CommitteeProbabilities, PredictedProbabilities
from selection.learning.linear import LinearModel
from selection.types import RowBlocks, Rows
from selection.vectors import VectorsInParts, exact
from storage.ids import from_bytes
from storage.shards import Map, Report, in_turn
from storage.store import Store
from storage.vectors.segments import StoredVectors, commit_segment

N, D = 300, 8


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> StoredVectors:
    return stored_vectors(Store(tmp_path_factory.mktemp("parts") / "store"))


def stored_vectors(store: Store) -> StoredVectors:
    """300 rows in three segments, in no order; some are the same, and some have no vector."""
    rng = np.random.default_rng(0)
    ids = from_bytes(sorted(rng.bytes(16) for _ in range(N)))
    values = unit_rows(rng.normal(size=(N, D)).astype(np.float32))
    values[40:80] = values[40]
    for rows in np.split(rng.permutation(N), [100, 130]):
        commit_segment(store, "encoder", ids[rows], values[rows], {}, failed=rows % 50 == 7)
    return StoredVectors(store, "encoder", ids, block_rows=16)


def backwards(work: Callable[[Any, Report], Any], shards: Iterable[Any], report: Report) -> Iterator[Any]:
    return iter([work(shard, report) for shard in list(shards)[::-1]][::-1])


def pool_of(vectors: Any) -> Pool:
    targets = unit_rows(np.random.default_rng(1).normal(size=(6, D)).astype(np.float32))
    return Pool(
        vectors=vectors,
        unit_length=True,
        targets=Targets(targets, np.array([0, 0, 0, 1, 1, 1]), ("first", "second")),
        already_selected=[3, 90],
        eligible=np.arange(N) % 11 > 0,
    )


RECIPES: list[list[Any]] = [
    ["rds_plus"],
    ["rds_max"],
    [{"rds_max": {"per": "subtask"}}],
    [{"rds_mean": {"normalized": True}}],
    [{"outliers": {"drop": 0.2}}, "rds_plus"],
    [{"semdedup": {"n_clusters": 5}}, "rds_plus"],
    ["k_center"],
    [{"facility_location": {"mode": "reference", "n_ref": 64, "memory_gb": 1e-9}}],
]


@pytest.mark.parametrize("rows", [7, 100_000])
def test_recipes__draw_what_they_draw_in_one_process(
    vectors: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(vector_shards, "PART_ROWS", rows)
    share_small_work(monkeypatch)
    check_recipes(RECIPES, vectors, backwards, tmp_path)


def share_small_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a large pool: `k_center` in several rounds, and what `facility_location` would do in this process alone."""
    monkeypatch.setattr(k_center, "PHASE_ROWS", 12)
    monkeypatch.setattr(k_center, "FRONT_ROWS", 40)
    monkeypatch.setattr(facility_location, "CHUNK_ROWS", 100)
    monkeypatch.setattr(facility_location, "PARTED_PRODUCTS", 0)
    monkeypatch.setattr(estimates, "PAIRS", 0)
    monkeypatch.setattr(quantized, "LEAST_FEATURES", 1)


def check_recipes(recipes: list[list[Any]], vectors: StoredVectors, parallel: Map, folder: Path) -> None:
    parted = VectorsInParts(exact(vectors), StoredParts(vectors, parallel, folder, lambda *_: None))
    for steps in recipes:
        alone, shared = (select(steps, pool_of(each), budget=40, seed=2) for each in (exact(vectors), parted))
        assert shared.rows.tolist() == alone.rows.tolist(), steps
        assert np.array_equal(shared.gain, alone.gain, equal_nan=True), steps


def check_kernels(vectors: StoredVectors, parallel: Map, folder: Path) -> None:
    parted = VectorsInParts(exact(vectors), StoredParts(vectors, parallel, folder, lambda *_: None))
    for rows in (np.arange(N), np.flatnonzero(np.random.default_rng(3).random(N) < 0.4)):
        alone, shared = exact(vectors).restricted(rows), parted.restricted(rows)  # type: ignore[attr-defined]
        queries = np.asarray(vectors.take(rows[:3]), np.float32)
        for expected, given in zip(nearest_centres(alone, queries), nearest_centres(shared, queries), strict=True):
            assert np.array_equal(expected.place, given.place)
            assert np.array_equal(expected.value, given.value)
        expected, given = (top_k(each, queries, depth=60) for each in (alone, shared))
        assert np.array_equal(expected.row, given.row)
        assert np.array_equal(expected.score, given.score)


def test_probabilities__are_those_of_one_process(
    vectors: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_shards, "PART_ROWS", 50)
    rng = np.random.default_rng(4)
    models = [LinearModel(rng.normal(size=(D, 3)), rng.normal(size=3)) for _ in range(2)]
    parted = VectorsInParts(vectors, StoredParts(vectors, backwards, tmp_path, lambda *_: None))
    check_probabilities(vectors, parted, models)


def check_probabilities(alone: RowBlocks, parted: RowBlocks, models: list[LinearModel]) -> None:
    for make in (
        lambda rows: PredictedProbabilities(rows, models[0]),
        lambda rows: CommitteeProbabilities(rows, models),
    ):
        expected, parts = make(alone).take(np.arange(alone.shape[0])), list(make(parted).blocks())
        for rows, P in parts:
            assert np.array_equal(P, expected[rows])
        assert sorted(np.concatenate([rows for rows, _ in parts]).tolist()) == list(range(alone.shape[0]))


def test_progress__is_of_the_rows_that_are_read(
    vectors: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_shards, "PART_ROWS", 50)
    seen: list[tuple[int, int]] = []
    parts = StoredParts(vectors, backwards, tmp_path, lambda *progress: seen.append(progress))
    check_kernels(vectors, backwards, tmp_path)
    read = [rows for rows, _ in parts(_count, lambda rows: None if rows.min() > 0 else ())]
    assert seen == [(50, 50)]
    assert len(read) == 1
    everything: Rows = np.sort(np.concatenate([rows for rows, _ in parts(_count, lambda _: ())]))
    assert everything.tolist() == list(range(N))


def test_groups__have_their_rows_wherever_these_are(
    vectors: StoredVectors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_shards, "PART_ROWS", 50)
    seen: list[tuple[int, int]] = []
    parts = StoredParts(vectors, backwards, tmp_path, lambda *progress: seen.append(progress))
    order = np.random.default_rng(6).permutation(N)
    groups = np.split(order, [1, 3, 120, 130, 250])
    results = list(parts.groups(_rows_and, groups, [(number,) for number in range(6)]))
    assert [number for _, number in results] == list(range(6))
    for rows, (values, _) in zip(groups, results, strict=True):
        assert np.array_equal(values, vectors.take(rows))
    assert seen[-1] == (N, N)
    assert list(parts.groups(_rows_and, [], [])) == []


def _rows_and(points: Any, number: int) -> tuple[Any, int]:
    return points.take(np.arange(points.shape[0])), number


def _count(points: Any) -> int:
    return int(points.shape[0])


def _refuse(points: Any) -> None:
    raise InvalidInput("row {row}", row=points.shape[0] - 1)


def test_a_bad_row__is_named_by_its_row_of_the_pool(vectors: StoredVectors, tmp_path: Path) -> None:
    parts = StoredParts(vectors, in_turn, tmp_path, lambda *_: None)
    for row in (7, 8):  # without and with a vector
        last: list[int] = []

        def of_part(rows: Rows, row: int = row, last: list[int] = last) -> tuple[()] | None:
            return last.append(int(rows[-1])) or () if row in rows else None

        with pytest.raises(InvalidInput, match=r"^row \d+$") as refused:
            list(parts(_refuse, of_part))
        assert [refused.value.row] == last
