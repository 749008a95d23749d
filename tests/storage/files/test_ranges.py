"""Ranges of a file's lines: each line is in exactly one, with its number."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.files import ranges
from storage.files.ranges import LineCount, LineRange, blocks_in
from storage.files.user_files import file_digest


def numbered(data: bytes) -> list[tuple[int, bytes]]:
    """The lines of a text and their numbers, as a plain loop has them."""
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return list(enumerate(lines, 1))


def lines_in(data: bytes, part: LineRange) -> list[tuple[int, bytes]]:
    text = b"".join(blocks_in(io.BytesIO(data), part))
    return [(part.first + number - 1, line) for number, line in numbered(text)]


def cut(monkeypatch: pytest.MonkeyPatch, path: Path, block: int, step: int) -> list[Any]:
    for name, value in {"BLOCK_BYTES": block, "MIN_BYTES": step, "MAX_BYTES": step}.items():
        monkeypatch.setattr(ranges, name, value)
    monkeypatch.setattr("storage.files.user_files.BLOCK_BYTES", block)
    with path.open("rb") as file:
        count = LineCount(file, ".jsonl", "utf-8")
        file_digest(file, count.add)
        return count.ranges()


@given(st.lists(st.sampled_from([b"\n", b"a", b"bcd", b"\n\n", b"efghijklmnop"]), max_size=40).map(b"".join))
def test_every_line__is_in_one_range(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("ranges") / "a.jsonl"
    path.write_bytes(data)
    for block, step in ((1, 1), (2, 4), (5, 5), (3, 9)):
        with pytest.MonkeyPatch.context() as monkeypatch:
            parts = cut(monkeypatch, path, block, step)
            if len(data) < 2 * step:
                assert parts == [None]
                continue
            assert (parts[0].start, parts[-1].stop) == (0, len(data))
            assert [part.stop for part in parts[:-1]] == [part.start for part in parts[1:]]
            assert [line for part in parts for line in lines_in(data, part)] == numbered(data)


@pytest.mark.parametrize(
    ("extension", "encoding", "head"),
    [(".csv", "utf-8", b""), (".json", "utf-8", b""), (".jsonl", "latin-1", b""), (".jsonl", "utf-8", b"\xef\xbb\xbf")],
)
def test_a_file__that_lines_do_not_cut_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, encoding: str, head: bytes
) -> None:
    monkeypatch.setattr(ranges, "MIN_BYTES", ranges.BLOCK_BYTES)
    path = tmp_path / "a"
    path.write_bytes(head + b"x\n" * (2 << 20))
    with path.open("rb") as file:
        count = LineCount(file, extension, encoding)
        file_digest(file, count.add)
        assert count.ranges() == [None]
        assert file.tell() == 0
