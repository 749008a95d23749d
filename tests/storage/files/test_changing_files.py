"""Files that somebody changes between the digest and the reading, or while they are read."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.errors import BadInput
from storage.files import user_files
from storage.files.user_files import opened_as, unchanged, url_digest
from storage.ids import to_text
from storage.labels import imported_probabilities, log
from storage.labels.imported_probabilities import probabilities_id, read_probabilities
from storage.labels.log import import_labels
from storage.pool import columns, ingest, targets
from storage.pool.columns import columns_id, ingest_columns
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import open_snapshot
from storage.pool.targets import ingest_targets
from storage.vectors import imported
from storage.vectors.imported import VectorFile, files_fingerprint, import_vectors

CHANGED = "the file changed while it was read; run again"


def write_in_place(path: Path, data: bytes) -> None:
    """Other bytes, with the times that the file had."""
    before = path.stat()
    with path.open("r+b") as file:
        file.truncate()
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, data: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(data)
    beside.replace(path)


def after_digest(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, change: Callable[[], None]) -> None:
    """Change a file as soon as its digest was taken, once."""
    original, done = getattr(module, name), []

    def digest(*arguments: Any) -> Any:
        result = original(*arguments)
        if not done:
            done.append(True)
            change()
        return result

    monkeypatch.setattr(module, name, digest)


WAYS = pytest.mark.parametrize("way", [write_in_place, replace])


def npy_bytes(path: Path, array: Any) -> bytes:
    np.save(path, array)
    return path.with_suffix(".npy").read_bytes()


@WAYS
def test_vectors__replaced_after_their_digest_are_not_committed_under_it(
    full_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, bytes], None]
) -> None:
    snapshot = open_snapshot(full_store, full_store.records("snapshots")[0])
    path = tmp_path / "v.npy"
    other = npy_bytes(tmp_path / "other", np.eye(5, 8, 3, dtype=np.float32))
    np.save(path, np.eye(5, 8, dtype=np.float32))
    (tmp_path / "v.ids.txt").write_text("\n".join(to_text(snapshot.ids)))
    file = VectorFile(str(path))
    before = files_fingerprint(full_store, [file])
    after_digest(monkeypatch, imported, "_digests", lambda: way(path, other))
    with pytest.raises(BadInput, match=rf"v\.npy: {CHANGED}"):
        import_vectors(full_store, [file], snapshot)
    assert full_store.committed("vectors", before) == []
    again = import_vectors(full_store, [file], snapshot)
    assert again.encoder != before
    assert again.n_new == 5


def test_vectors__written_to_while_they_are_read_are_not_committed(full_store: Any, tmp_path: Path) -> None:
    snapshot = open_snapshot(full_store, full_store.records("snapshots")[0])
    path = tmp_path / "v.parquet"
    table = pa.table({"id": to_text(snapshot.ids), "v": np.eye(5, 8, dtype=np.float32).tolist()})
    pq.write_table(table, path)
    with path.open("ab") as file, pytest.raises(BadInput, match=CHANGED):
        import_vectors(
            full_store, [VectorFile(str(path))], snapshot, on_progress=lambda *_: (file.write(b"x"), file.flush())
        )


@WAYS
def test_columns__are_those_of_their_digest(
    full_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, bytes], None]
) -> None:
    path, other = tmp_path / "c.parquet", tmp_path / "other.parquet"
    pq.write_table(pa.table({"id": ["a"], "score": [1.0]}), path)
    pq.write_table(pa.table({"id": ["a"], "score": [2.0]}), other)
    before = columns_id(full_store, str(path))
    data = other.read_bytes()
    after_digest(monkeypatch, columns, "file_digest", lambda: way(path, data))
    if way is write_in_place:
        with pytest.raises(BadInput, match=CHANGED):
            ingest_columns(full_store, str(path))
        assert full_store.records("columns") == []
    else:
        taken = ingest_columns(full_store, str(path))
        stored = columns.read_columns(full_store, taken).read("score").to_pylist()
        assert (taken, stored) == (before, [1.0])


@WAYS
def test_pool__rows_are_those_of_the_digest(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "aaa"}\n')
    after_digest(monkeypatch, ingest, "file_digest", lambda: way(path, b'{"text": "bbb"}\n'))
    if way is write_in_place:
        with pytest.raises(BadInput, match=CHANGED):
            ingest_file(store, FileSpec(str(path)))
        assert store.committed("pool") == []
    else:
        taken = ingest_file(store, FileSpec(str(path)))
        rows = pq.read_table(store.path("pool", taken.id, "part-00000.parquet"))["prompt"].to_pylist()
        assert rows == ["aaa"]


@WAYS
def test_targets__replaced_after_their_digest_are_refused(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "aaa"}\n')
    after_digest(monkeypatch, targets, "url_digest", lambda: way(path, b'{"text": "bbb"}\n'))
    with pytest.raises(BadInput, match=CHANGED):
        ingest_targets(store, "exam", [FileSpec(str(path))])
    assert store.records("targets") == []
    assert ingest_targets(store, "exam", [FileSpec(str(path))]).conversations == [[("text", "bbb")]]


@WAYS
def test_labels__are_those_of_their_digest(
    full_store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Callable[[Path, bytes], None]
) -> None:

    snapshot = open_snapshot(full_store, full_store.records("snapshots")[0])
    path = tmp_path / "l.jsonl"
    name = str(uuid.UUID(bytes=full_store.id_of("p1")))
    path.write_text(json.dumps({"id": name, "label": "a"}))
    other = json.dumps({"id": name, "label": "b"}).encode()
    after_digest(monkeypatch, log, "file_digest", lambda: way(path, other))
    read = partial(import_labels, full_store, "p", str(path), classes=["a", "b"], snapshot=snapshot)
    if way is write_in_place:
        with pytest.raises(BadInput, match=CHANGED):
            read()
        assert full_store.records("labels") == []
    else:
        read()
        assert log.read_log(full_store, "p")["label"].to_pylist() == ["a"]


def test_probabilities__of_another_digest_are_refused(full_store: Any, tmp_path: Path) -> None:
    snapshot = open_snapshot(full_store, full_store.records("snapshots")[0])
    path = tmp_path / "p.parquet"
    pq.write_table(pa.table({"id": to_text(snapshot.ids), "a": [0.5] * 5, "b": [0.5] * 5}), path)
    digest = probabilities_id(full_store, str(path))
    assert read_probabilities(full_store, str(path), "id", ["a", "b"], snapshot, digest)[1].all()
    pq.write_table(pa.table({"id": to_text(snapshot.ids), "a": [0.1] * 5, "b": [0.9] * 5}), path)
    with pytest.raises(BadInput, match=CHANGED):
        imported_probabilities.read_probabilities(full_store, str(path), "id", ["a", "b"], snapshot, digest)


def test_unchanged__written_within_a_step_of_the_clock(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for _ in range(20):
        path.write_bytes(b"a")
        with pytest.raises(BadInput, match=CHANGED), unchanged(store, str(path)):
            path.write_bytes(b"b")


@pytest.mark.parametrize("how", ["rename", "remove", "hard link", "read"])
def test_unchanged__what_leaves_the_bytes_alone_is_no_change(store: Any, tmp_path: Path, how: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    with unchanged(store, str(path)) as (file, _):
        if how == "rename":
            replace(path, b"b")
        elif how == "remove":
            path.unlink()
        elif how == "hard link":
            path.with_name("y").hardlink_to(path)
        assert file.read() == b"a"


def test_opened_as__a_remote_file_is_compared_with_what_was_fetched(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    url = f"file://{path}"
    digest = url_digest(store, url)
    with opened_as(store, url, digest) as (file, _):
        assert file.read() == b"a"
    path.write_bytes(b"b")
    with pytest.raises(BadInput, match=CHANGED), opened_as(store, url, digest):
        pass
    assert url_digest(store, url) != digest


def test_url_digest__reads_a_file_once_while_it_stays(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a")
    first = url_digest(store, str(path))
    monkeypatch.setattr(user_files, "file_digest", lambda _: pytest.fail("read again"))
    assert url_digest(store, str(path)) == first
