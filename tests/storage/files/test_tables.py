"""Parquet and .npy files of users that are not what they should be."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.files.tables import mapped, parquet_file, read_parquet

NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"a\xfe\x80")]
)


def parquet(columns: list[pa.Array], names: list[str]) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, names=names), file)
    file.seek(0)
    return file


def npy(path: Path, header: str, data: bytes = bytes(64)) -> Path:
    text = header.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("columns", "names", "cause"),
    [
        ([pa.array(["a"])] * 3, ["id", "id", "x"], "several columns called 'id'"),
        ([pa.array(["a"])] * 3, ["id", "x", "x"], "several columns called 'x'"),
        ([pa.array(["a"])] * 2, ["id", ""], "a column without a name"),
        ([pa.array(["k", "l", "m"]), NOT_UTF8], ["id", "x"], r"'x' of row 2 is not UTF-8 text \(b'\\xfe'\)"),
        ([pa.array(["k", "l", "m"]), NOT_UTF8.cast(pa.binary()).view(pa.binary())], ["id", "x"], None),
    ],
)
def test_read_parquet__what_later_work_would_trip_over_is_refused(
    columns: list[pa.Array], names: list[str], cause: str | None
) -> None:
    if cause is None:
        assert read_parquet(parquet(columns, names)).num_rows == 3
        return
    with pytest.raises(ValueError, match=cause):
        read_parquet(parquet(columns, names))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1hello\xff\xff\xff\x7fPAR1", b"{}"])
def test_parquet_file__anything_else(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a Parquet file"):
        parquet_file(io.BytesIO(data))


@pytest.mark.parametrize("shape", ["(-2, 4)", "(True, 4)", "(2.5, 4)", "(99999999999999999, 4)", "(2, -1)", "4"])
def test_mapped__shapes_that_are_none(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"
    with npy(tmp_path / "v.npy", header).open("rb") as file, pytest.raises(ValueError):  # noqa: PT011
        mapped(file)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 4)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "__import__('os').getcwd()",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 500 + ")" * 500 + "}",
        "",
    ],
)
def test_mapped__headers_that_are_none(tmp_path: Path, header: str) -> None:
    with npy(tmp_path / "v.npy", header).open("rb") as file, pytest.raises(ValueError):  # noqa: PT011
        mapped(file)


def test_mapped__is_the_array(tmp_path: Path) -> None:
    for array in (np.arange(12, dtype=np.float16).reshape(3, 4), np.zeros((0, 4), np.float32)):
        np.save(tmp_path / "v.npy", array)
        with (tmp_path / "v.npy").open("rb") as file:
            assert np.array_equal(mapped(file), array)
