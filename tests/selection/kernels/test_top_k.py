from __future__ import annotations

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from selection import ArrayVectors, InvalidInput
from selection.checks import ShuffledVectors
from selection.kernels import query_lists, threads
from selection.kernels import top_k as host
from selection.kernels.top_k import max_similarity, similarity_to, top_k


def exact(vectors, queries):
    """(m, n) the correctly rounded inner products."""
    pairs = [[math.fsum(a * b for a, b in zip(x, q, strict=True)) for x in vectors.tolist()] for q in queries.tolist()]
    return np.array(pairs)


def expected_lists(similarity, depth):
    n = similarity.shape[1]
    return [sorted(range(n), key=lambda row: (-similarity[q, row], row))[:depth] for q in range(len(similarity))]


def near_ties(n=200, d=384, m=5):
    """Rows that differ from one another by one unit in the last place of one coordinate."""
    rng = np.random.default_rng(1)
    queries = rng.normal(size=(m, d)).astype(np.float32)
    vectors = np.repeat(rng.normal(size=(1, d)), n, axis=0).astype(np.float32)
    where = rng.integers(0, d, n)
    rows = np.arange(n)
    vectors[rows, where] = np.nextafter(vectors[rows, where], np.float32(0))
    return vectors, queries


def test_top_k__decides_what_float32_cannot(implementation):
    vectors, queries = near_ties()
    similarity = exact(vectors, queries)
    lists = expected_lists(similarity, 20)
    assert expected_lists(queries @ vectors.T, 20) != lists  # so the test can fail
    for block_rows in (1, 7, 64, 200):
        shuffled = implementation(
            ShuffledVectors(vectors, np.random.default_rng(block_rows).permutation(200), block_rows=block_rows)
        )
        found = top_k(shuffled, queries, depth=20)
        assert found.row.tolist() == lists
        np.testing.assert_allclose(found.score, np.take_along_axis(similarity, found.row, axis=1), rtol=1e-14)


def test_top_k__group_is_the_maximum_over_its_queries(implementation):
    vectors, queries = near_ties()
    groups = np.stack([exact(vectors, queries[:3]).max(axis=0), exact(vectors, queries[3:]).max(axis=0)])
    found = top_k(implementation(ArrayVectors(vectors, block_rows=33)), queries, starts=np.array([0, 3, 5]), depth=11)
    assert found.row.tolist() == expected_lists(groups, 11)


def test_top_k__group_of_near_tied_queries_is_decided_exactly(implementation):
    queries, vectors = near_ties(n=40, m=60)  # the other way round: queries that differ by one last place
    similarity = exact(vectors, queries)
    coarse = (queries @ vectors.T).argmax(axis=0)
    assert (coarse != similarity.argmax(axis=0)).any()  # so the test can fail
    found = top_k(implementation(ArrayVectors(vectors)), queries, starts=np.array([0, 40]), depth=60)
    assert found.row.tolist() == expected_lists(similarity.max(axis=0)[None], 60)
    np.testing.assert_allclose(found.score[0], np.sort(similarity.max(axis=0))[::-1], rtol=1e-12, atol=1e-12)


def test_top_k__many_queries_are_taken_in_parts(monkeypatch, implementation):
    monkeypatch.setattr(query_lists, "TILE_QUERIES", 2)
    monkeypatch.setattr(host, "LEAST_QUERIES", 1)
    monkeypatch.setattr(host, "THREAD_QUERIES", 2)
    vectors, queries = near_ties(n=50, m=5)
    one_by_one = top_k(implementation(ArrayVectors(vectors)), queries, depth=9)
    assert one_by_one.row.tolist() == expected_lists(exact(vectors, queries), 9)
    found = top_k(implementation(ArrayVectors(vectors)), queries, starts=np.array([0, 3, 4, 5]), depth=9)
    groups = np.stack([exact(vectors, part).max(axis=0) for part in (queries[:3], queries[3:4], queries[4:])])
    assert found.row.tolist() == expected_lists(groups, 9)


def test_top_k__one_and_more_threads_agree_to_the_bit(monkeypatch, implementation):
    rng = np.random.default_rng(0)
    vectors = implementation(ArrayVectors(rng.normal(size=(5000, 64)).astype(np.float16)))
    queries = rng.normal(size=(150, 64)).astype(np.float32)
    results = []
    for count in (1, 2, 5):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        with threadpool_limits(count):
            results.append(top_k(vectors, queries, depth=40))
    for result in results[1:]:
        assert (result.row == results[0].row).all()
        assert (result.score == results[0].score).all()


def test_top_k__bands_join_to_the_whole_list(implementation):
    rng = np.random.default_rng(0)
    vectors = implementation(ArrayVectors(rng.integers(-2, 3, (90, 4)).astype(np.float16)))  # heavy ties
    queries = rng.integers(-2, 3, (6, 4)).astype(np.float32)
    whole = top_k(vectors, queries, depth=90)
    parts, below = [], None
    for _ in range(9):
        band = top_k(vectors, queries, depth=10, below=below)
        below = band.score[:, -1].copy(), band.row[:, -1].copy()
        parts.append(band.row)
    assert (np.concatenate(parts, axis=1) == whole.row).all()


def test_top_k__skipped_rows_and_short_lists_are_padded(implementation):
    vectors = implementation(ArrayVectors(np.eye(4, dtype=np.float32)))
    skip = np.array([False, True, True, False])
    found = top_k(vectors, np.array([[1, 2, 3, 4]]), depth=3, skip=skip)
    assert found.row.tolist() == [[3, 0, -1]]
    assert found.score.tolist() == [[4, 1, -np.inf]]


def test_top_k__products_beyond_float32_are_decided_exactly(implementation):
    vectors = np.array([[1e30, -1e30], [2e30, -1e30], [-1e30, 3e38], [0, 0]], np.float32)
    queries = np.array([[1e30, 1e30], [-1e30, -1e30], [1e-30, 0]], np.float32)
    found = top_k(implementation(ArrayVectors(vectors)), queries, depth=4)
    assert found.row.tolist() == expected_lists(exact(vectors, queries), 4)
    highest = max_similarity(implementation(ArrayVectors(vectors)), queries * np.float32(1e-30))
    np.testing.assert_array_equal(highest, exact(vectors, queries * np.float32(1e-30)).max(0).astype(np.float32))


def test_top_k__products_below_float32_are_decided_exactly(implementation):
    vectors = np.arange(1, 11)[:, None].astype(np.float32) * np.float32(1e-25)
    assert top_k(implementation(ArrayVectors(vectors)), vectors[:1], depth=1).row.tolist() == [[9]]


def test_top_k__a_sum_that_overflows_on_its_way_is_decided_exactly(implementation):
    huge = np.repeat(np.array([-3e38, 3e38], np.float32), 64)
    vectors = np.concatenate([np.repeat(-np.eye(1, 128, dtype=np.float32), 9, axis=0), huge[None]])
    queries = np.ones((1, 128), np.float32)
    with np.errstate(over="ignore"):
        assert not np.isfinite(queries @ vectors.T).all()  # so the test can fail
    assert top_k(implementation(ArrayVectors(vectors)), queries, depth=1).row.tolist() == [[9]]


def test_top_k__reads_memory_mapped_float16(tmp_path, implementation):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "v.npy", rng.normal(size=(500, 24)).astype(np.float16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    queries = rng.normal(size=(7, 24)).astype(np.float16)
    found = top_k(implementation(ArrayVectors(mapped, block_rows=17)), queries, depth=5)
    assert found.row.tolist() == expected_lists(exact(np.asarray(mapped), queries), 5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_top_k__a_value_that_is_not_finite_names_its_row(bad, implementation):
    vectors = np.ones((100, 3), np.float16)
    vectors[63, 1] = bad
    stored = implementation(ShuffledVectors(vectors, np.random.default_rng(0).permutation(100), block_rows=9))
    for compute in (
        lambda: top_k(stored, np.ones((1, 3)), depth=2),
        lambda: max_similarity(stored, np.ones((1, 3))),
        lambda: similarity_to(stored, np.ones(3)),
    ):
        with pytest.raises(InvalidInput, match="vectors: row 63 holds a value that is not finite"):
            compute()


def test_similarity_to__is_the_same_for_any_block_size(implementation):
    rng = np.random.default_rng(0)
    vectors, query = rng.normal(size=(300, 37)).astype(np.float16), rng.normal(size=37)
    whole = similarity_to(implementation(ArrayVectors(vectors)), query)
    for block_rows in (1, 13, 64):
        assert (similarity_to(implementation(ArrayVectors(vectors, block_rows=block_rows)), query) == whole).all()
    np.testing.assert_allclose(whole, vectors.astype(np.float64) @ query, rtol=1e-12, atol=1e-14)
