"""Vectors of user files are imported by key; what does not fit is counted or refused, never guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.ids import from_bytes, to_arrow, to_text
from storage.pool.ingest import FileSpec
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.pool.targets import ingest_targets
from storage.vectors.imported import VectorFile, files_dimension, files_fingerprint, import_vectors
from storage.vectors.segments import StoredVectors, commit_segment, segment_folders, verify_segments
from tests.storage.conftest import SmallStore

NAMES = ("p1", "p2", "p3", "p4")
D = 8


def some_vectors(n: int, d: int = D, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def write_parquet(path: Path, keys: Any, vectors: Any, *, field: str = "id", kind: Any = None) -> VectorFile:
    column = pa.array(list(vectors), kind or pa.list_(pa.float32()))
    pq.write_table(pa.table({field: keys, "text": ["x"] * len(keys), "vector": column}), path, row_group_size=2)
    return VectorFile(str(path), field)


def write_npy(path: Path, keys: list[str], vectors: np.ndarray) -> VectorFile:
    np.save(path, vectors)
    path.with_suffix(".ids.txt").write_text("".join(f"{key}\n" for key in keys))
    return VectorFile(str(path))


@pytest.fixture
def pool(store: SmallStore) -> Snapshot:
    """p1 .. p4, given the ids k1 .. k4; p2 a second time as k2b; k9 names two rows."""
    first = store.add_file("a", NAMES, extra=[{"id": f"k{n}"} for n in (1, 2, 3, 4)])
    second = store.add_file("b", ["p2", "p5", "p6"], extra=[{"id": "k2b"}, {"id": "k9"}, {"id": "k9"}])
    return open_snapshot(store, store.add_snapshot([first, second]))


def all_keys() -> list[str]:
    p5, p6 = to_text(from_bytes([SmallStore.id_of("p5"), SmallStore.id_of("p6")]))
    return ["k1", "k2", "k3", "k4", p5, p6]


def stored(store: SmallStore, encoder: str, prompts: tuple[str, ...]) -> np.ndarray:
    ids = from_bytes(store.id_of(prompt) for prompt in prompts)
    return StoredVectors(store, encoder, ids).take(np.arange(len(ids))).astype(np.float32)


def write_bergson(folder: Path, keys: list[str], vectors: np.ndarray, **said: Any) -> VectorFile:
    """An index as bergson 0.26 writes it, of two modules; `said` changes its info.json."""
    folder.mkdir()
    sizes = {"layers.0.mlp.up_proj": 5, "layers.1.mlp.up_proj": vectors.shape[1] - 5}
    info = {"attribute_tokens": False, "num_items": len(keys), "num_grads": len(keys), "grad_sizes": sizes}
    (folder / "info.json").write_text(json.dumps(info | {"base_dtype": vectors.dtype.name} | said))
    np.memmap(folder / "gradients.bin", vectors.dtype, "w+", shape=vectors.shape)[:] = vectors
    (folder / "gradients.ids.txt").write_text("\n".join(keys))
    return VectorFile(str(folder / "gradients.bin"))


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)


KINDS = {
    "float16 lists": pa.list_(pa.float16()),
    "float64 lists": pa.list_(pa.float64()),
    "large lists": pa.large_list(pa.float32()),
    "fixed-size lists": pa.list_(pa.float32(), D),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_take_in__parquet_of_any_list_of_floats(store: SmallStore, pool: Snapshot, tmp_path: Path, kind: Any) -> None:
    wide = some_vectors(6)
    vectors = wide.astype(np.float16) if kind == KINDS["float16 lists"] else wide
    done = import_vectors(store, [write_parquet(tmp_path / "v.parquet", all_keys(), vectors, kind=kind)], pool)

    assert (done.n_rows, done.n_new, done.n_failed) == (6, 6, 0)
    assert (done.unknown, done.ambiguous, done.repeated, done.notes) == (0, 0, 0, ())
    assert stored(store, done.encoder, (*NAMES, "p5", "p6")) == pytest.approx(unit(wide), abs=2e-3)
    assert verify_segments(store, done.encoder) == 6


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_take_in__npy_with_its_ids_beside_it(
    store: SmallStore, pool: Snapshot, tmp_path: Path, dtype: type, order: Any
) -> None:
    vectors = np.asarray(some_vectors(6), dtype, order)
    done = import_vectors(store, [write_npy(tmp_path / "v.npy", all_keys(), vectors)], pool)
    assert stored(store, done.encoder, (*NAMES, "p5", "p6")) == pytest.approx(unit(vectors), abs=2e-3)


@pytest.mark.parametrize("as_type", ["text", "uuid", "fixed binary", "binary"])
def test_take_in__keys_are_winnow_ids_in_any_form(
    store: SmallStore, pool: Snapshot, tmp_path: Path, as_type: str
) -> None:
    keys = {
        "text": pa.array(to_text(pool.ids)),
        "uuid": to_arrow(pool.ids),
        "fixed binary": to_arrow(pool.ids).storage,
        "binary": to_arrow(pool.ids).storage.cast(pa.binary()),
    }[as_type]
    vectors = some_vectors(6)
    done = import_vectors(store, [write_parquet(tmp_path / "v.parquet", keys, vectors)], pool)
    vectors_of_pool = StoredVectors(store, done.encoder, pool.ids).take(np.arange(6))
    assert vectors_of_pool.astype(np.float32) == pytest.approx(unit(vectors), abs=1e-3)


def test_take_in__several_files_are_read_as_one(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    vectors, keys = some_vectors(6), all_keys()
    files = [
        write_parquet(tmp_path / "a.parquet", keys[:2], vectors[:2]),
        write_npy(tmp_path / "b.npy", keys[2:], vectors[2:]),
    ]
    done = import_vectors(store, files, pool)
    assert stored(store, done.encoder, (*NAMES, "p5", "p6")) == pytest.approx(unit(vectors), abs=1e-3)


def test_take_in__blocks_change_nothing(
    store: SmallStore, pool: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = some_vectors(6)
    file = write_npy(tmp_path / "v.npy", all_keys(), vectors)
    monkeypatch.setattr("storage.vectors.imported.BLOCK_BYTES", 4 * D * 2)
    seen: list[tuple[int, int]] = []
    done = import_vectors(store, [file], pool, on_progress=lambda at, total: seen.append((at, total)))
    assert len(segment_folders(store, done.encoder)) == 3
    assert seen == [(2, 6), (4, 6), (6, 6)]
    assert stored(store, done.encoder, (*NAMES, "p5", "p6")) == pytest.approx(unit(vectors), abs=1e-3)


@pytest.mark.parametrize("which", [0, 2])
def test_take_in__what_stops_a_commit_stops_the_import(
    store: SmallStore, pool: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    vectors = some_vectors(6)
    file = write_npy(tmp_path / "v.npy", all_keys(), vectors)
    monkeypatch.setattr("storage.vectors.imported.BLOCK_BYTES", 4 * D * 2)
    commits = iter(range(3))

    def commit_until(*args: Any, **options: Any) -> str:
        if next(commits) == which:
            raise OSError(28, "No space left on device")
        return commit_segment(*args, **options)

    monkeypatch.setattr("storage.vectors.imported.commit_segment", commit_until)
    with pytest.raises(OSError, match="No space left"):
        import_vectors(store, [file], pool)
    monkeypatch.setattr("storage.vectors.imported.commit_segment", commit_segment)
    assert import_vectors(store, [file], pool).n_new == 6 - 2 * which


def test_take_in__again_reads_nothing(
    store: SmallStore, pool: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write_npy(tmp_path / "v.npy", all_keys(), some_vectors(6))]
    first = import_vectors(store, files, pool)
    monkeypatch.setattr("storage.vectors.imported._reading", None)  # whoever reads now fails
    again = import_vectors(store, files, pool)
    assert (again.encoder, again.n_new, again.unknown) == (first.encoder, 0, None)


def test_take_in__a_pool_that_grew_takes_in_the_new_rows_alone(
    store: SmallStore, pool: Snapshot, tmp_path: Path
) -> None:
    keys = [*all_keys(), "k7"]
    files = [write_npy(tmp_path / "v.npy", keys, some_vectors(7))]
    before = import_vectors(store, files, pool)
    more = store.add_file("c", ["p7"], extra=[{"id": "k7"}])
    grown = open_snapshot(store, store.add_snapshot([*pool.ingests, more], parent=pool.id))
    after = import_vectors(store, files, grown)
    assert (before.n_new, before.unknown) == (6, 1)
    assert (after.encoder, after.n_rows, after.n_new, after.unknown) == (before.encoder, 7, 1, 0)


def test_take_in__counts_keys_that_set_nothing(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    vectors = some_vectors(9)
    done = import_vectors(store, [write_npy(tmp_path / "v.npy", [*all_keys(), "k9", "nobody", "k2b"], vectors)], pool)
    assert (done.unknown, done.ambiguous, done.repeated) == (1, 1, 1)
    assert done.notes == (
        "1 keys name no row (first: 'nobody')",
        "1 keys name several rows each (first: 'k9')",
        "1 keys name a row that another key before them named; the first counts",
    )
    # p2 has the vector of k2, which comes first, not that of k2b.
    assert stored(store, done.encoder, ("p2",)) == pytest.approx(unit(vectors[1:2]), abs=1e-3)


def test_take_in__missing_rows_are_an_error_that_says_how_many_and_which(
    store: SmallStore, pool: Snapshot, tmp_path: Path
) -> None:
    file = write_npy(tmp_path / "v.npy", ["k1", "k2", "k3", "k9", "k44"], some_vectors(5))
    with pytest.raises(BadInput) as caught:
        import_vectors(store, [file], pool)
    message = str(caught.value)
    assert message.startswith(f"vectors: 3 of 6 rows of {pool.id} have no vector in {file.url} (first: ")
    assert "'k4'" in message
    assert (
        "1 keys name no row (first: 'k44'); 1 keys name several rows each (first: 'k9'). Every row needs one" in message
    )
    assert not store.has("vectors")


def test_take_in__one_bad_vector_is_recorded_and_more_than_a_hundredth_refused(
    store: SmallStore, pool: Snapshot, tmp_path: Path
) -> None:
    vectors = some_vectors(6)
    vectors[2] = np.nan
    done = import_vectors(store, [write_npy(tmp_path / "one.npy", all_keys(), vectors)], pool)
    assert (done.n_new, done.n_failed) == (5, 1)
    rows = StoredVectors(store, done.encoder, pool.ids).failed_rows
    assert pool.ids[rows].tolist() == [SmallStore.id_of("p3")]

    vectors[0] = 0
    file = write_npy(tmp_path / "two.npy", all_keys(), vectors)
    for _ in range(2):  # also when they are in the store already
        with pytest.raises(BadInput, match=r"2 of 6 vectors of .*two.npy are zero or not finite, at most 1% may be"):
            import_vectors(store, [file], pool)


def test_take_in__a_null_vector_is_one_without_a_direction(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    vectors: list[Any] = [None, *some_vectors(5)]
    for number, kind in enumerate((pa.list_(pa.float32()), pa.list_(pa.float32(), D))):
        file = write_parquet(tmp_path / f"{number}.parquet", all_keys(), vectors, kind=kind)
        done = import_vectors(store, [file], pool)
        assert (done.n_new, done.n_failed) == (5, 1)
        assert stored(store, done.encoder, ("p2",)) == pytest.approx(unit(vectors[1][None]), abs=1e-3)


def test_take_in__targets_by_their_own_ids(store: SmallStore, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": "t2", "text": "zwei"}\n{"id": "t1", "text": "eins"}\n')
    targets = ingest_targets(store, "t", [FileSpec(str(tmp_path / "t.jsonl"))])
    vectors = some_vectors(2)
    done = import_vectors(store, [write_npy(tmp_path / "t.npy", ["t1", "t2"], vectors)], targets)
    vectors_of_targets = StoredVectors(store, done.encoder, targets.ids).take(np.arange(2))
    assert vectors_of_targets.astype(np.float32) == pytest.approx(unit(vectors)[::-1], abs=1e-3)


def test_fingerprint__goes_by_content_and_key_field_not_by_name(store: SmallStore, tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", ["a"], some_vectors(1))
    copy = tmp_path / "b.parquet"
    copy.write_bytes(Path(file.url).read_bytes())
    assert files_fingerprint(store, [file]) == files_fingerprint(store, [VectorFile(str(copy))])
    assert files_fingerprint(store, [file]) != files_fingerprint(store, [VectorFile(file.url, "text")])

    array = write_npy(tmp_path / "c.npy", ["a", "b"], some_vectors(2))
    before = files_fingerprint(store, [array])
    write_npy(tmp_path / "c.npy", ["b", "a"], some_vectors(2))
    os.utime(tmp_path / "c.ids.txt", (1, 1))
    assert files_fingerprint(store, [array]) != before


def test_dimension__differing_files_are_refused(store: SmallStore, tmp_path: Path) -> None:
    a = write_npy(tmp_path / "a.npy", ["a"], some_vectors(1, 8))
    b = write_parquet(tmp_path / "b.parquet", ["b"], some_vectors(1, 4))
    assert (files_dimension(store, [a]), files_dimension(store, [b])) == (8, 4)
    with pytest.raises(BadInput, match=r"but .*a.npy has 8, .*b.parquet has 4$"):
        files_dimension(store, [a, b])


def test_take_in__parquet_that_cannot_be_used(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    path, keys = tmp_path / "v.parquet", all_keys()

    def message(**columns: Any) -> str:
        pq.write_table(pa.table(columns), path)
        with pytest.raises(BadInput) as caught:
            import_vectors(store, [VectorFile(str(path))], pool)
        return str(caught.value).replace(str(path), "v.parquet")

    lists = list(some_vectors(6))
    assert message(id=keys) == (
        "vectors: v.parquet must have one column of lists of floats, it has 0; its columns: id (string)"
    )
    assert "it has 2; its columns: id (string), a (list<element: float>), b" in message(id=keys, a=lists, b=lists)
    assert message(key=keys, v=lists) == "vectors: v.parquet has no column 'id' to key by; it has key, v"
    assert message(id=[*keys[:5], None], v=lists) == "vectors: v.parquet: 1 rows have no 'id'"
    assert message(id=[1.5] * 6, v=lists) == "vectors: v.parquet: 'id' must be UUID, text or integer, got double"
    assert (
        message(id=[b"abc"] * 6, v=lists)
        == "vectors: v.parquet: 'id' is binary, but not of the 16 bytes of a winnow id"
    )
    assert message(id=keys, v=[*lists[:4], np.ones(3, np.float32), lists[5]]) == (
        "vectors: v.parquet: the first vector has 8 dimensions, that of row 5 has 3"
    )
    assert (
        message(id=keys, v=pa.array([None] * 6, pa.list_(pa.float32()))) == "vectors: v.parquet holds no vector in 'v'"
    )
    path.write_text("no parquet")
    with pytest.raises(BadInput, match=r"v\.parquet is not a Parquet file"):
        import_vectors(store, [VectorFile(str(path))], pool)


def test_take_in__npy_that_cannot_be_used(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    path = tmp_path / "v.npy"

    def message(array: Any, keys: list[str]) -> str:
        file = write_npy(path, keys, array)
        with pytest.raises(BadInput) as caught:
            import_vectors(store, [file], pool)
        return str(caught.value).replace(f"{tmp_path}/", "")

    shape = "vectors: v.npy must hold an (n, d) array of floats, got shape "
    assert message(np.ones(3), ["a"] * 3) == shape + "(3,) and type float64"
    assert message(np.ones((3, 2), int), ["a"] * 3) == shape + "(3, 2) and type int64"
    assert message(np.ones((3, 0)), ["a"] * 3) == shape + "(3, 0) and type float64"
    assert message(np.array([["a", None]], object), ["a"]).startswith(
        "vectors: v.npy is not an .npy array: it holds Python"
    )
    assert message(np.ones((3, 2)), ["a"] * 4) == "vectors: v.ids.txt has 4 lines, v.npy 3 vectors"
    path.write_bytes(b"\x93NUMPY\x01\x00")
    with pytest.raises(BadInput, match=r"is not an \.npy array"):
        import_vectors(store, [VectorFile(str(path))], pool)
    path.with_suffix(".ids.txt").unlink()
    with pytest.raises(BadInput, match=r"v.ids.txt: cannot be opened"):
        import_vectors(store, [VectorFile(str(path))], pool)


def test_take_in__gradients_of_bergson(store: SmallStore, pool: Snapshot, tmp_path: Path) -> None:
    vectors = some_vectors(6)
    halves = (vectors.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 is the upper half of a float32
    before = {"base_dtype": "<f4", "dtype": {"names": ["a", "b"], "formats": ["(5,)<f4", "(3,)<f4"], "itemsize": 32}}
    files = [
        write_bergson(tmp_path / "new", all_keys(), vectors),
        write_bergson(tmp_path / "bfloat16", all_keys(), halves, base_dtype="bfloat16"),
        write_bergson(tmp_path / "before", all_keys(), vectors, **before),
    ]
    info = tmp_path / "before" / "info.json"
    info.write_text(json.dumps({k: v for k, v in json.loads(info.read_text()).items() if k != "base_dtype"}))
    encoders = set()
    for file in files:
        done = import_vectors(store, [file], pool)
        encoders.add(done.encoder)
        assert (done.n_rows, done.n_new, done.n_failed, done.notes) == (6, 6, 0, ())
        assert stored(store, done.encoder, (*NAMES, "p5", "p6")) == pytest.approx(unit(vectors), abs=5e-3)
    assert len(encoders) == 3


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"attribute_tokens": True}, "a gradient for each token; build the index without --attribute_tokens"),
        ({"num_grads": 7}, r"has 192 bytes, .*info.json describes 7 gradients of 8 numbers of 4 bytes, which are 224"),
        ({"base_dtype": "int32"}, "must describe floats, it says 6 gradients of 8 numbers, int32"),
        ({"base_dtype": "what"}, "does not describe gradients of bergson"),
        ({"grad_sizes": {}}, "must describe floats, it says 6 gradients of 0 numbers, float32"),
        ({"grad_sizes": [1]}, "does not describe gradients of bergson"),
    ],
)
def test_take_in__what_is_no_index_of_bergson(
    store: SmallStore, pool: Snapshot, tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        import_vectors(store, [write_bergson(tmp_path / "run", all_keys(), some_vectors(6), **said)], pool)
