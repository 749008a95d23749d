"""Lists of names come from any editor."""

from __future__ import annotations

import codecs
import gzip
from pathlib import Path

import pytest

from storage.errors import BadInput
from storage.files.lists import lines_of, read_lines


@pytest.mark.parametrize(
    "data",
    [
        b"a\n\n b\xc3\xa9 \n",
        codecs.BOM_UTF8 + b"a\r\n\r\nb\xc3\xa9\r\n",
        codecs.BOM_UTF16_LE + "a\r\n\r\nbé".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a\n\nbé\n".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "a\n\nbé\n".encode("utf-32-le"),
        "a\r\rbé\r".encode(),
        gzip.compress("a\n\nbé\n".encode(), mtime=0),
    ],
)
def test_lines_of__any_editor(data: bytes) -> None:
    assert lines_of(data) == ["a", "", "bé"]


def test_lines_of__only_line_ends_end_lines() -> None:
    assert lines_of("a\u2028b\x0bc\n".encode()) == ["a\u2028b\x0bc"]
    assert lines_of(b"") == lines_of(codecs.BOM_UTF8) == []


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"caf\xe9\n", "it is not UTF-8, and has no mark of another encoding"),
        ("ab".encode("utf-16-le"), "it holds NUL characters: UTF-16 needs a byte-order mark"),
        (codecs.BOM_UTF16_LE + b"a", "it is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "the gzip data is cut short"),
    ],
)
def test_read_lines__what_is_no_text(tmp_path: Path, data: bytes, cause: str) -> None:
    (tmp_path / "deny.txt").write_bytes(data)
    with pytest.raises(BadInput, match=rf"deny.txt: cannot be read as a list of ids: {cause}"):
        read_lines(tmp_path / "deny.txt")


def test_read_lines__no_file(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"deny.txt: cannot be read as a list of ids: .*No such file"):
        read_lines(tmp_path / "deny.txt")
