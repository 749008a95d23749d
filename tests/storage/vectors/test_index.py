from __future__ import annotations

import sys

import numpy as np
import pytest

from storage.errors import BadInput, MissingExtra, NotInStore
from storage.store import Store
from storage.vectors.index import (
    RECALL_WANTED,
    IndexedVectors,
    VectorIndex,
    build_index,
    index_damage,
    kind_for,
    open_index,
    records,
    unused_parts,
)
from storage.vectors.segments import StoredVectors, commit_segment, normalise

N, D = 3000, 32


class Pool:
    """A store of hard vectors (no clusters: neighbours lie in many cells) and its snapshots."""

    def __init__(self, root, n=N, seed=0):
        rng = np.random.default_rng(seed)
        self.store = Store(root)
        self.ids = np.sort(np.frombuffer(rng.bytes(16 * n), "S16"))
        self.vectors = normalise(rng.standard_normal((n, D)))[0].astype(np.float16)
        for part in np.array_split(rng.permutation(n), 4):
            commit_segment(self.store, "enc", self.ids[part], self.vectors[part], {})

    def snapshot(self, rows):
        ids = self.ids[rows]
        name = f"snap{len(rows)}-{rows[0]}"
        with self.store.committing("records", "snapshots", name) as folder:
            np.save(folder / "ids.npy", ids)
        vectors = StoredVectors(self.store, "enc", ids)
        vectors.snapshot = name
        return vectors

    def build(self, vectors, **options):
        return build_index(self.store, vectors, snapshot=vectors.snapshot, **{"recall_sample": 200, **options})


@pytest.fixture
def pool(tmp_path):
    return Pool(tmp_path / "store")


@pytest.fixture
def everything(pool):
    return pool.snapshot(np.arange(N))


def exact(vectors, queries, k, within=None):
    return StoredVectors(vectors.store, "enc", vectors.ids).nearest(queries, k, within)


def test_flat__is_no_index(pool, everything):
    assert pool.build(everything, kind="flat") is None
    assert pool.build(everything) is None  # by its size
    assert (records(pool.store), pool.store.committed("index_parts")) == ([], [])


def test_one_cell_of_many__recall_is_measured_and_low(pool, everything):
    record = pool.build(everything, kind="ivf", nprobe=1)
    assert record.cells == round(4 * N**0.5)
    # Independently: the share of the ten nearest others that one cell holds.
    index = open_index(pool.store, record.index)
    queries = pool.vectors[:300].astype(np.float32)
    true, result = exact(everything, queries, 11)[1], index.search(queries, 11)[1]
    share = np.mean([len(set(t[1:]) & set(f[1:])) / 10 for t, f in zip(true, result, strict=True)])
    assert record.recall_at_10 < 0.5
    assert record.recall_at_10 == pytest.approx(share, abs=0.05)


def test_more_cells__raise_recall_up_to_one(pool, everything):
    recalls = [pool.build(everything, kind="ivf", nprobe=nprobe).recall_at_10 for nprobe in (1, 8, 64, 219)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0  # float16 codes lose nothing of float16 vectors


def test_nprobe__by_default_the_fewest_cells_with_the_recall_wanted(pool, everything):
    record = pool.build(everything, kind="ivf")
    assert record.recall_at_10 >= RECALL_WANTED
    assert pool.build(everything, kind="ivf", nprobe=record.nprobe // 2).recall_at_10 < RECALL_WANTED


def test_rabitq__is_compared_again_with_the_stored_vectors(pool, everything):
    record = pool.build(everything, kind="rabitq", nprobe=219)
    index = open_index(pool.store, record.index)
    queries = pool.vectors[:50].astype(np.float32)
    similarity, rows = index.search(queries, 5)
    for query, values, result in zip(queries, similarity, rows, strict=True):
        np.testing.assert_allclose(values, pool.vectors[result].astype(np.float32) @ query, atol=1e-6)
    assert (rows[:, 0] == np.arange(50)).all()
    assert 0.3 < record.recall_at_10 <= 1  # one bit a dimension of 32 orders hard data only roughly


@pytest.mark.parametrize("kind", ["ivf", "rabitq"])
def test_search__within_gives_those_rows_only(pool, everything, kind):
    record = pool.build(everything, kind=kind, nprobe=219)
    within = np.arange(0, N, 7)
    queries = pool.vectors[:20].astype(np.float32)
    similarity, rows = open_index(pool.store, record.index).search(queries, 5, within)
    assert np.isin(rows, within).all()
    if kind != "rabitq":
        np.testing.assert_array_equal(rows, exact(everything, queries, 5, within)[1])
    assert (np.diff(similarity, axis=1) <= 0).all()


@pytest.mark.parametrize("every", [2, 10, 40])
def test_search__among_few_rows_looks_into_more_cells(pool, everything, every):
    record = pool.build(everything, kind="ivf", nprobe=40)
    within = np.arange(0, N, every)
    queries = pool.vectors[:200].astype(np.float32)
    expected = exact(everything, queries, 10, within)[0]
    similarity, rows = open_index(pool.store, record.index).search(queries, 10, within)
    assert np.isin(rows, within).all()  # and none is missing
    assert (similarity >= expected[:, -1:] - 1e-5).mean() > record.recall_at_10 - 0.02


def test_search__fewer_rows_than_asked_end_in_minus_one(pool, everything):
    record = pool.build(everything, kind="ivf", nprobe=219)
    similarity, rows = open_index(pool.store, record.index).search(
        pool.vectors[:2].astype(np.float32), 4, np.array([5, 9])
    )
    assert sorted(rows[0, :2].tolist()) == [5, 9]
    assert rows[:, 2:].tolist() == [[-1, -1]] * 2
    assert (similarity[:, 2:] == -np.inf).all()
    _, rows = open_index(pool.store, record.index).search(pool.vectors[:1].astype(np.float32), N + 5)
    assert rows.shape == (1, N + 5)
    assert (rows[0, N:] == -1).all()


def test_stored_vectors__search_through_the_index_they_were_opened_with(pool, everything):
    record = pool.build(everything, kind="ivf", nprobe=1)
    through = IndexedVectors(pool.store, "enc", everything.ids, block_rows=100, index=record.index)
    queries = pool.vectors[:50].astype(np.float32)
    assert (through.nearest(queries, 11)[1] != exact(everything, queries, 11)[1]).any()
    np.testing.assert_array_equal(
        through.nearest(queries, 11)[1], open_index(pool.store, record.index).search(queries, 11)[1]
    )
    few = np.arange(0, 100)  # a few rows are compared one by one: cells could miss them
    np.testing.assert_array_equal(through.nearest(queries, 11, few)[1], exact(everything, queries, 11, few)[1])


def test_the_same_index__is_built_once(pool, everything, monkeypatch):
    record = pool.build(everything, kind="ivf", nprobe=4)
    monkeypatch.setattr("storage.vectors.index.write_base", None)
    assert pool.build(everything, kind="ivf", nprobe=4) == record
    assert [r.index for r in records(pool.store, "enc")] == [record.index]
    assert records(pool.store, "another") == []


@pytest.mark.parametrize("kind", ["ivf", "rabitq"])
def test_growth__adds_the_new_rows_and_leaves_dead_ones_out(pool, kind):
    old = pool.build(pool.snapshot(np.arange(0, 2500)), kind=kind, nprobe=64)
    now = np.arange(300, N)  # 300 of 2,500 are gone, 500 are new
    vectors = pool.snapshot(now)
    record = pool.build(vectors, kind=kind, nprobe=219)
    assert (record.parent, record.n_rows, record.n_dead) == (old.index, len(now), 300)
    queries = pool.vectors[::100].astype(np.float32)  # of dead rows too
    _, rows = open_index(pool.store, record.index).search(queries, 5)
    assert (rows >= 0).all()
    if kind == "rabitq":
        assert (rows[3:, 0] == np.arange(0, N, 100)[3:] - 300).all()
    else:
        np.testing.assert_array_equal(rows, exact(vectors, queries, 5)[1])
        assert record.recall_at_10 == 1.0


def test_growth__too_many_dead_rows_build_anew(pool):
    pool.build(pool.snapshot(np.arange(0, 2500)), kind="ivf", nprobe=64)
    record = pool.build(pool.snapshot(np.arange(501, N)), kind="ivf", nprobe=64)  # 501 of 2,500
    assert (record.parent, record.n_dead, record.trained_on) == (None, 0, N - 501)


def test_growth__past_twice_what_the_cells_were_trained_on_builds_anew(pool):
    pool.build(pool.snapshot(np.arange(0, 1400)), kind="ivf", nprobe=64)
    assert pool.build(pool.snapshot(np.arange(N)), kind="ivf", nprobe=64).parent is None


def test_growth__rows_that_come_back_are_not_added_twice(pool):
    pool.build(pool.snapshot(np.arange(0, 2500)), kind="ivf", nprobe=219)
    pool.build(pool.snapshot(np.arange(300, 2500)), kind="ivf", nprobe=219)
    vectors = pool.snapshot(np.arange(0, 2600))
    record = pool.build(vectors, kind="ivf", nprobe=219)
    assert (record.n_rows, record.n_dead) == (2600, 0)
    queries = pool.vectors[:200].astype(np.float32)
    np.testing.assert_array_equal(
        open_index(pool.store, record.index).search(queries, 3)[1], exact(vectors, queries, 3)[1]
    )


def test_failed_rows__are_never_found(tmp_path):
    store = Store(tmp_path / "store")
    rng = np.random.default_rng(0)
    ids = np.sort(np.frombuffer(rng.bytes(16 * 50), "S16"))
    failed = np.arange(50) % 10 == 3
    commit_segment(store, "enc", ids, normalise(rng.standard_normal((50, D)))[0], {}, failed=failed)
    vectors = StoredVectors(store, "enc", ids)
    record = build_index(store, vectors, snapshot="snap", kind="ivf", nprobe=28)
    assert record.n_rows == 45
    _, rows = open_index(store, record.index, vectors=vectors).search(np.ones((1, D), np.float32), 50)
    assert sorted(rows[0, :45].tolist()) == np.flatnonzero(~failed).tolist()


def test_equal_vectors__count_as_equally_near(tmp_path):
    store = Store(tmp_path / "store")
    rng = np.random.default_rng(0)
    ids = np.sort(np.frombuffer(rng.bytes(16 * 500), "S16"))
    commit_segment(store, "enc", ids, np.repeat(normalise(rng.standard_normal((5, D)))[0], 100, axis=0), {})
    assert build_index(store, StoredVectors(store, "enc", ids), snapshot="snap", kind="ivf").recall_at_10 == 1.0


def test_kinds__by_size():
    assert [kind_for(n) for n in (199_999, 200_000, 4_999_999, 5_000_000)] == [
        "flat",
        "ivf",
        "ivf",
        "rabitq",
    ]


@pytest.mark.parametrize("options", [{"kind": "hnsw"}, {"kind": "ivf", "nprobe": 0}])
def test_a_wrong_option__is_refused(pool, everything, options):
    with pytest.raises(BadInput, match="kind must be one of auto, flat, ivf, rabitq and nprobe >= 1"):
        pool.build(everything, **options)


def test_an_index_of_nothing__is_refused(pool):
    with pytest.raises(BadInput, match="no vectors of encoder enc"):
        build_index(pool.store, StoredVectors(pool.store, "enc", np.empty(0, "S16")), snapshot="empty")


def test_an_unknown_index__is_named(pool, everything):
    with pytest.raises(NotInStore, match="index nothing: the store has none"):
        open_index(pool.store, "nothing")


def test_an_index_of_other_rows__is_refused(pool, everything):
    record = pool.build(everything, kind="ivf", nprobe=4)
    with pytest.raises(NotInStore, match="not of these"):
        open_index(pool.store, record.index, vectors=pool.snapshot(np.arange(10)))


def test_without_faiss__says_which_extra_to_install(pool, everything, monkeypatch):
    record = pool.build(everything, kind="ivf", nprobe=4)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for call in (lambda: pool.build(everything, kind="ivf", seed=1), lambda: open_index(pool.store, record.index)):
        with pytest.raises(MissingExtra, match=r"pip install -e '\.\[cpu\]' \(or '\.\[gpu\]' with an NVIDIA card\)"):
            call()


def test_the_same_seed__gives_the_same_index(tmp_path):
    result = []
    for name in ("a", "b"):
        pool = Pool(tmp_path / name)
        vectors = pool.snapshot(np.arange(N))
        record = pool.build(vectors, kind="ivf", nprobe=4)
        result.append((record.recall_at_10, open_index(pool.store, record.index).search(np.eye(D, dtype="f4"), 9)[1]))
    assert result[0][0] == result[1][0]
    np.testing.assert_array_equal(result[0][1], result[1][1])
