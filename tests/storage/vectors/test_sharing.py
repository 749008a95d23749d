"""A changed file of vectors costs what changed in it, and gives the vectors that it holds, whatever it held before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import BadInput
from storage.ids import Ids, from_bytes, to_text
from storage.store import Store
from storage.upkeep.rewrite import Rows, records_with, rewrite
from storage.vectors import imported
from storage.vectors.imported import VectorFile, VectorImport, import_vectors
from storage.vectors.segments import (
    StoredVectors,
    failed_ids,
    missing_ids,
    normalise,
    segment_folders,
    shared_folders,
    sources_of,
    verify_segments,
)

D = 4


@dataclass
class Source:
    """A pool of made-up rows: row 7 has the id of seven bytes 7, and no id of its own."""

    numbers: list[int]
    name: str = "the pool"

    @property
    def ids(self) -> Ids:
        return from_bytes([bytes([number]) * 16 for number in sorted(self.numbers)])

    def occurrence_keys(self) -> tuple[Ids, pa.Array]:
        return self.ids, pa.nulls(len(self.numbers), pa.string())


def write(folder: Path, vectors: dict[int, int], dtype: str = "float16", name: str = "v") -> VectorFile:
    """Vectors of rows, each by a number that decides it; 0 is the zero vector, which fails."""
    file = folder / f"{name}.npy"
    rows = [np.random.default_rng(kind).normal(size=D) if kind else np.zeros(D) for kind in vectors.values()]
    np.save(file, np.array(rows, np.float32).reshape(-1, D))
    names = to_text(from_bytes([bytes([number]) * 16 for number in vectors]))
    file.with_suffix(".ids.txt").write_text("".join(f"{name}\n" for name in names))
    return VectorFile(str(file), store=dtype)


def state(store: Store, encoder: str, source: Source) -> tuple[list[bytes], list[bytes], bytes]:
    """What readers see: missing, failed, vectors."""
    missing, failed = missing_ids(store, encoder, source.ids), failed_ids(store, encoder, source.ids)
    vectors = StoredVectors(store, encoder, source.ids)
    blocks = np.zeros((len(source.ids), D), np.float16)
    for rows, block in vectors.blocks():
        blocks[rows] = block
    assert blocks.tobytes() == vectors.take(np.arange(len(source.ids))).tobytes()
    return missing.tolist(), failed.tolist(), blocks.tobytes()


def rows_written(store: Store, encoder: str) -> int:
    return sum(len(np.load(folder / "keys.npy")) for folder in segment_folders(store, encoder))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def take_in(store: Store, folder: Path, vectors: dict[int, int], numbers: list[int] | None = None) -> VectorImport:
    return import_vectors(store, [write(folder, vectors)], Source(numbers or list(vectors)))


@pytest.mark.slow
@settings(max_examples=15)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.integers(1, 40), st.integers(1, 6), min_size=8, max_size=40), st.integers(1, 3)),
        min_size=2,
        max_size=6,
    )
)
def test_import__any_history_of_a_file_gives_what_a_fresh_store_gives(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[dict[int, int], int]]
) -> None:
    folder = tmp_path_factory.mktemp("history")
    store = Store(folder / "store")
    for number, (vectors, every) in enumerate(history):
        fails = {row: 0 if row % 11 == number else kind for row, kind in vectors.items()}
        if not any(fails.values()):
            continue
        used = list(fails)[::every]
        for numbers in (used, list(fails)):  # part of the file's rows first, then all
            fresh = Store(folder / f"fresh-{number}-{len(numbers)}")
            file, source = write(folder, fails), Source(numbers)
            try:
                expected = import_vectors(fresh, [file], source)
            except BadInput:  # too many fail
                with pytest.raises(BadInput):
                    import_vectors(store, [file], source)
                continue
            done = import_vectors(store, [file], source)
            assert (done.encoder, done.n_failed) == (expected.encoder, expected.n_failed)
            assert state(store, done.encoder, source) == state(fresh, done.encoder, source)
            verify_segments(store, done.encoder)


def test_import__writes_what_changed(store: Store, tmp_path: Path) -> None:
    vectors = {number: 1 + number % 7 for number in range(1, 201)}
    first = take_in(store, tmp_path, vectors)
    assert (first.n_new, first.n_shared) == (200, 0)
    changed = {**vectors, 5: 9, 201: 3}
    second = take_in(store, tmp_path, changed)
    assert (second.n_new, second.n_shared) == (201, 199)
    assert rows_written(store, second.encoder) == 2
    again = take_in(store, tmp_path, changed)
    assert (again.n_new, again.n_shared) == (0, 0)


def test_import__a_further_file_costs_what_it_holds(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path, {number: 1 + number % 7 for number in range(start, start + 40)}, name=f"v{start}")
             for start in (1, 41, 81)]  # fmt: skip
    import_vectors(store, files[:2], Source(list(range(1, 81))))
    read: list[int] = []
    monkeypatch.setattr(
        imported, "normalise", lambda vectors, *kind: read.append(len(vectors)) or normalise(vectors, *kind)
    )
    done = import_vectors(store, files, Source(list(range(1, 121))))
    assert (done.n_new, done.n_shared) == (120, 80)
    assert (rows_written(store, done.encoder), set(read)) == (40, {40})  # of the new file alone
    fewer = import_vectors(store, files[1:], Source(list(range(41, 121))))
    assert (fewer.n_new, fewer.n_shared, rows_written(store, fewer.encoder)) == (80, 80, 0)
    for result, known in ((done, range(1, 121)), (fewer, range(41, 121))):
        fresh, source = Store(tmp_path / f"fresh-{len(known)}"), Source(list(known))
        import_vectors(fresh, files[-len(known) // 40 :], source)
        assert state(store, result.encoder, source) == state(fresh, result.encoder, source)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.lists(
        st.lists(
            st.dictionaries(st.integers(1, 30), st.integers(1, 5), min_size=4, max_size=20), min_size=1, max_size=3
        ),
        min_size=2,
        max_size=5,
    ),
    st.data(),
)
def test_import__any_history_of_files_gives_what_a_fresh_store_gives(
    tmp_path_factory: pytest.TempPathFactory, nights: list[list[dict[int, int]]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("histories")
    store, known = Store(folder / "store"), [vectors for files in nights for vectors in files]
    for night, files in enumerate(nights):
        # Some files of other nights stay as they are, so that rows are in several, in any order.
        chosen = [*files, *data.draw(st.lists(st.sampled_from(known), max_size=2))]
        written = [write(folder, vectors, name=f"n{known.index(vectors)}") for vectors in chosen]
        unique = list(dict.fromkeys(written))
        source = Source(sorted({number for vectors in chosen for number in vectors})[:: data.draw(st.integers(1, 2))])
        done = import_vectors(store, unique, source)
        fresh = Store(folder / f"fresh-{night}")
        expected = import_vectors(fresh, unique, source)
        assert done.encoder == expected.encoder
        assert state(store, done.encoder, source) == state(fresh, done.encoder, source)


def test_import__a_row_that_comes_back_with_another_vector_gets_that(store: Store, tmp_path: Path) -> None:
    take_in(store, tmp_path, {1: 1, 2: 2, 3: 3, 4: 4})
    without = take_in(store, tmp_path, {1: 1, 2: 2, 3: 5, 4: 4}, numbers=[1, 2, 4])  # row 3 is out of the pool
    assert without.n_shared == 3
    back = take_in(store, tmp_path, {1: 1, 2: 2, 3: 5, 4: 4})
    assert (back.n_new, back.n_shared) == (1, 0)
    fresh = Store(tmp_path / "fresh")
    take_in(fresh, tmp_path, {1: 1, 2: 2, 3: 5, 4: 4})
    assert state(store, back.encoder, Source([1, 2, 3, 4])) == state(fresh, back.encoder, Source([1, 2, 3, 4]))


def test_import__many_small_changes_are_in_few_segments_and_little_is_written(store: Store, tmp_path: Path) -> None:
    vectors = {number: 1 + number % 7 for number in range(1, 121)}
    encoders = [take_in(store, tmp_path, vectors).encoder]
    for night in range(1, 65):
        vectors = {**vectors, 1 + night: 10 + night, 120 + night: 3}
        encoders.append(take_in(store, tmp_path, vectors).encoder)
    for encoder in encoders:
        shared = shared_folders(store, encoder)
        assert len(shared) <= 1
        assert len(segment_folders(store, encoder)) + sum(len(sources_of(store, each)) for each in shared) <= 6
    written = sum(rows_written(store, encoder) for encoder in encoders[1:])
    assert written <= 64 * 2 * 6  # the two of a night, six times; whole copies would be 10,000 rows


def test_import__another_type_shares_nothing(store: Store, tmp_path: Path) -> None:
    source = Source([1, 2])
    import_vectors(store, [write(tmp_path, {1: 1, 2: 2})], source)
    done = import_vectors(store, [write(tmp_path, {1: 1, 2: 2}, "float32")], source)
    assert done.n_shared == 0


@pytest.mark.parametrize("content", ["", "../../etc", "0" * 32, "\x00"])
def test_import__a_note_that_leads_nowhere_costs_a_copy(store: Store, tmp_path: Path, content: str) -> None:
    take_in(store, tmp_path, {1: 1, 2: 2, 3: 3})
    (note,) = store.path("last").iterdir()
    note.write_text(content)
    done = take_in(store, tmp_path, {1: 1, 2: 2, 3: 5})
    assert (done.n_new, done.n_shared) == (3, 0)


@pytest.mark.parametrize("file", ["vectors.npy", "keys.npy", "segment.json"])
def test_import__damage_to_a_shared_segment_is_taken_in_again(store: Store, tmp_path: Path, file: str) -> None:
    first = take_in(store, tmp_path, {1: 1, 2: 2, 3: 3})
    vectors = {1: 1, 2: 2, 3: 5}
    second = take_in(store, tmp_path, vectors)
    expected = state(store, second.encoder, Source([1, 2, 3]))
    (segment,) = segment_folders(store, first.encoder)
    data = (segment / file).read_bytes()
    (segment / file).write_bytes(data[:-2] + b"##")
    seen = Store(store.root, lambda _: None)
    assert take_in(seen, tmp_path, vectors).n_new == 2
    assert state(seen, second.encoder, Source([1, 2, 3])) == expected


def test_import__damage_to_what_is_shared_is_taken_in_again(store: Store, tmp_path: Path) -> None:
    take_in(store, tmp_path, {1: 1, 2: 2, 3: 3})
    second = take_in(store, tmp_path, {1: 1, 2: 2, 3: 5})
    expected = state(store, second.encoder, Source([1, 2, 3]))
    (folder,) = shared_folders(store, second.encoder)
    (folder / "shared.json").write_text(json.dumps({"shares": 3}))
    seen = Store(store.root, lambda _: None)
    assert take_in(seen, tmp_path, {1: 1, 2: 2, 3: 5}).n_new == 2
    assert state(seen, second.encoder, Source([1, 2, 3])) == expected


def test_forget__a_row_is_shared_no_more(store: Store, tmp_path: Path) -> None:
    take_in(store, tmp_path, {1: 1, 2: 2, 3: 3})
    second = take_in(store, tmp_path, {1: 1, 2: 2, 3: 5})
    gone = Rows(from_bytes([bytes([1]) * 16]))
    kinds = []
    for kind, folder in records_with(store, gone):
        rewrite(store, kind, folder, gone)
        kinds.append(kind)
    assert kinds == ["segments", "shared"]
    assert missing_ids(store, second.encoder, Source([1, 2, 3]).ids).tolist() == [bytes([1]) * 16]
    assert not list(records_with(store, gone))
