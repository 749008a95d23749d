"""A server's vectors: each row has that of its own text, whatever goes wrong on the way."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest

from selection.encoders import Encoded, Probed, RemoteSpec, load_vectorizer, remote_client
from selection.encoders.remote_encoder import PROBE, RemoteEncoder
from selection.errors import InvalidOption, SelectionError, ServerFailed, ServerUnavailable
from tests.embedding_server import DIMENSIONS, EmbeddingServer, embedded

KEY = "sk-secret-0123456789"
ROWS = [[("user", f"question {n} fox"), ("assistant", f"answer {n}")] for n in range(23)]
TEXTS = [f"question {n} fox\nanswer {n}" for n in range(23)]


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as running:
        yield running


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def load(server: EmbeddingServer, **options: Any) -> RemoteEncoder:
    options = {"model": "m", "url": server.url, "batch_size": 4, "concurrency": 3, "retries": 3} | options
    encoder = load_vectorizer(RemoteSpec(**options))
    assert isinstance(encoder, RemoteEncoder)
    return encoder


def assert_right(encoded: Encoded, texts: list[str] = TEXTS, failed: dict[int, str] | None = None) -> None:
    assert dict(encoded.failed) == (failed or {})
    kept = [row for row in range(len(texts)) if row not in encoded.failed]
    np.testing.assert_allclose(encoded.vectors[kept], [embedded(texts[row]) for row in kept], rtol=1e-6)


@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 1), (1, 8), (4, 3), (100, 2)])
def test_vectors__are_those_of_each_text_whatever_the_requests(
    server: EmbeddingServer, batch_size: int, concurrency: int
) -> None:
    encoder = load(server, batch_size=batch_size, concurrency=concurrency)
    seen: list[int] = []
    server.always = "shuffle"
    encoded = encoder.vectors_of(ROWS, on_batch=seen.append)
    assert_right(encoded)
    assert (encoder.dimension, encoder.max_tokens, encoded.truncated) == (DIMENSIONS, None, 0)
    assert encoded.tokens == sum(len(text.split()) for text in TEXTS)
    assert sum(seen) == len(ROWS)
    assert max(len(body["input"]) for body in server.requests) == min(batch_size, len(ROWS))
    assert all(body["model"] == "m" and body["encoding_format"] == "float" for body in server.requests)
    assert all(server.texts[text] == 1 for text in TEXTS)


def test_requests__run_at_the_same_time_and_no_more_than_asked_for(server: EmbeddingServer) -> None:
    encoder = load(server, batch_size=2, concurrency=3)
    server.always = "slow"
    assert_right(encoder.vectors_of(ROWS[:12]), TEXTS[:12])
    assert server.most_at_once == 3


def test_requests__are_small_enough_in_bytes(server: EmbeddingServer) -> None:
    load(server, batch_size=100).vectors_of(ROWS, batch_tokens=40)
    sizes = [len("".join(body["input"]).encode()) for body in server.requests]
    assert len(sizes) > 5
    assert max(sizes[1:-1]) <= 3 * 40


def test_text__prompt_turns_template_and_fields(server: EmbeddingServer) -> None:
    options = {"prompt": "passage: ", "turns": "prompt", "template": "tulu", "extra_body": {"user": "w"}}
    encoder = load(server, dimensions=6, **options)
    encoded = encoder.vectors_of(ROWS[:1])
    text = "passage: <|user|>\nquestion 0 fox"
    assert server.requests[1] == {
        "model": "m",
        "encoding_format": "float",
        "dimensions": 6,
        "user": "w",
        "input": [text],
    }
    np.testing.assert_allclose(encoded.vectors[0], embedded(text, dimensions=6))
    assert server.requests[0]["input"] == ["passage: " + PROBE]


def test_rows_without_text__have_no_vector_and_are_not_sent(server: EmbeddingServer) -> None:
    rows = [[("user", "")], ROWS[0], [("user", " \n")], []]
    seen: list[int] = []
    encoded = load(server, prompt="p ").vectors_of(rows, on_batch=seen.append)
    assert dict(encoded.failed) == {0: "no tokens", 2: "no tokens", 3: "no tokens"}
    np.testing.assert_allclose(encoded.vectors[1], embedded("p " + TEXTS[0]))
    assert sum(seen) == 4


@pytest.mark.parametrize(
    "faults", [[500, 503, 502], [(429, {"Retry-After": "0"})], ["close", "close"], [424, 408], [504, "close", 429]]
)
def test_faults_that_pass__are_met_by_asking_again(
    server: EmbeddingServer, faults: list[Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_client, "SAY_EVERY_S", 0)
    encoder = load(server)
    server.faults.extend(faults)
    with caplog.at_level(logging.WARNING, "winnow"):
        assert_right(encoder.vectors_of(ROWS))
    said = [record.message for record in caplog.records if record.name == "winnow"]
    assert len(said) == len(faults)
    assert all("asked again in 1 s (" in line and f"{server.url}/v1/embeddings: " in line for line in said)


def test_retry_after__is_kept(server: EmbeddingServer) -> None:
    encoder = load(server)
    server.faults.append((429, {"Retry-After": "0.4"}))
    started = time.monotonic()
    assert_right(encoder.vectors_of(ROWS[:2]), TEXTS[:2])
    assert time.monotonic() - started >= 0.4


def test_retry_after__a_date_and_too_long() -> None:
    seconds = remote_client._retry_after_s(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert 85 < seconds <= 90
    assert remote_client._retry_after_s(format_datetime(datetime.now(UTC) - timedelta(hours=1))) == 0


def test_retry_after__of_hours_is_not_waited_for(server: EmbeddingServer) -> None:
    encoder = load(server)
    server.always = (429, {"Retry-After": "7200"})
    with pytest.raises(ServerUnavailable, match=r"it asks to wait 7200 s \(asked once\)"):
        encoder.vectors_of(ROWS)


def test_waits__double_up_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_client, "FIRST_WAIT_S", 1.0)
    for attempt, wait in ((1, 1), (2, 2), (5, 16), (7, 60), (50, 60)):
        assert 0.75 * wait <= remote_client._wait_s(attempt) <= 1.25 * wait


def test_a_slow_server__is_asked_again_and_then_given_up(server: EmbeddingServer) -> None:
    encoder = load(server, timeout_s=0.05, retries=1)
    server.faults.append("slow")
    assert_right(encoder.vectors_of(ROWS[:3]), TEXTS[:3])
    server.always = "slow"
    with pytest.raises(ServerUnavailable, match=r"no answer in time \(asked 2 times\)"):
        encoder.vectors_of(ROWS[:3])


def test_a_server_that_is_not_there__is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ServerUnavailable, match=rf"{url}/v1/embeddings: ConnectionRefusedError: .*\(asked 3 times\)"):
        load_vectorizer(RemoteSpec(model="m", url=url, retries=2))


def test_unreachable__a_name_that_nobody_knows_stays_so(server: EmbeddingServer) -> None:
    client = remote_client.EmbeddingClient(RemoteSpec(model="m", url=server.url))
    assert isinstance(client._unreachable(socket.gaierror(socket.EAI_NONAME, "unknown")), ServerFailed)
    assert isinstance(client._unreachable(socket.gaierror(socket.EAI_AGAIN, "later")), ServerUnavailable)
    assert isinstance(client._unreachable(ssl.SSLCertVerificationError("self-signed")), ServerFailed)


def test_waiting__is_said_now_and_then(server: EmbeddingServer, caplog: pytest.LogCaptureFixture) -> None:
    encoder = load(server, batch_size=1)
    server.faults.extend([429] * 8)
    with caplog.at_level(logging.WARNING, "winnow"):
        assert_right(encoder.vectors_of(ROWS))
    assert sum("asked again" in record.message for record in caplog.records) == 1


def test_a_busy_server__is_given_up_after_the_retries(server: EmbeddingServer) -> None:
    encoder = load(server, retries=2)
    asked = server.asked
    server.always = 503
    with pytest.raises(ServerUnavailable, match=r"503 Service Unavailable: fault 503, .* \(asked 3 times\)") as caught:
        encoder.vectors_of(ROWS[:4])
    assert server.asked - asked == 3
    assert caught.value.status == 503


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (401, "401 Unauthorized: fault 401"),
        (403, "403 Forbidden: fault 403"),
        (404, "404 Not Found: fault 404, you said ''; is this the address, and does the server know the model 'm'?"),
        ((307, {"Location": "http://elsewhere"}), "it redirects: give the final address as `url`"),
        ("html", "the answer is no JSON: <html>sign in</html>"),
        ("no data", "the answer has no list `data`"),
        ("count", "3 vectors are in the answer to 4 texts"),
        ("twice", "the vectors in the answer to 4 texts are not numbered 0 to 3"),
        ("ragged", "the answer has vectors of 16 and 17 dimensions"),
        ("dimension", "another model than before answers as 'm': 16 dimensions then, 17 now"),
        ("tokens", "an embedding must be a list of numbers"),
        ("word", "an embedding must be a list of numbers"),
        ("none", "an embedding must be a list of numbers"),
    ],
)
def test_faults_that_stay__are_an_error_at_once(server: EmbeddingServer, fault: Any, message: str) -> None:
    encoder = load(server)
    asked = server.asked
    server.always = fault
    with pytest.raises(ServerFailed) as caught:
        encoder.vectors_of(ROWS[:4])
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{server.url}/v1/embeddings: ")
    assert server.asked == asked + 1


@pytest.mark.parametrize("fault", ["nan", "null", "huge"])
def test_values_that_are_not_finite__lose_their_row_alone(server: EmbeddingServer, fault: str) -> None:
    encoder = load(server)
    server.faults.append(fault)
    encoded = encoder.vectors_of(ROWS[:4])
    assert np.isfinite(encoded.vectors).all(axis=1).tolist() == [False, True, True, True]
    assert encoded.not_finite == "the vector is zero or not finite"


def test_base64__is_read_too(server: EmbeddingServer) -> None:
    encoder = load(server)
    server.always = "base64"
    assert_right(encoder.vectors_of(ROWS))


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_texts_that_are_too_long__lose_themselves_alone(
    server: EmbeddingServer, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.most_words, server.too_long = 30, status
    rows = list(ROWS)
    rows[5] = rows[21] = [("user", "word " * 31)]
    with caplog.at_level(logging.WARNING, "winnow"):
        encoded = load(server, batch_size=8, retries=0).vectors_of(rows)
    assert sorted(encoded.failed) == [5, 21]
    assert all(cause.startswith("the server refuses it: ") for cause in encoded.failed.values())
    assert all("maximum context length" in cause for cause in encoded.failed.values())
    assert_right(encoded, failed=dict(encoded.failed))
    assert sum("asked for by halves" in record.message for record in caplog.records) == 1


def test_more_texts_than_the_server_takes__are_asked_for_by_halves(server: EmbeddingServer) -> None:
    server.most_texts = 3
    assert_right(load(server, batch_size=10).vectors_of(ROWS))
    assert max(len(body["input"]) for body in server.requests) <= 3


def test_a_server_that_refuses_the_probe_as_well__fails(server: EmbeddingServer) -> None:
    encoder = load(server)
    asked = server.asked
    server.always = 400
    with pytest.raises(ServerFailed, match="400 Bad Request: fault 400"):
        encoder.vectors_of(ROWS)
    assert server.asked - asked <= 24  # of each of six requests: itself, two halvings, the probe


def test_probe__another_model_is_refused_with_what_to_do(server: EmbeddingServer) -> None:
    encoder = load(server)
    assert isinstance(encoder, Probed)
    assert np.linalg.norm(encoder.probe) == pytest.approx(1, abs=1e-6)
    encoder.require_same([round(value, 6) for value in encoder.probe.tolist()])
    for other, difference in (
        (np.roll(encoder.probe, 1), r"a cosine of -?0\.\d{4}, the same model's 0.999 or more"),
        (encoder.probe[:5], "5 dimensions then, 16 now"),
    ):
        with pytest.raises(ServerFailed, match=difference) as caught:
            encoder.require_same(other.tolist())
        assert "another model than before answers as 'm'" in str(caught.value)
        assert "give this entry of `encoders` another `revision`" in str(caught.value)


def test_probe__a_model_that_changes_meanwhile_is_noticed(server: EmbeddingServer) -> None:
    encoder = load(server)
    server.model = "b"
    with pytest.raises(ServerFailed, match="another model than before answers as 'm'"):
        encoder.vectors_of(ROWS)


@pytest.mark.parametrize("fault", ["nan", "null"])
def test_probe__without_a_direction_is_an_error(server: EmbeddingServer, fault: str) -> None:
    server.always = fault
    with pytest.raises(ServerFailed, match="the vector of a probe text is zero or not finite"):
        load(server)


def test_dimensions__of_a_model_that_cannot_shorten(server: EmbeddingServer) -> None:
    server.always = "dimension"
    with pytest.raises(ServerFailed, match="asked for dimensions: 6, the vectors have 7; leave it out"):
        load(server, dimensions=6)


def test_key__is_sent_and_never_shown(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THE_KEY", f" {KEY}\n")
    server.key = KEY
    encoder = load(server, api_key_env="THE_KEY", retries=1)
    assert_right(encoder.vectors_of(ROWS))
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    shown = [repr(encoder), str(vars(encoder)), repr(encoder.spec)]
    server.most_words = 1
    server.key = "another"
    with caplog.at_level(logging.DEBUG):
        for fault in (None, 400, 403, 404, 500, 429):  # the server says what it was told
            server.always = fault
            with pytest.raises((ServerFailed, ServerUnavailable)) as caught:
                encoder.vectors_of(ROWS[:1])
            shown += [
                str(caught.value),
                repr(caught.value),
                str(caught.value.__cause__),
                repr(caught.value.__context__),
            ]
    assert "Bearer ***" in "".join(shown)
    assert "the key is read from THE_KEY" in "".join(shown)
    assert KEY not in "".join(shown) + caplog.text


def test_key__is_not_cut_in_two_and_shown_in_part(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    client = remote_client.EmbeddingClient(RemoteSpec(model="m", url=server.url, api_key_env="THE_KEY"))
    for before in range(remote_client.EXCERPT - len(KEY), remote_client.EXCERPT):
        assert KEY[:4] not in client._words(b"x" * before + KEY.encode())
    assert client._words(b'{"path": "a\\/b"}') == '{"path": "a/b"}'


def test_key__is_asked_for_by_its_variable(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = KEY
    with pytest.raises(ServerFailed, match="name the environment variable of the key under `api_key_env`"):
        load(server)
    monkeypatch.delenv("THE_KEY", raising=False)
    with pytest.raises(InvalidOption, match="the environment variable THE_KEY is not set"):
        load(server, api_key_env="THE_KEY")
    for wrong in (f"{KEY}\nX-Evil: 1", f"{KEY} {KEY}", f"{KEY}é"):
        monkeypatch.setenv("THE_KEY", wrong)
        with pytest.raises(InvalidOption, match="what THE_KEY holds cannot be a key") as caught:
            load(server, api_key_env="THE_KEY")
        assert KEY not in str(caught.value)


def test_a_failed_request__stops_those_that_wait(server: EmbeddingServer) -> None:
    encoder = load(server, batch_size=1, concurrency=2)
    server.faults.append((503, {"Retry-After": "30"}))
    server.always = 401
    started = time.monotonic()
    with pytest.raises(SelectionError, match="401"):
        encoder.vectors_of(ROWS)
    assert time.monotonic() - started < 10


def test_a_redirect__is_not_followed_with_the_key(server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", KEY)
    with EmbeddingServer() as elsewhere:
        server.always = (302, {"Location": f"{elsewhere.url}/v1/embeddings"})
        with pytest.raises(ServerFailed, match=r"302 Found: .*it redirects: give the final address as `url`"):
            load(server, api_key_env="THE_KEY")
        assert elsewhere.seen == []
