"""A small server that answers the OpenAI embeddings request, and can be told to fail. For tests."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np

DIMENSIONS = 16


def embedded(text: str, model: str = "a", dimensions: int = DIMENSIONS) -> np.ndarray:
    """(dimensions,) what the server gives for a text: its words, hashed; of any length."""
    vector = np.zeros(dimensions)
    for word in text.split():
        digest = hashlib.blake2b(f"{model} {word}".encode(), digest_size=8).digest()
        vector[digest[0] % dimensions] += 1 if digest[1] % 2 else -1
        vector[digest[2] % dimensions] += 0.5
    return vector


def _in_base64(data: list[dict[str, Any]]) -> None:
    for entry in data:
        entry["embedding"] = base64.b64encode(np.array(entry["embedding"], "<f4").tobytes()).decode()


def _with(value: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda data: data[0]["embedding"].__setitem__(0, value)


# Fault -> what it does to the list of vectors.
SPOILT: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "shuffle": lambda data: data.reverse(),
    "count": lambda data: data.pop(),
    "twice": lambda data: data[-1].update(index=0),
    "nan": _with(float("nan")),
    "null": _with(None),
    "huge": _with(1e300),
    "word": _with("a"),
    "ragged": lambda data: data[-1]["embedding"].append(1.0),
    "tokens": lambda data: data[0].update(embedding=[data[0]["embedding"]]),
    "none": lambda data: data[0].pop("embedding"),
    "base64": _in_base64,
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class EmbeddingServer:
    """A server on a free port of this machine, in threads; a context manager.

    Attributes:
        url: its address.
        faults: what the next requests meet, one each: a status, a status with headers, or a word (of `SPOILT`, close,
            slow, held, html, dimension, no data).
        always: what every request meets behind them.
        released: set when requests that are held may go on.
        model: what it computes; another one gives other vectors.
        key: the key that it asks for.
        most_words, most_texts: a longer text, or more texts, are refused.
        too_long: the status of a text that is too long.
        requests: the bodies of the requests that it has answered with vectors, in order.
        headers: of all requests.
        seen: the first lines of all requests, whatever they ask for.
        texts: how often it has embedded each text.
        most_at_once: requests at the same time.
    """

    def __init__(self) -> None:
        self.faults: deque[Any] = deque()
        self.always: Any = None
        self.released = threading.Event()
        self.model, self.key = "a", ""
        self.most_words, self.most_texts, self.too_long = 10**6, 10**6, 400
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.seen: list[str] = []
        self.asked = 0
        self.texts: Counter[str] = Counter()
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_fault(self, headers: dict[str, str]) -> Any:
        with self._lock:
            self.asked += 1
            self.headers.append(headers)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            return self.faults.popleft() if self.faults else self.always

    def ends(self) -> None:
        with self._lock:
            self._at_once -= 1

    def note(self, body: dict[str, Any]) -> None:
        with self._lock:
            self.requests.append(body)
            self.texts.update(body["input"])


class _Handler(BaseHTTPRequestHandler):
    owner: EmbeddingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.owner.next_fault(dict(self.headers))
        if fault == "held":
            self.owner.released.wait()
        with suppress(BrokenPipeError, ConnectionResetError):  # the client did not wait
            self._answer(body, fault)

    def _answer(self, body: dict[str, Any], fault: Any) -> None:
        given = self.headers.get("Authorization", "")
        if isinstance(fault, int | tuple):
            status, headers = fault if isinstance(fault, tuple) else (fault, {})
            return self._send(status, {"error": {"message": f"fault {status}, you said {given!r}"}}, headers)
        if self.path != "/v1/embeddings":
            return self._send(404, {"detail": "Not Found"})
        if self.owner.key and given != f"Bearer {self.owner.key}":
            return self._send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        texts = body["input"]
        if not all(texts):
            return self._send(400, {"error": {"message": "an input is empty"}})
        if len(texts) > self.owner.most_texts:
            return self._send(413, {"error": f"batch size {len(texts)} > maximum {self.owner.most_texts}"})
        if max(len(text.split()) for text in texts) > self.owner.most_words:
            return self._send(self.owner.too_long, {"object": "error", "message": "maximum context length"})
        if fault == "close":
            self.owner.ends()
            self.connection.close()
            return None
        if fault == "slow":
            time.sleep(0.15)
        if fault == "html":
            return self._send_bytes(200, b"<html>sign in</html>")
        self.owner.note(body)
        return self._send(200, self._document(body, fault))

    def _document(self, body: dict[str, Any], fault: Any) -> Any:
        dimensions = body.get("dimensions", DIMENSIONS) + (fault == "dimension")
        data: list[dict[str, Any]] = [
            {"object": "embedding", "index": i, "embedding": embedded(text, self.owner.model, dimensions).tolist()}
            for i, text in enumerate(body["input"])
        ]
        if fault in SPOILT:
            SPOILT[fault](data)
        words = sum(len(text.split()) for text in body["input"])
        return {"object": "list", "data" if fault != "no data" else "vectors": data, "usage": {"prompt_tokens": words}}

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._send_bytes(status, json.dumps(document).encode(), headers)

    def _send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.owner.ends()  # first: a client that has the answer may send its next request at once
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        self.owner.seen.append(self.requestline)
