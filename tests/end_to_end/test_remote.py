"""A server's embeddings: from `encoders:` to a recipe over them, with a prompt of the targets' own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.encoders import remote_client
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.embedding_server import EmbeddingServer, embedded
from tests.pipelines.conftest import Winnow, change

KEY = "sk-secret-0123456789"
CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl}
encoders:
  served:
    kind: remote
    model: org/embedder
    url: URL
    api_key_env: EMBEDDINGS_KEY
    prompt: "passage: "
    target_prompt: "query: "
    batch_size: 5
    retries: 1
recipes:
  near: {steps: [rds_max], budget: 6}
"""


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        running.key = KEY
        yield running


@pytest.fixture
def project(tmp_path: Path, server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remote_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("EMBEDDINGS_KEY", KEY)
    folder = tmp_path / "project"
    write_rows(folder / "data" / "a.jsonl", [row(n, s) for s in ("fox", "dog", "text") for n in range(8)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    (folder / "winnow.yaml").write_text(CONFIG.replace("URL", server.url))
    (folder / "org" / "embedder").mkdir(parents=True)  # a folder of this name is not what the server means
    return folder


def ask(project: Path, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), query).to_pylist()


def unit_vectors(project: Path, file: str, prompt: str) -> tuple[list[str], np.ndarray]:
    lines = [json.loads(line) for line in (project / file).read_text().splitlines()]
    vectors = np.array([embedded(f"{prompt}{line['prompt']}\n{line['response']}") for line in lines])
    return [line["id"] for line in lines], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_run__a_recipe_selects_by_the_servers_vectors(project: Path, server: EmbeddingServer, winnow: Winnow) -> None:
    server.faults.extend([429, "shuffle"])
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "24 texts encoded" in ran.err
    assert {request["model"] for request in server.requests} == {"org/embedder"}

    names, candidates = unit_vectors(project, "data/a.jsonl", "passage: ")
    _, targets = unit_vectors(project, "targets/foxes.jsonl", "query: ")
    similarity = (candidates @ targets.T).max(axis=1)
    drawn = ask(project, "SELECT given_id, gain FROM selected_examples ORDER BY rank")
    np.testing.assert_allclose([each["gain"] for each in drawn], np.sort(similarity)[::-1][:6], atol=1e-3)
    by_name = dict(zip(names, similarity, strict=True))
    np.testing.assert_allclose([by_name[each["given_id"]] for each in drawn], np.sort(similarity)[::-1][:6], atol=1e-3)

    encoders = ask(project, "SELECT kind, model, prompt, dimension FROM encoders ORDER BY prompt")
    assert [(each["kind"], each["model"], each["prompt"]) for each in encoders] == [
        ("remote", "org/embedder", "passage: "),
        ("remote", "org/embedder", "query: "),
    ]
    files = [path for path in (project / "store").rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in ran.err + ran.out

    asked = server.asked
    again = winnow("run", "-c", project)
    assert "nothing new to encode" in again.err
    assert server.asked == asked


@pytest.mark.slow
def test_run__another_model_under_the_name_is_refused(project: Path, server: EmbeddingServer, winnow: Winnow) -> None:
    assert winnow("run", "-c", project).code == 0
    write_rows(project / "data" / "b.jsonl", [row(n, "fox") for n in range(50, 55)])
    server.model = "another"
    refused = winnow("run", "-c", project)
    assert refused.code == 2
    assert "another model than before answers as 'org/embedder'" in refused.err
    change(project, "    batch_size: 5\n", '    revision: "2"\n')
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "29 texts encoded" in ran.err
    assert len(ask(project, "SELECT * FROM encoders WHERE revision = '2'")) == 2


def test_run__a_server_that_refuses_is_said_without_the_key(
    project: Path, server: EmbeddingServer, winnow: Winnow, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "another"
    ended = winnow("run", "-c", project)
    assert ended.code == 2
    assert f"{server.url}/v1/embeddings: 401 Unauthorized: Incorrect API key provided: Bearer ***" in ended.err
    assert "the key is read from EMBEDDINGS_KEY" in ended.err
    server.always = 503
    ended = winnow("run", "-c", project)
    assert ended.code == 5
    assert "503 Service Unavailable: fault 503, you said 'Bearer ***' (asked 2 times)" in ended.err
    monkeypatch.delenv("EMBEDDINGS_KEY")
    ended = winnow("run", "-c", project)
    assert ended.code == 2
    assert "the environment variable EMBEDDINGS_KEY is not set" in ended.err
    files = [path for path in (project / "store").rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "api_key_env: EMBEDDINGS_KEY",
            f"api_key_env: {KEY}",
            "winnow.yaml:9: encoders.served.api_key_env: api_key_env ",
        ),
        ("    url: ", "    address: ", "winnow.yaml:8: encoders.served.address: unknown key"),
        (
            "    batch_size: 5",
            "    batch_size: 0",
            "winnow.yaml:12: encoders.served.batch_size: batch_size must be an ",
        ),
        ("    url: http", f"    url: https://u:{KEY}@host  # http", "winnow.yaml:8: encoders.served.url: url must be "),
    ],
)
def test_check__mistakes_are_located(project: Path, winnow: Winnow, old: str, new: str, message: str) -> None:
    change(project, old, new)
    ended = winnow("run", "-c", project)
    assert ended.code == 2
    assert message in ended.err, ended.err
    assert KEY not in ended.err
