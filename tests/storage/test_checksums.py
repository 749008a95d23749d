"""Checksums of committed files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from storage import checksums
from storage.checksums import seal, sums_of, verified
from storage.errors import StoreDamaged
from storage.store import Store


@pytest.fixture
def folder(store: Store) -> Path:
    with store.committing("records", "things", "t") as scratch:
        (scratch / "a.bin").write_bytes(bytes(range(256)) * 20_000)
        (scratch / "empty").write_bytes(b"")
        (scratch / "below").mkdir()
        (scratch / "below" / "b").write_text("b")
    return store.path("records", "things", "t")


def test_committing__every_file_has_a_checksum(folder: Path) -> None:
    assert set(sums_of(folder)) == {"a.bin", "empty"}
    assert sums_of(folder / "below") == {"b": "71beeff9"}  # of zlib's crc32
    assert verified(folder / "a.bin") == folder / "a.bin"
    assert verified(folder / "below" / "b").read_text() == "b"


@pytest.mark.parametrize("place", [0, 1_048_575, 1_048_576, 5_119_999])
def test_verified__any_flipped_bit_is_noticed(folder: Path, place: int) -> None:
    verified(folder / "a.bin")
    with (folder / "a.bin").open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 16]))
    with pytest.raises(StoreDamaged, match=r"a\.bin is not what was committed"):
        verified(folder / "a.bin")


def test_verified__what_was_damaged_before_this_process_came_is_noticed_whatever_its_times(folder: Path) -> None:
    times = (folder / "a.bin").stat()
    (folder / "a.bin").write_bytes(b"x" * times.st_size)
    os.utime(folder / "a.bin", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(StoreDamaged, match="checksum"):
        verified(folder / "a.bin")


def test_verified__reads_a_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified(folder / "a.bin")
    monkeypatch.setattr(checksums, "_crc32", lambda _: pytest.fail("read again"))
    verified(folder / "a.bin")


def test_verified__missing_emptied_and_replaced_by_a_folder(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"")
    with pytest.raises(StoreDamaged, match=r"a\.bin is empty"):
        verified(folder / "a.bin")
    (folder / "a.bin").unlink()
    with pytest.raises(StoreDamaged, match=r"a\.bin is missing"):
        verified(folder / "a.bin")
    (folder / "a.bin").mkdir()
    with pytest.raises(StoreDamaged, match=r"a\.bin is a folder"):
        verified(folder / "a.bin")


def test_verified__a_folder_of_an_earlier_version_is_taken_as_it_is(folder: Path) -> None:
    (folder / checksums.FILE).unlink()
    (folder / "a.bin").write_bytes(b"anything")
    assert verified(folder / "a.bin").read_bytes() == b"anything"
    assert verified(folder / "nothing") == folder / "nothing"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"crc32": 1}', b"{}", b"\xff\xfe", b'{"crc32": {"a.bin": 1}}'])
def test_sums_of__checksums_that_are_damaged_are_named(folder: Path, content: bytes) -> None:
    (folder / checksums.FILE).write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"checksums\.json|checksum differs"):
        verified(folder / "a.bin")


def test_seal__an_empty_folder_has_none(tmp_path: Path) -> None:
    seal(tmp_path)
    assert list(tmp_path.iterdir()) == []
