"""What the vectors of a server of embeddings depend on, and how the server is asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from selection.encoders.format import Part
from selection.encoders.spec import invalid_encoder
from selection.step import check_choice, check_integer, check_number

# Part of the fingerprint. Increase it whenever the same spec would give other vectors.
VECTORS_VERSION = 1
# How the server is asked, which changes no vector.
TRANSPORT = ("url", "api_key_env", "batch_size", "concurrency", "timeout_s", "retries")
# Fields of a request that are not the user's, or have a key of their own.
_OWN_FIELDS = ("model", "input", "encoding_format", "dimensions")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class RemoteSpec:
    """A server that answers the OpenAI embeddings request (`POST /v1/embeddings`): vLLM, text-embeddings-inference,
    llama.cpp, Ollama, a paid service. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        kind: "remote".
        model: its name as the server knows it. What answers under this name is compared by a probe text in each run.
        url: the server, `http://localhost:8000` (/v1/embeddings is added) or with a path as OpenAI's clients take it,
            `https://host/api/v1` (/embeddings is added).
        api_key_env: the name of the environment variable that holds the key, never the key itself.
        revision: any text that tells two models apart which the server calls alike; another text, other vectors.
        dimensions: ask for vectors of this length, where the model can shorten them.
        template: how turns become text: "plain", their contents one below the other, or "tulu" without its
            end-of-sequence tokens, which only the server knows.
        turns: which of them: "all"; "prompt", "response" or "first_two" of the first exchange.
        prompt: a prefix of each text ("passage: ").
        target_prompt: that of the targets ("query: "); as the candidates' if left out.
        extra_body: further fields of the request, as the server names them (`{truncate_prompt_tokens: -1}`). They are
            stored: no secrets.
        target_extra_body: those of the targets; as the candidates' if left out.
        batch_size: texts in a request, at most.
        concurrency: requests at a time.
        timeout_s: seconds without a byte from the server, after which a request is asked again.
        retries: how often a request is asked again where that may help: the server is busy (429, 5xx), not there, or
            too slow. The waits double from a second to a minute, or are as long as the server asks for.
        store: how vectors are stored: "float16", or "float32" in twice the space.
    """

    max_tokens: ClassVar[None] = None
    model: str
    url: str
    api_key_env: str | None = None
    revision: str | None = None
    dimensions: int | None = None
    template: Literal["plain", "tulu"] = "plain"
    turns: Part = "all"
    prompt: str = ""
    target_prompt: str | None = None
    extra_body: Mapping[str, Any] | None = None
    target_extra_body: Mapping[str, Any] | None = None
    batch_size: int = 32
    concurrency: int = 8
    timeout_s: float = 120.0
    retries: int = 6
    store: Literal["float16", "float32"] = "float16"
    kind: Literal["remote"] = "remote"

    def __post_init__(self) -> None:
        choices = {
            "template": ("plain", "tulu"),
            "turns": get_args(Part),
            "store": ("float16", "float32"),
            "kind": ("remote",),
        }
        for name, allowed in choices.items():
            check_choice("encoder", name, getattr(self, name), allowed)
        for name in ("model", "url"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise invalid_encoder(f"{name} must be text that is not empty", name)
        for name, least in (("batch_size", 1), ("concurrency", 1), ("retries", 0)):
            check_integer("encoder", name, getattr(self, name), least=least)
        check_integer("encoder", "dimensions", self.dimensions, least=1, optional=True)
        check_number("encoder", "timeout_s", self.timeout_s, above=0)
        _check_url(self.url)
        if self.api_key_env is not None and not _VARIABLE.fullmatch(self.api_key_env):
            # Not shown: it may be the key.
            raise invalid_encoder(
                "api_key_env must be the name of an environment variable, of A-Z, 0-9 and _ (MY_API_KEY), not the key",
                "api_key_env",
            )
        for name in ("extra_body", "target_extra_body"):
            _check_fields(name, getattr(self, name))

    def check(self) -> None:
        """See `Representation.check`. The server is not asked, and its key is not needed, before there is work."""

    @property
    def endpoint(self) -> str:
        """Where requests go."""
        url = self.url.rstrip("/")
        if url.endswith("/embeddings"):
            return url
        return f"{url}/embeddings" if urlsplit(url).path else f"{url}/v1/embeddings"

    def for_targets(self) -> RemoteSpec:
        """The spec of the targets' vectors: with their own prompt and fields, where they have some."""
        prompt = self.prompt if self.target_prompt is None else self.target_prompt
        fields = self.extra_body if self.target_extra_body is None else self.target_extra_body
        return replace(self, prompt=prompt, extra_body=fields, target_prompt=None, target_extra_body=None)

    def fingerprint(self) -> str:
        """32 hex digits of everything that a candidate's vector depends on, as far as winnow can know it.

        The server's address and how it is asked do not count. Nor do the model's files, which only the server sees; see
        `RemoteEncoder.probe`.
        """
        inputs = asdict(self) | {"extra_body": self.extra_body or None, "version": VECTORS_VERSION}
        for name in (*TRANSPORT, "target_prompt", "target_extra_body"):
            del inputs[name]
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def _check_url(url: str) -> None:
    """Raise `InvalidOption`, without the address, which may hold a secret."""
    try:
        parts = urlsplit(url)
        _ = parts.port, (parts.hostname or "").encode("idna")
    except ValueError:
        raise invalid_encoder("url is no address; for example http://localhost:8000", "url") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not url.isprintable() or " " in url:
        raise invalid_encoder("url must begin with http:// or https:// and name a host", "url")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise invalid_encoder(
            "url must be without user, password and query, since it is stored; name the environment variable of a key "
            "under `api_key_env`",
            "url",
        )


def _check_fields(name: str, fields: Mapping[str, Any] | None) -> None:
    if fields is None:
        return
    if not isinstance(fields, Mapping):
        raise invalid_encoder(f"{name} must be a mapping of fields of the request, got {fields!r}", name)
    taken = [key for key in fields if key in _OWN_FIELDS]
    if taken:
        raise invalid_encoder(f"{name} must be without {taken[0]}, which winnow sets", name)
    try:
        json.dumps(dict(fields), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise invalid_encoder(f"{name} must be as JSON can hold it: {error}", name) from None
