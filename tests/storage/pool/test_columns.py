from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput, NotInStore
from storage.ids import Ids, from_bytes, rows_of, to_arrow, to_text
from storage.pool.columns import ingest_columns, read_columns
from storage.pool.content import identity
from storage.pool.ingest import FileSpec, Ingest, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def pool(store: Store, tmp_path: Path) -> Ingest:
    """Rows t0 .. t4; t0 stands there under two ids, and t3 and t4 share one."""
    given = [("t0", "a"), ("t1", "b"), ("t2", None), ("t3", "same"), ("t4", "same"), ("t0", "again")]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps({"text": t, "id": i, "rating": 1}) + "\n" for t, i in given))
    return ingest_file(store, FileSpec(str(path)))


def text_ids(*texts: str) -> Ids:
    return from_bytes(identity([("text", text)]) for text in texts)


def by_text(snapshot: Snapshot, name: str) -> list[Any]:
    return snapshot.column(name)[rows_of(text_ids(*(f"t{i}" for i in range(5))), snapshot.ids)].tolist()


def write(path: Path, columns: dict[str, Any]) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_columns__by_winnow_id_or_given_id_and_a_report_of_the_rest(store: Store, pool: Ingest, tmp_path: Path):
    t2 = to_text(text_ids("t2"))[0]
    stranger = to_text(from_bytes([bytes(16)]))[0]
    url = write(
        tmp_path / "c.parquet",
        {
            "key": [t2, "again", "b", "same", "nobody", stranger],
            "score": pa.array([2, 0, None, 34, 9, 9]),
            "tag": ["two", "zero", "one", "x", "x", "x"],
            "good": [True, False, None, True, True, True],
        },
    )
    digest = ingest_columns(store, url, id_field="key")
    snapshot = take_snapshot(store, [pool], columns=[digest])
    np.testing.assert_equal(by_text(snapshot, "score"), [0.0, np.nan, 2.0, np.nan, np.nan])
    assert by_text(snapshot, "tag") == ["zero", "one", "two", None, None]
    np.testing.assert_equal(by_text(snapshot, "good"), [0.0, np.nan, 1.0, np.nan, np.nan])
    assert snapshot.header["column_matches"][digest] == {
        "matched": 3,
        "unknown": 2,
        "unknown_examples": ["nobody", stranger],
        "ambiguous": 1,
        "ambiguous_examples": ["same"],
    }
    assert snapshot.where("score >= 0 AND tag <> 'two' AND NOT good").sum() == 1
    assert snapshot.known_columns()["score"] == "integer"


def test_columns__two_keys_of_one_row_set_nothing(store: Store, pool: Ingest, tmp_path: Path):
    digest = ingest_columns(store, write(tmp_path / "c.parquet", {"id": ["a", "again", "b"], "score": [1, 2, 3]}))
    snapshot = take_snapshot(store, [pool], columns=[digest])
    np.testing.assert_equal(by_text(snapshot, "score"), [np.nan, 3.0, np.nan, np.nan, np.nan])
    assert snapshot.header["column_matches"][digest]["ambiguous"] == 2


def test_columns__win_over_an_extra_field_of_the_same_name(store: Store, pool: Ingest, tmp_path: Path):
    digest = ingest_columns(store, write(tmp_path / "c.parquet", {"id": ["a"], "rating": ["mine"]}))
    assert by_text(take_snapshot(store, [pool]), "rating") == [1.0] * 5
    snapshot = take_snapshot(store, [pool], columns=[digest])
    assert by_text(snapshot, "rating") == ["mine", None, None, None, None]
    assert snapshot.where("rating = 'mine'").sum() == 1


@pytest.mark.parametrize("make", [to_arrow, lambda ids: to_arrow(ids).storage, to_text])
def test_columns__winnow_ids_in_any_form(store: Store, pool: Ingest, tmp_path: Path, make: Any):
    url = write(tmp_path / "c.parquet", {"id": make(text_ids("t1", "t4")), "score": [1.0, 4.0]})
    snapshot = take_snapshot(store, [pool], columns=[ingest_columns(store, url)])
    np.testing.assert_equal(by_text(snapshot, "score"), [np.nan, 1.0, np.nan, np.nan, 4.0])


def test_columns__structured_npy(store: Store, pool: Ingest, tmp_path: Path):
    np.save(tmp_path / "c.npy", np.array([("a", 1.5), ("b", 2.5)], dtype=[("id", "U8"), ("score", "f4")]))
    snapshot = take_snapshot(store, [pool], columns=[ingest_columns(store, str(tmp_path / "c.npy"))])
    np.testing.assert_equal(by_text(snapshot, "score")[:2], [1.5, 2.5])


def test_columns__twice_is_once_and_the_key_field_counts(store: Store, tmp_path: Path):
    url = write(tmp_path / "c.parquet", {"k1": ["a"], "k2": ["b"], "score": [1]})
    first = ingest_columns(store, url, id_field="k1")
    assert ingest_columns(store, url, id_field="k1") == first
    assert ingest_columns(store, url, id_field="k2") != first
    assert read_columns(store, first).types == {"k2": "text", "score": "integer"}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["a"], "score": [1]}, "has no column 'id' to key by; it has key, score"),
        ({"id": ["a", "a"], "score": [1, 2]}, "key 'a' stands there more than once"),
        ({"id": ["a", None], "score": [1, 2]}, "1 rows have no 'id'"),
        ({"id": [1.5], "score": [1]}, "'id' must be UUID, text or integer, got double"),
        ({"id": ["a"], "score": [[1]]}, "'score' must be a number, a boolean or text, got list"),
        ({"id": ["a"], "prompt": ["x"]}, "'prompt' is a column of the pool"),
        ({"id": ["a"]}, "there is no column beside 'id'"),
    ],
)
def test_columns__what_cannot_be_used(store: Store, tmp_path: Path, columns: dict[str, Any], message: str):
    with pytest.raises(BadInput) as error:
        ingest_columns(store, write(tmp_path / "c.parquet", columns))
    assert message in str(error.value)
    assert store.records("columns") == []


def test_columns__not_a_table(store: Store, tmp_path: Path):
    (tmp_path / "c.parquet").write_text("hello")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("c.parquet", "plain.npy", "pickled.npy", "missing.parquet"):
        with pytest.raises(BadInput, match=name):
            ingest_columns(store, str(tmp_path / name))
    with pytest.raises(NotInStore):
        read_columns(store, "none")


def test_columns__two_files_with_one_name(store: Store, pool: Ingest, tmp_path: Path):
    digests = [ingest_columns(store, write(tmp_path / f"{i}.parquet", {"id": ["a"], "score": [i]})) for i in range(2)]
    with pytest.raises(BadInput, match="both bring a column 'score'; rename one"):
        take_snapshot(store, [pool], columns=digests)
