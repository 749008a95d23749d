"""The search that proves that a row is gone finds it wherever a file can hold it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.ids import from_bytes, to_arrow, to_text
from storage.upkeep import search
from storage.upkeep.search import Patterns, files_that_hold

ID = bytes(range(1, 17))
OTHER = bytes(range(2, 18))
NAME, TEXT = to_text(from_bytes([ID]))[0], 'a "text" with an umlaut: größer als nichts'
VECTOR = np.linspace(0.1, 0.9, 8, dtype=np.float16)
PATTERNS = Patterns(from_bytes([ID]), (TEXT,), 0, (VECTOR.tobytes(), VECTOR.astype(np.float32).tobytes()))


def parquet(column: pa.Array) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table({"x": column}), path, compression="zstd")


def catalog(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        text = "CASE WHEN i = 77 THEN ? ELSE 'an umlaut: größer als nichts, number ' || i * 7919 END"
        connection.execute(f"CREATE TABLE t AS SELECT i, {text} AS text FROM range(50000) r(i)", [TEXT])


HOLDING = {
    "ids.npy": lambda path: np.save(path, from_bytes([OTHER, ID])),
    "shifted.bin": lambda path: path.write_bytes(b"xyz" + ID + b"z"),
    "id.txt": lambda path: path.write_text(f"see {NAME}."),
    "hex.txt": lambda path: path.write_text(f"see {NAME.replace('-', '')}."),
    "plain.json": lambda path: path.write_text(json.dumps([TEXT], ensure_ascii=False)),
    "escaped.json": lambda path: path.write_text(json.dumps([TEXT])),
    "vectors.npy": lambda path: np.save(path, np.stack([VECTOR[::-1], VECTOR])),
    "index.faiss": lambda path: path.write_bytes(b"head" + VECTOR.astype(np.float32).tobytes()),
    "uuid.parquet": parquet(to_arrow(from_bytes([OTHER, ID]))),
    "binary.parquet": parquet(pa.array([ID, None], pa.binary(16))),
    "text.parquet": parquet(pa.array([None, f"before {TEXT} behind"])),
    "named.parquet": parquet(pa.array([NAME])),
    "list.parquet": parquet(pa.array([[], ["a", TEXT]])),
    "coded.parquet": parquet(pa.array(["a", TEXT]).dictionary_encode()),
    "next.duckdb": catalog,
}


@pytest.mark.parametrize("name", HOLDING)
def test_files_that_hold__finds_it(tmp_path: Path, name: str) -> None:
    HOLDING[name](tmp_path / name)
    assert list(files_that_hold([tmp_path / name], PATTERNS)) == [tmp_path / name]
    if name == "next.duckdb":
        assert TEXT.encode() not in (tmp_path / name).read_bytes()  # it is compressed
    others = Patterns(from_bytes([bytes(range(50, 66))]), ("another text of the same length",), 0, ())
    assert list(files_that_hold([tmp_path / name], others)) == []


def test_files_that_hold__across_the_ends_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BLOCK_BYTES", 64)
    path = tmp_path / "large.bin"
    for start in range(40, 140):
        path.write_bytes(bytes(start) + ID + bytes(200))
        assert list(files_that_hold([path], PATTERNS)) == [path]
    path.write_bytes(bytes(90) + ID[:15] + bytes(200))
    assert list(files_that_hold([path], PATTERNS)) == []


def test_files_that_hold__a_file_that_cannot_be_read_is_not_known_to_be_clean(tmp_path: Path) -> None:
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and nothing")
    (tmp_path / "empty.parquet").write_bytes(b"")
    paths = [tmp_path / name for name in ("cut.parquet", "empty.parquet", "gone.parquet")]
    assert list(files_that_hold(paths, PATTERNS)) == [tmp_path / "cut.parquet"]
