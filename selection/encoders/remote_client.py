"""The OpenAI embeddings request, by the standard library: what is asked again, and what an answer has to be."""

from __future__ import annotations

import base64
import http.client
import json
import logging
import os
import random
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any

import numpy as np
import orjson

from selection.encoders.remote_spec import RemoteSpec
from selection.encoders.spec import invalid_encoder
from selection.errors import ServerFailed, ServerUnavailable
from selection.types import Floats

# Seconds before a request is asked again; doubled each time.
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
# A server that wants to be left alone for longer is not waited for.
LONGEST_RETRY_AFTER_S = 600.0
# 424: text-embeddings-inference could not run its model.
MAY_PASS = frozenset({408, 424, 425, 429, 500, 502, 503, 504})
SAY_EVERY_S = 10.0
# Of the server's own words in a message.
EXCERPT = 300
log = logging.getLogger("winnow")
_MOST_WORDS = 1 << 16


class _MayPass(ServerUnavailable):
    """A failure that another attempt may not meet."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after_s: float = 0.0) -> None:
        super().__init__(reason, status=status)
        self.retry_after_s = retry_after_s


class Stopped(Exception):
    """Another request has failed, so this one is not asked again."""


@dataclass(frozen=True)
class Answer:
    """The vectors of a request.

    Attributes:
        vectors: (n, d) float32 of any length, in the order of the texts; a value that is not a number is NaN.
        tokens: how many the server says it read; 0 if it does not say.
    """

    vectors: Floats
    tokens: int


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, and would carry the key to another host."""

    def redirect_request(self, *_: Any) -> None:
        return None


class EmbeddingClient:
    """Asks a server; threads may share it.

    Raises:
        InvalidOption: the environment variable of the key is not set, or holds what cannot be a key.
    """

    def __init__(self, spec: RemoteSpec) -> None:
        self._spec, self._key, self._said_at = spec, _key_of(spec), -SAY_EVERY_S
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "winnow"}
        if self._key:
            self._headers["Authorization"] = f"Bearer {self._key}"
        self._fields = {**(spec.extra_body or {}), "model": spec.model, "encoding_format": "float"}
        if spec.dimensions is not None:
            self._fields["dimensions"] = spec.dimensions

    def embed(self, texts: Sequence[str], *, retries: int, stop: Event) -> Answer:
        """The vectors of some texts, by one request that is asked again while that may help.

        Args:
            retries: how often it is asked again.
            stop: set when nobody waits for the answer any more.

        Raises:
            ServerFailed: the server refuses, or gives what is no answer.
            ServerUnavailable: it cannot be reached, or is busy, also when it is asked again.
            Stopped: `stop` was set while it waited.
        """
        body = json.dumps({**self._fields, "input": list(texts)}, ensure_ascii=False).encode()
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._read(self._post(body), len(texts))
            except _MayPass as error:
                if attempt > retries or error.retry_after_s > LONGEST_RETRY_AFTER_S:
                    asked = f"{attempt} times" if attempt > 1 else "once"
                    raise ServerUnavailable(f"{error.reason} (asked {asked})", status=error.status) from None
                wait = max(_wait_s(attempt), error.retry_after_s)
                self._say(f"{error.reason}; asked again in {max(wait, 1):.0f} s ({attempt} of {retries})")
            if stop.wait(wait):
                raise Stopped

    def _say(self, line: str) -> None:
        """Log a warning; not each of many requests that meet the same."""
        if time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            log.warning(line)

    def failed(self, reason: str, *, status: int | None = None) -> ServerFailed:
        """An error that says where the server is."""
        return ServerFailed(self._at(reason), status=status)

    def _at(self, reason: str) -> str:
        return f"{self._spec.endpoint}: {self._without_key(reason)}"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text  # a server may repeat it

    def _words(self, body: bytes) -> str:
        """What a server says, in a line; cut once the key is out, or a part of it would stay."""
        line = self._without_key(words_of(body))
        return line if len(line) <= EXCERPT else line[:EXCERPT] + "..."

    def _post(self, body: bytes) -> bytes:
        url = self._spec.endpoint
        request = urllib.request.Request(url, body, self._headers, method="POST")  # noqa: S310 - http(s) only
        try:
            with self._opener.open(request, timeout=self._spec.timeout_s) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except urllib.error.URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _refusal(self, error: urllib.error.HTTPError) -> ServerFailed | ServerUnavailable:
        try:
            words = self._words(error.read(_MOST_WORDS))
        except (OSError, http.client.HTTPException):
            words = ""
        reason = self._at(f"{error.code} {error.reason}" + (f": {words}" if words else ""))
        if error.code in MAY_PASS:
            after = _retry_after_s(error.headers.get("Retry-After"))
            longer = f"; it asks to wait {after:.0f} s" if after > LONGEST_RETRY_AFTER_S else ""
            return _MayPass(reason + longer, status=error.code, retry_after_s=after)
        hints = {
            401: f"; the key is read from {self._spec.api_key_env}"
            if self._key
            else "; name the environment variable of the key under `api_key_env`",
            404: f"; is this the address, and does the server know the model {self._spec.model!r}?",
        }
        redirects = "; it redirects: give the final address as `url`" if 300 <= error.code < 400 else ""
        return ServerFailed(reason + hints.get(error.code, redirects), status=error.code)

    def _unreachable(self, cause: Any) -> ServerFailed | ServerUnavailable:
        reason = self._at(
            "no answer in time" if isinstance(cause, TimeoutError) else f"{type(cause).__name__}: {cause}"
        )
        # A name that is not known and a certificate that is not trusted stay so.
        lasts = isinstance(cause, ssl.SSLCertVerificationError) or (
            isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN
        )
        return ServerFailed(reason) if lasts else _MayPass(reason)

    def _read(self, body: bytes, count: int) -> Answer:
        """The answer, if it holds a vector for each text.

        Raises:
            ServerFailed: it does not.
        """
        try:
            document = _parsed(body)
        except ValueError:
            raise self.failed(f"the answer is no JSON: {self._words(body[:_MOST_WORDS])}") from None
        entries = document.get("data") if isinstance(document, dict) else None
        if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
            raise self.failed(f"the answer has no list `data`: {self._words(body[:_MOST_WORDS])}")
        if len(entries) != count:
            raise self.failed(f"{len(entries)} vectors are in the answer to {count} texts")
        places = [entry.get("index", place) for place, entry in enumerate(entries)]
        if not all(isinstance(place, int) for place in places) or sorted(places) != list(range(count)):
            raise self.failed(f"the vectors in the answer to {count} texts are not numbered 0 to {count - 1}")
        vectors = [self._vector(entries[row].get("embedding")) for row in np.argsort(places)]
        lengths = sorted({len(vector) for vector in vectors})
        if len(lengths) > 1:
            raise self.failed(f"the answer has vectors of {' and '.join(map(str, lengths))} dimensions")
        usage = document.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Answer(np.stack(vectors), tokens if isinstance(tokens, int) else 0)

    def _vector(self, value: Any) -> Floats:
        """(d,) of a list of numbers, or of float32 in base64."""
        try:
            if isinstance(value, str):
                vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float32)
            else:
                with np.errstate(over="ignore"):
                    vector = np.asarray(value, np.float32)
        except (ValueError, TypeError, OverflowError):
            vector = np.empty(0, np.float32)
        if vector.ndim != 1 or not len(vector):
            raise self.failed(
                f"an embedding must be a list of numbers, one vector a text, got {json.dumps(value)[:80]}; does the "
                "server pool (llama.cpp: --pooling)?"
            )
        return vector


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)  # ten times as fast: the threads of a client share an interpreter
    except ValueError:
        return json.loads(body)  # takes NaN, which some servers write


def _key_of(spec: RemoteSpec) -> str:
    """The key, empty if there is none."""
    if spec.api_key_env is None:
        return ""
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise invalid_encoder(f"the environment variable {spec.api_key_env} is not set", "api_key_env")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise invalid_encoder(f"what {spec.api_key_env} holds cannot be a key", "api_key_env")
    return key


def _wait_s(attempt: int) -> float:
    """Seconds before another attempt: doubled each time, and spread so that requests do not come back together."""
    wait = min(FIRST_WAIT_S * 2.0 ** min(attempt - 1, 30), LONGEST_WAIT_S)
    return wait * random.SystemRandom().uniform(0.75, 1.25)


def _retry_after_s(header: str | None) -> float:
    """Seconds of a Retry-After header, which has a number or a date; 0 without one.

    >>> _retry_after_s("3"), _retry_after_s(None), _retry_after_s("soon")
    (3.0, 0.0, 0.0)
    """
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def words_of(body: bytes) -> str:
    """What a server says of an error, in a line: the message of its JSON, or the text as it is.

    >>> words_of(b'{"error": {"message": "too long"}}'), words_of(b'{"detail": "no"}'), words_of(b"<p>no</p>")
    ('too long', 'no', '<p>no</p>')
    """
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    while isinstance(value, dict):
        value = next((value[key] for key in ("error", "message", "detail") if value.get(key)), json.dumps(value))
    return " ".join(str(value).split())
