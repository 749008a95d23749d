from __future__ import annotations

import shutil
import sys
from dataclasses import asdict

import numpy as np
import pytest

from storage.errors import BadInput, MissingExtra, NotInStore, StoreDamaged
from storage.store import Store, write_json
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

    def __init__(self, root, n=N, seed=0, copies=0):
        rng = np.random.default_rng(seed)
        self.store = Store(root)
        self.ids = np.sort(np.frombuffer(rng.bytes(16 * n), "S16"))
        self.vectors = normalise(rng.standard_normal((n, D)))[0].astype(np.float16)
        self.vectors[rng.choice(n, copies, replace=False)] = self.vectors[0]
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


def whole(pool, record, vectors):
    """The same rows in the same cells as one FAISS index."""
    import faiss

    index = faiss.read_index(str(pool.store.path("index_parts", record.parts[0], "cells.faiss")))
    index.add(vectors.take(np.arange(len(vectors.ids))).astype(np.float32))
    rows = np.arange(len(vectors.ids))
    return index, VectorIndex(faiss, [(index, rows)], kind=record.kind, nprobe=record.nprobe, vectors=vectors)


def nights(pool, kind, *, arrivals, nprobe=8):
    """The snapshot and the index of each night."""
    for upto in arrivals:
        vectors = pool.snapshot(np.arange(upto))
        yield vectors, pool.build(vectors, kind=kind, nprobe=nprobe, recall_sample=20)


@pytest.mark.parametrize("kind", ["ivf", "rabitq"])
def test_parts__searched_give_what_one_index_of_all_rows_gives(tmp_path, kind):
    pool = Pool(tmp_path / "store", copies=60)
    *_, (vectors, record) = nights(pool, kind, arrivals=(1600, 2200, 2500, 2650, 2700, 2710))
    assert len(record.parts) == 6
    _, together = whole(pool, record, vectors)
    opened = open_index(pool.store, record.index, vectors=vectors)
    queries = pool.vectors[::7].astype(np.float32)
    for within in (None, np.arange(0, 2710, 3)):
        for k in (1, 5, 30):
            for ours, theirs in zip(
                opened.search(queries, k, within), together.search(queries, k, within), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


def test_parts__ties_go_to_the_lowest_row_and_the_rest_is_as_faiss_says(tmp_path):
    import faiss

    pool = Pool(tmp_path / "store", copies=60)
    *_, (vectors, record) = nights(pool, "ivf", arrivals=(1600, 2500, 2700))
    index, _ = whole(pool, record, vectors)
    queries = pool.vectors[::7].astype(np.float32)
    similarity, rows = open_index(pool.store, record.index, vectors=vectors).search(queries, 5)
    theirs = index.search(queries, 5, params=faiss.SearchParametersIVF(nprobe=record.nprobe))[0]
    np.testing.assert_array_equal(similarity, theirs)
    copies = np.flatnonzero((pool.vectors[:2700] == pool.vectors[0]).all(axis=1))
    assert len(copies) > 30
    np.testing.assert_array_equal(rows[0], copies[:5])


def test_parts__are_few_and_a_night_writes_little_but_its_rows(tmp_path):
    pool = Pool(tmp_path / "store", n=1520)

    def size():
        return sum(path.stat().st_size for path in pool.store.root.glob("index*/**/*") if path.is_file())

    sizes, counts, bases = [], [], set()
    for _, record in nights(pool, "ivf", arrivals=range(1200, 1521, 20)):
        sizes.append(size())
        counts.append(len(record.parts))
        bases.add(record.parts[0])
    assert counts == [1, *(1 + night.bit_count() for night in range(1, 17))]
    assert len(bases) == 1
    # A row is written once and log2(16) / 2 times again; some kB a night name the parts.
    one_row = sizes[0] / 1200
    assert sizes[-1] - sizes[0] < one_row * 20 * 16 * 3 + 16 * 4000


def test_parts__an_earlier_index_searches_as_before(pool):
    (old, first), (_, last) = nights(pool, "ivf", arrivals=(2500, 2600))
    queries = pool.vectors[::50].astype(np.float32)
    expected = open_index(pool.store, first.index, vectors=old).search(queries, 5)
    assert first.parts == last.parts[:1]
    list(nights(pool, "ivf", arrivals=(2650, 2700, 2900)))
    for ours, theirs in zip(open_index(pool.store, first.index).search(queries, 5), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_parts__that_no_index_names_are_listed(pool):
    records_of = [record for _, record in nights(pool, "ivf", arrivals=(2500, 2600, 2700))]
    assert unused_parts(pool.store) == []
    shutil.rmtree(pool.store.path("indexes", records_of[1].index))
    assert unused_parts(pool.store) == [records_of[1].parts[1]]


@pytest.mark.parametrize("file", ["part.faiss", "keys.npy", "part.json", "cells.faiss"])
def test_parts__a_damaged_one_is_put_aside_with_the_indexes_that_name_it(pool, file):
    *_, (grown, second) = nights(pool, "ivf", arrivals=(2500, 2600))
    number = 0 if file == "cells.faiss" else 1
    path = pool.store.path("index_parts", second.parts[number], file)
    path.write_bytes(path.read_bytes()[:-7])
    if file != "part.json":
        with pytest.raises(StoreDamaged, match=file):
            open_index(pool.store, second.index, vectors=grown).search(pool.vectors[:1].astype(np.float32), 5)
    again = pool.build(grown, kind="ivf", nprobe=8, recall_sample=20)
    assert pool.store.path("set-aside", "index_parts", second.parts[number]).is_dir()
    if file == "cells.faiss":
        assert (again.parent, len(again.parts)) == (None, 1)
    else:
        assert again.parts == second.parts  # made again from the vectors, under the same name
    assert index_damage(pool.store, again.index) is None
    queries = pool.vectors[:2600:50].astype(np.float32)
    rows = open_index(pool.store, again.index, vectors=grown).search(queries, 1)[1]
    np.testing.assert_array_equal(rows[:, 0], np.arange(0, 2600, 50))


def test_index_damage__a_missing_part_is_named(pool):
    *_, (vectors, record) = nights(pool, "ivf", arrivals=(2500, 2600))
    shutil.rmtree(pool.store.path("index_parts", record.parts[1]))
    assert f"names {pool.store.path('index_parts', record.parts[1])}, which is missing" in index_damage(
        pool.store, record.index
    )
    with pytest.raises(StoreDamaged, match=record.parts[1]):
        open_index(pool.store, record.index, vectors=vectors)


def older(pool, vectors, kind):
    """An index as earlier versions wrote it: all in one folder, in the order of the segments."""
    import faiss

    record = pool.build(vectors, kind="ivf", nprobe=64)
    index = faiss.read_index(str(pool.store.path("index_parts", record.parts[0], "cells.faiss")))
    index = faiss.IndexFlatIP(D) if kind == "flat" else index
    rowmap = np.concatenate([rows for rows, _ in vectors.blocks()])
    index.add(vectors.take(rowmap).astype(np.float32))
    shutil.rmtree(pool.store.path("index_parts"))
    shutil.rmtree(pool.store.path("indexes"))
    document = asdict(record) | {"kind": kind, "cells": record.cells if kind == "ivf" else 0}
    del document["parts"]
    with pool.store.committing("indexes", record.index) as folder:
        faiss.write_index(index, str(folder / "index.faiss"))
        np.save(folder / "rowmap.npy", rowmap)
        np.save(folder / "keys.npy", vectors.ids[rowmap])
        write_json(folder / "index.json", document)
    return record, index, rowmap


@pytest.mark.parametrize("kind", ["ivf", "flat"])
def test_an_index_of_an_earlier_version__is_opened_as_it_is_and_not_grown(tmp_path, kind):
    import faiss

    pool = Pool(tmp_path / "store", copies=60)
    everything = pool.snapshot(np.arange(N))
    record, index, rowmap = older(pool, everything, kind)
    queries = pool.vectors[:50].astype(np.float32)
    similarity, rows = open_index(pool.store, record.index).search(queries, 5)
    params = faiss.SearchParametersIVF(nprobe=64) if kind == "ivf" else None
    expected = index.search(queries, 5, params=params)
    np.testing.assert_array_equal(np.sort(rows), np.sort(rowmap[expected[1]]))  # equal rows as FAISS comes across them
    np.testing.assert_array_equal(similarity, expected[0])
    assert index_damage(pool.store, record.index) is None
    assert pool.build(everything, kind="ivf", nprobe=64).index == record.index  # it is what was asked for
    assert pool.build(pool.snapshot(np.arange(2900)), kind="ivf", nprobe=64).parent is None
    path = pool.store.path("indexes", record.index, "index.faiss")
    path.write_bytes(path.read_bytes()[:-7])
    assert "index.faiss" in index_damage(pool.store, record.index)
    assert pool.build(everything, kind="ivf", nprobe=64).parts != ()
    assert pool.store.path("set-aside", "indexes", record.index).is_dir()


def test_progress__tells_each_task_to_its_end(pool, everything):
    progress = {}
    pool.build(everything, kind="ivf", progress=lambda task, done, total: progress.__setitem__(task, (done, total)))
    assert {task: done / total for task, (done, total) in progress.items()} == {
        "train cells": 1,
        "add rows to cells": 1,
        "measure recall": 1,
    }


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
