"""Probabilities are matched by key; what is no probability is refused by its key."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.ids import to_text
from storage.labels.imported_probabilities import probabilities_id, read_probabilities
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.store import Store

CLASSES = ["a", "b"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def snapshot(store: Store, tmp_path: Path) -> Snapshot:
    """Four rows, whose ids in their file are k0, k1 and twice k2."""
    lines = [f'{{"text": "t{i}", "id": "k{min(i, 2)}"}}' for i in range(4)]
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(lines))
    return take_snapshot(store, [ingest_file(store, FileSpec(str(path)))])


def written(tmp_path: Path, columns: dict[str, Any]) -> str:
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table(columns), path)
    return str(path)


def row_of(snapshot: Snapshot, key: str) -> int:
    (row,) = snapshot.match([key]).rows
    return row


def test_read__columns_of_classes_in_any_order_by_either_id(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    winnow_id = to_text(snapshot.ids)[row_of(snapshot, "k1")]
    url = written(tmp_path, {"key": ["k0", winnow_id], "b": [0.25, 1], "a": [0.75, 0], "note": ["x", "y"]})
    values, known = read_probabilities(store, url, "key", CLASSES, snapshot)
    assert (values.dtype, values.shape) == (np.float32, (4, 2))
    assert values[row_of(snapshot, "k0")].tolist() == [0.75, 0.25]
    assert values[row_of(snapshot, "k1")].tolist() == [0, 1]
    assert known.sum() == 2
    assert (values[~known] == 0.5).all()


def test_read__lists_and_the_first_of_two_keys_of_a_row(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    winnow_id = to_text(snapshot.ids)[row_of(snapshot, "k0")]
    url = written(tmp_path, {"id": ["k0", winnow_id], "p": [[0.9, 0.1], [0.2, 0.8]]})
    values, known = read_probabilities(store, url, "id", CLASSES, snapshot)
    np.testing.assert_allclose(values[row_of(snapshot, "k0")], [0.9, 0.1], rtol=1e-6)
    assert known.sum() == 1


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float32()),
        pa.large_list(pa.float64()),
        pa.list_(pa.float64(), 2),
        pa.list_view(pa.float64()),
        pa.large_list_view(pa.float32()),
        pa.list_(pa.decimal128(3, 2)),
    ],
    ids=str,
)
def test_read__lists_of_any_kind(store: Store, snapshot: Snapshot, tmp_path: Path, kind: pa.DataType) -> None:
    number = Decimal if pa.types.is_decimal(kind.value_type) else float
    half, quarter = number("0.5"), number("0.25")
    lists = pa.chunked_array([pa.array([[1 - quarter, quarter]], kind), pa.array([[half, half]], kind)])
    values, _ = read_probabilities(store, written(tmp_path, {"id": ["k0", "k1"], "p": lists}), "id", CLASSES, snapshot)
    assert values[row_of(snapshot, "k0")].tolist() == [0.75, 0.25]


def test_read__a_key_called_winnow_id_is_no_own_id(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    url = written(tmp_path, {"winnow_id": ["k0", to_text(snapshot.ids)[1]], "p": [[1.0, 0.0]] * 2})
    _, known = read_probabilities(store, url, "winnow_id", CLASSES, snapshot)
    assert np.flatnonzero(known).tolist() == [1]


def test_read__unknown_and_ambiguous_keys_set_nothing_and_sums_are_scaled(
    store: Store, snapshot: Snapshot, tmp_path: Path
) -> None:
    url = written(tmp_path, {"id": ["nobody", "k2", "k1"], "p": [[1, 0], [1, 0], [0.5, 0.5008]]})
    values, known = read_probabilities(store, url, "id", CLASSES, snapshot)
    assert np.flatnonzero(known).tolist() == [row_of(snapshot, "k1")]
    assert values[known].sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("columns", "cause"),
    [
        ({"key": ["k0"], "a": [1.0], "b": [0.0]}, "no column 'id' to key by; it has key, a, b"),
        ({"id": ["k0"], "a": [0.9], "b": [0.2]}, "'k0' has .*no probabilities of sum 1"),
        ({"id": ["k0"], "a": [1.5], "b": [-0.5]}, "'k0' has"),
        ({"id": ["k0"], "a": [float("nan")], "b": [1.0]}, "'k0' has"),
        ({"id": ["k0"], "a": [1.0]}, "one column for each class"),
        ({"id": ["k0"], "p": [[1.0]]}, "lists of 'p' must have 2 numbers"),
        (
            {"id": ["k0", "k1"], "p": pa.array([[1.0, 0.0], None], pa.list_(pa.float64(), 2))},
            "lists of 'p' must have 2",
        ),
        ({"id": ["k0"], "p": [["x", "y"]]}, "lists of 'p' must hold numbers"),
        ({"id": ["k0"], "p": [[None, 1.0]]}, "'k0' has"),
        ({"id": ["k0"], "a": ["x"], "b": ["y"]}, "must be numbers"),
        ({"id": [None], "a": [1.0], "b": [0.0]}, "1 rows have no 'id'"),
    ],
)
def test_read__what_is_refused(
    store: Store, snapshot: Snapshot, tmp_path: Path, columns: dict[str, Any], cause: str
) -> None:
    with pytest.raises(BadInput, match=cause):
        read_probabilities(store, written(tmp_path, columns), "id", CLASSES, snapshot)


def test_read__no_parquet_file(store: Store, snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_text("id,a,b")
    with pytest.raises(BadInput, match="is not a Parquet file"):
        read_probabilities(store, str(tmp_path / "p.parquet"), "id", CLASSES, snapshot)


def test_probabilities_id__is_of_the_bytes(store: Store, tmp_path: Path) -> None:
    url = written(tmp_path, {"id": ["k0"], "a": [1.0], "b": [0.0]})
    before = probabilities_id(store, url)
    assert probabilities_id(store, url) == before
    written(tmp_path, {"id": ["k0"], "a": [0.0], "b": [1.0]})
    assert probabilities_id(store, url) != before
