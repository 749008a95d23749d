from __future__ import annotations

import numpy as np
import pytest

from selection.types import Vectors
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.ids import to_text
from storage.store import Store, read_json
from storage.vectors.segments import (
    StoredVectors,
    commit_segment,
    describe_encoder,
    failed_ids,
    missing_ids,
    nearest_in,
    normalise,
    segment_folders,
    verify_segments,
)

N, D = 50, 8


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def make(n=N, d=D, seed=0):
    """Unsorted ids and unit vectors as the store keeps them."""
    rng = np.random.default_rng(seed)
    ids = np.frombuffer(rng.bytes(16 * n), "S16")
    return ids, normalise(rng.standard_normal((n, d)))[0].astype(np.float16)


def committed(store, ids, vectors, size=20):
    for at in range(0, len(ids), size):
        commit_segment(store, "enc", ids[at : at + size], vectors[at : at + size], {"device": "cpu"})


@pytest.fixture
def stored(store):
    """A store of 50 vectors in 3 segments; the sorted ids, the vectors in their order."""
    ids, vectors = make()
    committed(store, ids, vectors)
    order = np.argsort(ids)
    return store, ids[order], vectors[order]


def test_blocks_and_take__give_every_row_its_own_vector(stored):
    store, ids, expected = stored
    vectors = StoredVectors(store, "enc", ids, block_rows=7)
    assert isinstance(vectors, Vectors)
    assert vectors.shape == (N, D)
    got = np.full((N, D), np.nan, np.float16)
    for rows, block in vectors.blocks():
        assert len(rows) <= 7
        assert rows.dtype == np.int64
        got[rows] = block
    np.testing.assert_array_equal(got, expected)
    rows = np.array([3, 3, 49, 0, 17])
    np.testing.assert_array_equal(vectors.take(rows), expected[rows])
    assert vectors.take(rows).dtype == np.float16


def test_blocks__of_some_ids_skip_the_others(stored):
    store, ids, expected = stored
    some = ids[::3]
    vectors = StoredVectors(store, "enc", some)
    rows = np.concatenate([rows for rows, _ in vectors.blocks()])
    assert sorted(rows.tolist()) == list(range(len(some)))
    for rows, block in vectors.blocks():
        np.testing.assert_array_equal(block, expected[::3][rows])


def test_ids_in_any_order_and_repeated__give_rows_in_that_order(stored):
    store, ids, expected = stored
    wanted = np.array([7, 2, 7, 40])
    vectors = StoredVectors(store, "enc", ids[wanted])
    np.testing.assert_array_equal(vectors.take(np.arange(4)), expected[wanted])
    assert sum(len(rows) for rows, _ in vectors.blocks()) == 4


@pytest.mark.parametrize("row", [-1, N])
def test_take__a_row_out_of_range_is_refused(stored, row):
    store, ids, _ = stored
    with pytest.raises(BadInput, match=r"rows must be in 0\.\.49"):
        StoredVectors(store, "enc", ids).take(np.array([0, row]))


def test_ids_without_a_vector__are_counted(stored):
    store, ids, _ = stored
    more, _ = make(3, seed=9)
    with pytest.raises(NotInStore, match="3 of 53 ids have no vector"):
        StoredVectors(store, "enc", np.sort(np.concatenate([ids, more])))
    with pytest.raises(NotInStore, match="50 of 50 ids have no vector"):
        StoredVectors(store, "another", ids)


def test_missing__gives_what_no_segment_holds_in_the_order_asked(stored):
    store, ids, _ = stored
    more, _ = make(3, seed=9)
    asked = np.concatenate([more[:2], ids[:5], more[2:], more[:1]])
    assert missing_ids(store, "enc", asked).tolist() == [*more[:2].tolist(), more[2], more[0]]
    assert missing_ids(store, "another", asked).tolist() == asked.tolist()
    assert missing_ids(store, "enc", ids[:0]).tolist() == []


def test_a_segment_written_twice__is_one_segment(store):
    ids, vectors = make()
    committed(store, ids, vectors)
    committed(store, ids, vectors)
    assert len(segment_folders(store, "enc")) == 3
    assert verify_segments(store, "enc") == N


def test_failed_ids__are_recorded_read_as_zeros_and_not_asked_for_again(store):
    ids, vectors = make()
    vectors = vectors.copy()
    failed = np.zeros(N, np.bool_)
    failed[[4, 9]] = True
    vectors[4], vectors[9] = 0, np.nan
    commit_segment(store, "enc", ids, vectors, {}, failed=failed)
    assert len(missing_ids(store, "enc", ids)) == 0
    assert failed_ids(store, "enc", ids).tolist() == sorted(ids[failed].tolist())
    read = StoredVectors(store, "enc", ids)
    assert read.failed_rows.tolist() == [4, 9]
    assert not read.take(read.failed_rows).any()
    rows = np.concatenate([rows for rows, _ in read.blocks()])
    assert sorted(rows.tolist()) == list(range(N))
    assert rows[-2:].tolist() == [4, 9]
    header = read_json(segment_folders(store, "enc")[0] / "segment.json")
    assert (header["n_rows"], header["n_failed"], header["dimension"]) == (N - 2, 2, D)
    assert verify_segments(store, "enc") == N - 2


def test_a_segment_in_which_all_failed__can_be_read(store):
    ids, vectors = make(3)
    commit_segment(store, "enc", ids, vectors, {}, failed=np.ones(3, np.bool_))
    assert StoredVectors(store, "enc", ids).failed_rows.tolist() == [0, 1, 2]
    assert verify_segments(store, "enc") == 0


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf, 1.01])
def test_a_vector_that_is_not_unit__never_enters(store, bad):
    ids, vectors = make()
    vectors = vectors.astype(np.float32)
    vectors[5] = vectors[5] * bad
    with pytest.raises(BadInput, match="1 of 50 vectors") as caught:
        commit_segment(store, "enc", ids, vectors, {})
    assert to_text(ids[5:6])[0] in str(caught.value)
    assert not store.has("vectors", "enc")


def test_lengths_that_differ__are_refused(store):
    ids, vectors = make()
    with pytest.raises(BadInput, match="49 ids need as many vectors"):
        commit_segment(store, "enc", ids[1:], vectors, {})


def test_normalise__unit_rows_and_which_have_a_direction():
    unit, usable = normalise(np.array([[3, 4], [0, 0], [np.nan, 1], [1e-20, 0], [np.inf, 1], [3e30, 4e30]], np.float32))
    assert usable.tolist() == [True, False, False, False, False, True]
    np.testing.assert_allclose(unit[[0, 5]], [[0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    assert not unit[1:5].any()


def test_normalise_and_commit__by_tiles_as_at_once(store, monkeypatch):
    vectors = np.random.default_rng(3).standard_normal((N, D)).astype(np.float32)
    vectors[[6, 30]] = 0
    at_once, usable = normalise(vectors)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    expected = np.divide(vectors, norms[:, None], out=np.zeros((N, D)), where=norms[:, None] > 0)
    assert (at_once == expected.astype(np.float32)).all()
    monkeypatch.setattr("storage.vectors.segments.TILE_VALUES", 7 * D)
    by_tiles, usable_by_tiles = normalise(vectors)
    assert (by_tiles == at_once).all()
    assert (usable_by_tiles == usable).all()
    by_tiles[20] *= 1.01  # of the third tile
    ids, _ = make()
    with pytest.raises(BadInput, match=rf"1 of 48 vectors .* \(first: {to_text(ids[20:21])[0]}"):
        commit_segment(store, "enc", ids, by_tiles, {}, failed=~usable)


@pytest.mark.parametrize("file", ["vectors.npy", "keys.npy"])
def test_verify__names_the_segment_that_changed(stored, file):
    store, _, _ = stored
    assert verify_segments(store, "enc") == N
    segment = segment_folders(store, "enc")[1]
    content = bytearray((segment / file).read_bytes())
    content[-1] ^= 1
    (segment / file).write_bytes(content)
    with pytest.raises(StoreDamaged, match=f"{segment.name}/{file}"):
        verify_segments(store, "enc")


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_verify__names_the_segment_that_lost_a_file(stored, damage):
    store, _, _ = stored
    file = segment_folders(store, "enc")[1] / "vectors.npy"
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StoreDamaged, match=segment_folders(store, "enc")[1].name):
        verify_segments(store, "enc")


def test_nearest__equals_sorting_all_similarities(stored):
    store, ids, expected = stored
    queries = normalise(np.random.default_rng(1).standard_normal((6, D)))[0]
    exact = queries @ expected.astype(np.float32).T
    order = np.argsort(-exact, axis=1, kind="stable")[:, :5]
    for block_rows in (3, 20, 1000):
        similarity, rows = StoredVectors(store, "enc", ids, block_rows=block_rows).nearest(queries, 5)
        np.testing.assert_array_equal(rows, order)
        np.testing.assert_allclose(similarity, np.take_along_axis(exact, order, 1), atol=1e-6)
    assert (similarity.dtype, rows.dtype) == (np.float32, np.int64)


@pytest.mark.parametrize("block_rows", [4, 1000])
def test_nearest__within_gives_those_rows_only(stored, block_rows):
    store, ids, expected = stored
    within = np.array([30, 2, 11, 45, 17, 8, 23])
    queries = expected[[0, 11]].astype(np.float32)
    vectors = StoredVectors(store, "enc", ids, block_rows=block_rows)
    similarity, rows = vectors.nearest(queries, 3, within=within)
    exact = queries @ expected[np.sort(within)].astype(np.float32).T
    np.testing.assert_array_equal(rows, np.sort(within)[np.argsort(-exact, axis=1)[:, :3]])
    assert rows[1, 0] == 11
    similarity, rows = vectors.nearest(queries, 9, within=within)
    assert (rows[:, 7:] == -1).all()
    assert (similarity[:, 7:] == -np.inf).all()


@pytest.mark.parametrize("seed", range(5))
def test_nearest_in__ties_go_to_the_lowest_row_whatever_the_blocks(seed):
    rng = np.random.default_rng(seed)
    block = rng.choice([0.0, 1.0], (200, 2)).astype(np.float16)  # three distinct similarities
    rows = rng.permutation(200)
    queries = np.array([[1, 0], [1, 1]], np.float32)
    by_row = np.empty((200, 2), np.float16)
    by_row[rows] = block
    expected = np.argsort(-(queries @ by_row.T.astype(np.float32)), axis=1, kind="stable")[:, :12]
    for size in (1, 7, 64, 200):
        blocks = ((rows[at : at + size], block[at : at + size]) for at in range(0, 200, size))
        np.testing.assert_array_equal(nearest_in(blocks, queries, 12)[1], expected)


def test_no_ids__give_the_dimension_on_record(store):
    assert StoredVectors(store, "enc", np.empty(0, "S16")).shape == (0, 0)
    describe_encoder(store, "enc", {"dimension": D})
    empty = StoredVectors(store, "enc", np.empty(0, "S16"))
    assert empty.shape == (0, D)
    assert list(empty.blocks()) == []
    assert empty.take(np.empty(0, np.int64)).shape == (0, D)
    assert empty.nearest(np.zeros((2, D), np.float32), 3)[1].tolist() == [[-1] * 3] * 2


def test_commit__float32_is_kept_to_the_bit(store):
    ids, _ = make()
    vectors = normalise(np.random.default_rng(0).standard_normal((N, D)))[0]
    failed = np.arange(N) == 7
    commit_segment(store, "enc", ids, vectors, {}, failed=failed, dtype="float32")
    stored = StoredVectors(store, "enc", ids)
    expected = np.where(failed[:, None], 0, vectors)
    assert stored.take(np.arange(N)).dtype == np.float32
    assert (stored.take(np.arange(N)) == expected).all()
    for rows, block in stored.blocks():
        assert block.dtype == np.float32
        assert (block == expected[rows]).all()
    assert verify_segments(store, "enc") == N - 1


def test_normalise__float16_is_the_float32_rounded() -> None:
    vectors = np.random.default_rng(0).standard_normal((3000, 70))
    vectors[5], vectors[7, 3] = 0, np.nan
    unit, usable = normalise(vectors)
    rounded, same = normalise(vectors, "float16")
    assert rounded.dtype == np.float16
    assert np.array_equal(rounded, unit.astype(np.float16))
    assert np.array_equal(usable, same)
