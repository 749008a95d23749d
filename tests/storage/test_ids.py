from __future__ import annotations

import uuid
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.ids import from_arrow, from_bytes, from_text, hash_keys, rows_of, to_arrow, to_bytes, to_text, unique_ids

sixteen = st.binary(min_size=16, max_size=16)


@given(st.lists(sixteen, max_size=20))
def test_arrow_and_text__give_back_the_same_ids(values: list[bytes]):
    array = from_bytes(values)
    assert to_bytes(array) == values
    assert (from_arrow(to_arrow(array)) == array).all()
    assert (from_text(to_text(array)) == array).all()


def test_from_arrow__slices_chunks_and_nothing():
    array = from_bytes([bytes([i] * 16) for i in range(1, 5)])
    column = to_arrow(array)
    assert (from_arrow(column.slice(1, 2)) == array[1:3]).all()
    assert (from_arrow(pa.chunked_array([column.slice(0, 1), column.slice(3)])) == array[[0, 3]]).all()
    assert len(from_arrow(column.slice(0, 0))) == 0
    assert len(from_arrow(pa.chunked_array([], pa.uuid()))) == 0


@given(st.lists(sixteen, min_size=1, max_size=30, unique=True))
def test_order__is_that_of_the_bytes(values: list[bytes]):
    assert (np.sort(from_bytes(values)) == from_bytes(sorted(values))).all()


@given(st.lists(sixteen, max_size=20, unique=True), st.lists(sixteen, max_size=10))
def test_rows_of__position_of_each_and_minus_one_for_strangers(inside: list[bytes], asked: list[bytes]):
    array = from_bytes(sorted(inside))
    wanted = from_bytes([*inside, *asked])
    expected = [sorted(inside).index(v) if v in inside else -1 for v in [*inside, *asked]]
    assert rows_of(wanted, array).tolist() == expected


@given(st.lists(sixteen, max_size=20))
def test_unique_ids__as_a_sorted_set(values: list[bytes]):
    unique = unique_ids(from_bytes(values))
    assert to_bytes(unique) == sorted(set(values))
    assert unique_ids(unique) is unique


def test_ids_that_end_in_zero_bytes__stay_apart():
    array = from_bytes([b"a" + bytes(15), b"a" + bytes(14) + b"\x01"])
    assert rows_of(array, array).tolist() == [0, 1]
    assert to_text(array)[0] == "61000000-0000-0000-0000-000000000000"


def test_parquet__duckdb_sees_uuids(tmp_path: Path):
    value = uuid.uuid4()
    pq.write_table(pa.table({"id": to_arrow(from_bytes([value.bytes]))}), tmp_path / "a.parquet")
    with duckdb.connect() as connection:
        row = connection.execute("SELECT id, typeof(id) FROM read_parquet(?)", [str(tmp_path / "a.parquet")]).fetchone()
    assert row == (value, "UUID")


def test_keys__first_eight_bytes_big_endian():
    assert hash_keys(from_bytes([bytes(range(16))])).tolist() == [0x0001020304050607]


def test_from_text__not_a_uuid():
    with pytest.raises(ValueError, match="badly formed"):
        from_text(["nonsense"])
