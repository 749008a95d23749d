"""Vectors of a server in the store: resumed by segment, and of one model alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from pipelines.stages.encode import EmbedReport, embed
from selection.encoders import RemoteSpec, remote_client
from selection.encoders.format import plain
from selection.encoders.remote_encoder import PROBE
from selection.errors import InvalidInput, ServerFailed
from storage.store import Store, read_json
from storage.vectors.segments import StoredVectors, segment_folders, verify_segments
from tests.embedding_server import DIMENSIONS, EmbeddingServer, embedded
from tests.pipelines.stages.test_encode import SHORT, Texts, content, interrupted, plans


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def spec_of(server: EmbeddingServer, **options: Any) -> RemoteSpec:
    return RemoteSpec(**{"model": "m", "url": server.url, "batch_size": 8, "retries": 1} | options)


def unit_of(source: Texts) -> np.ndarray:
    vectors = np.array([embedded(plain(source.rows[bytes(key)])) for key in source.ids.view("V16")])
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def run(store: Store, spec: RemoteSpec, rows: Any, **options: Any) -> EmbedReport:
    return embed(store, spec, Texts(rows), segment_seconds=SHORT, **options)


def test_embed__every_id_gets_the_unit_vector_of_its_own_text(store: Store, server: EmbeddingServer) -> None:
    seen: list[tuple[int, int]] = []
    spec, source = spec_of(server), Texts(range(150))
    report = run(store, spec, range(150), on_progress=lambda *counts: seen.append(counts))
    assert (report.n_encoded, report.n_failed, report.n_segments, report.notes) == (150, 0, 3, ())
    vectors = StoredVectors(store, report.encoder, source.ids).take(np.arange(150))
    np.testing.assert_allclose(vectors, unit_of(source), atol=1e-3)
    assert verify_segments(store, report.encoder) == 150
    assert seen[0] == (0, 150)
    assert seen[-1] == (150, 150)
    assert len(seen) > 15
    facts = read_json(store.path("vectors", report.encoder, "encoder.json"))
    assert RemoteSpec(**facts["spec"]) == spec
    assert facts["dimension"] == DIMENSIONS
    np.testing.assert_allclose(facts["probe"], embedded(PROBE) / np.linalg.norm(embedded(PROBE)), atol=1e-5)
    segment = read_json(segment_folders(store, report.encoder)[0] / "segment.json")
    assert segment["device"] == "remote"
    assert "torch" not in segment


def test_embed__again_asks_nothing(store: Store, server: EmbeddingServer) -> None:
    run(store, spec_of(server), range(70))
    asked = server.asked
    gone = spec_of(server, url="http://127.0.0.1:9", api_key_env="NOT_SET")
    assert run(store, gone, range(70)).n_encoded == 0
    assert server.asked == asked


def test_embed__other_requests_give_the_same_bytes(tmp_path: Path, server: EmbeddingServer) -> None:
    contents = []
    for batch_size, concurrency in ((1, 4), (16, 1), (100, 3)):
        store, spec = Store(tmp_path / str(batch_size)), spec_of(server, batch_size=batch_size, concurrency=concurrency)
        run(store, spec, range(100))
        contents.append(content(store, spec))
    assert contents[0] == contents[1] == contents[2]


def test_a_stopped_run__goes_on_without_asking_for_what_is_committed(tmp_path: Path, server: EmbeddingServer) -> None:
    whole, store, spec = Store(tmp_path / "whole"), Store(tmp_path / "stopped"), spec_of(server)
    run(whole, spec, range(200))
    server.texts.clear()
    interrupted(store, spec, Texts(range(200)), after=100)
    committed = {
        plain(turns)
        for segment in segment_folders(store, spec.fingerprint())
        for key in np.load(segment / "keys.npy").view("V16")
        for turns in [Texts(range(200)).rows[bytes(key)]]
    }
    assert 0 < len(committed) < 200
    with EmbeddingServer() as another:  # the address may change
        report = run(store, spec_of(another, batch_size=3), range(200))
        assert report.n_encoded == 200 - len(committed)
        assert not committed & set(another.texts)
    assert content(store, spec) == content(whole, spec)
    assert plans(store, spec) == []


SCRIPT = """
import sys
sys.path.append({root!r})
from pathlib import Path
from tests.pipelines.stages.test_encode import SHORT, Texts
from pipelines.stages.encode import embed
from selection.encoders import RemoteSpec
from storage.store import Store

spec = RemoteSpec(model="m", url={url!r}, batch_size=8, concurrency=2)
embed(Store({store!r}), spec, Texts(range(300)), segment_seconds=SHORT,
      on_progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
def test_kill_9__goes_on_without_asking_for_what_is_committed(tmp_path: Path, server: EmbeddingServer) -> None:
    whole, store, spec = Store(tmp_path / "whole"), Store(tmp_path / "killed"), spec_of(server)
    run(whole, spec, range(300))
    server.texts.clear()
    root = str(Path(__file__).resolve().parents[3])
    script = SCRIPT.format(root=root, url=server.url, store=str(store.root))
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 140:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.1)
    folders = segment_folders(store, spec.fingerprint())
    done = sum(len(np.load(segment / "keys.npy")) for segment in folders)
    assert 128 <= done < 300
    before = sum(server.texts.values())
    assert run(store, spec, range(300)).n_encoded == 300 - done
    asked = sum(server.texts.values()) - before
    probes = 1 + 5 - len(folders)  # at the start, and behind each segment
    assert asked == 300 - done + probes
    assert content(store, spec) == content(whole, spec)


def test_probe__another_model_under_the_name_is_refused(store: Store, server: EmbeddingServer) -> None:
    spec = spec_of(server)
    run(store, spec, range(70))
    before = content(store, spec)
    server.model = "b"
    with pytest.raises(ServerFailed, match="another model than before answers as 'm'"):
        run(store, spec, range(80))
    assert content(store, spec) == before
    second = run(store, spec_of(server, revision="b"), range(80))
    assert (second.encoder != spec.fingerprint(), second.n_encoded) == (True, 80)
    server.model = "a"
    assert run(store, spec, range(80)).n_encoded == 10


def test_probe__a_model_that_changes_meanwhile_commits_nothing_of_its_segment(
    store: Store, server: EmbeddingServer
) -> None:
    spec = spec_of(server)

    def on_progress(done: int, total: int) -> None:
        if done > 90:
            server.model = "b"

    with pytest.raises(ServerFailed, match="another model than before"):
        run(store, spec, range(150), on_progress=on_progress)
    assert verify_segments(store, spec.fingerprint()) == 64
    server.model = "a"
    assert run(store, spec, range(150)).n_encoded == 86
    source = Texts(range(150))
    vectors = StoredVectors(store, spec.fingerprint(), source.ids).take(np.arange(150))
    np.testing.assert_allclose(vectors, unit_of(source), atol=1e-3)


class WithLong(Texts):
    """Some rows have more words than the server takes, or none."""

    def __init__(self, rows: Any, long: set[int], empty: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.long, self.empty = long, empty
        super().__init__(rows)

    def turns_of(self, row: int) -> Any:  # type: ignore[override]
        if row in self.empty:
            return [("user", " " * row)]
        return [("user", f"{row} " * 60)] if row in self.long else super().turns_of(row)


def id_of(source: Texts, row: int) -> str:
    turns = source.turns_of(row)
    return next(str(UUID(bytes=bytes(key))) for key, each in source.rows.items() if each == turns)


def test_a_text_that_the_server_refuses__is_named_with_its_words(store: Store, server: EmbeddingServer) -> None:
    server.most_words = 50
    source = WithLong(range(150), {7})
    report = embed(store, spec_of(server), source)
    assert (report.n_encoded, report.n_failed) == (150, 1)
    refusal = f"{server.url}/v1/embeddings: 400 Bad Request: maximum context length"
    assert report.notes == (
        f"1 of the texts got no vector (first: {id_of(source, 7)}: the server refuses it: {refusal})",
    )
    failed = read_json(segment_folders(store, report.encoder)[0] / "segment.json")["failed"]
    assert failed == {id_of(source, 7): f"the server refuses it: {refusal}"}


def test_too_many_refused_texts__stop_the_run_and_name_one(store: Store, server: EmbeddingServer) -> None:
    server.most_words = 50
    source = WithLong(range(150), {7, 8, 9})
    for _ in range(2):
        with pytest.raises(InvalidInput, match="3 of 150 texts got no vector, at most 1% may") as caught:
            embed(store, spec_of(server), source)
        named = [
            name for name in (7, 8, 9) if f"first: {id_of(source, name)}: the server refuses it" in str(caught.value)
        ]
        assert len(named) == 1


def test_a_row_without_text__is_recorded_and_not_sent(store: Store, server: EmbeddingServer) -> None:
    source = WithLong(range(150), set(), {3})
    report = embed(store, spec_of(server, prompt="passage: "), source)
    assert (report.n_encoded, report.n_failed) == (150, 1)
    failed = read_json(segment_folders(store, report.encoder)[0] / "segment.json")["failed"]
    assert failed == {id_of(source, 3): "no tokens"}
    assert "passage:" not in {text.strip() for text in server.texts}


def test_a_server_that_fails__leaves_what_is_committed(store: Store, server: EmbeddingServer) -> None:
    spec = spec_of(server)

    def on_progress(done: int, total: int) -> None:
        if done > 90:
            server.always = 401

    with pytest.raises(ServerFailed, match="401 Unauthorized"):
        run(store, spec, range(150), on_progress=on_progress)
    assert verify_segments(store, spec.fingerprint()) == 64
    server.always = None
    assert run(store, spec, range(150)).n_encoded == 86


def test_key__is_nowhere_in_the_store(store: Store, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-secret-0123456789"
    monkeypatch.setenv("THE_KEY", key)
    server.key, server.most_words = key, 50
    embed(store, spec_of(server, api_key_env="THE_KEY"), WithLong(range(150), {7}))
    files = [path for path in store.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if key.encode() in path.read_bytes()]
    assert any("THE_KEY" in json.dumps(read_json(path)) for path in files if path.name == "encoder.json")
