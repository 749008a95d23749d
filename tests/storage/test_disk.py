"""A full disk is one, however a library words it."""

from __future__ import annotations

import errno
from pathlib import Path

import duckdb
import pytest

from storage.disk import disk_full


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("192000 requested and 49088 written"),
        RuntimeError(
            "Error in faiss::write_index: write error in index.faiss: 57299 != 768000 (No space left on device)"
        ),
        duckdb.TransactionException(
            'Failed to commit: Could not write file "next.duckdb.wal": No space left on device'
        ),
    ],
)
def test_disk_full__says_where_and_how_much_is_free(tmp_path: Path, error: Exception) -> None:
    wrapped = ValueError("cannot write")
    wrapped.__cause__ = error
    for raised in (error, wrapped):
        full = disk_full(raised, tmp_path)
        assert full is not None
        assert str(full).startswith(f"no room on the disk of {tmp_path}: ")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("a written request")])
def test_disk_full__other_errors_are_none(tmp_path: Path, error: Exception) -> None:
    assert disk_full(error, tmp_path) is None
