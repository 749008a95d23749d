"""Vectors that a server gives, several requests at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http import HTTPStatus
from threading import Event

import numpy as np

from selection.encoders.format import Turns, part_of, plain, tulu
from selection.encoders.remote_client import EmbeddingClient, log
from selection.encoders.remote_spec import RemoteSpec
from selection.encoders.representation import Encoded
from selection.errors import ServerFailed, ServerUnavailable
from selection.types import Floats, Rows

# Its stored vectors are compared with those of later versions of winnow: another text needs another VECTORS_VERSION.
# Several scripts, digits and code, so that models differ in it.
PROBE = "winnow probe 1: the quick brown fox; 37 * 11 = 407; def f(x): return x[::-1]; Füße, мир, 世界, שלום."
LEAST_COSINE = 0.999
# Tokens of a request, roughly: below the 2 MB that text-embeddings-inference takes, and the 300,000 tokens of OpenAI.
BATCH_TOKENS = 1 << 18
# As if each token met so many weights on a CPU: segments of about 375,000 tokens, which a killed run asks for again.
PARAMETERS = 4_000_000
_BYTES_PER_TOKEN = 3
# Answers that may be the fault of a text, such as one that is too long; llama.cpp says 500 then.
_OF_A_TEXT = frozenset({400, 413, 422, 500})


class RemoteEncoder:
    """A server that was asked for the probe; made by `load_remote_encoder`.

    Attributes: see `Vectorizer` and `Probed`.
    """

    device = "remote"
    max_tokens = None
    batch_tokens = BATCH_TOKENS
    parameters = PARAMETERS
    notes: tuple[str, ...] = ()

    def __init__(self, spec: RemoteSpec, client: EmbeddingClient) -> None:
        self.spec, self._client, self._has_halved = spec, client, False
        self.probe = self._probed(Event())
        self.dimension = len(self.probe)
        if spec.dimensions not in (None, self.dimension):
            raise client.failed(
                f"asked for dimensions: {spec.dimensions}, the vectors have {self.dimension}; leave it out if this "
                "model cannot shorten them"
            )

    def text_of(self, turns: Turns) -> str:
        """The text that stands for a row, without the prompt."""
        turns = part_of(turns, self.spec.turns)
        return plain(turns) if self.spec.template == "plain" else tulu(turns, "")

    def require_same(self, probe: Sequence[float] | Floats) -> None:
        """See `Probed.require_same`."""
        self._require_same(np.asarray(probe, np.float32), self.probe)

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See `Vectorizer.vectors_of`. A row without text has no vector, nor has one that the server refuses by itself.

        Requests are of neighbouring rows, at most `batch_size` and about `batch_tokens` tokens each; answers may come
        in any order. Memory: the vectors, and `concurrency` requests with their answers.

        Raises:
            ServerFailed, ServerUnavailable: see `EmbeddingClient.embed`; or another model answers than before.
        """
        texts = [self.text_of(turns) for turns in rows]
        failed = {row: "no tokens" for row, text in enumerate(texts) if not text.strip()}
        if on_batch is not None and failed:
            on_batch(len(failed))
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        parts = list(self._requests(texts, batch_tokens or self.batch_tokens))
        stop, tokens = Event(), 0

        def ask(part: Rows) -> int:
            return self._ask(part, texts, vectors, failed, self.spec.retries, stop)

        with ThreadPoolExecutor(self.spec.concurrency) as workers:
            futures = {workers.submit(ask, part): len(part) for part in parts}
            try:
                for future in as_completed(futures):
                    tokens += future.result()
                    if on_batch is not None:
                        on_batch(futures[future])
            except BaseException:
                stop.set()
                workers.shutdown(wait=False, cancel_futures=True)
                raise
        self._check_still_same(stop)  # all vectors of a call are of the same model
        return Encoded(vectors, failed, tokens, truncated=0, not_finite="the vector is zero or not finite")

    def _requests(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Rows]:
        """The rows of each request."""
        part: list[int] = []
        load = 0
        for row, text in enumerate(texts):
            if not text.strip():
                continue
            size = len((self.spec.prompt + text).encode()) // _BYTES_PER_TOKEN + 1
            if part and (len(part) == self.spec.batch_size or load + size > batch_tokens):
                yield np.array(part)
                part, load = [], 0
            part.append(row)
            load += size
        if part:
            yield np.array(part)

    def _ask(
        self, rows: Rows, texts: Sequence[str], vectors: Floats, failed: dict[int, str], retries: int, stop: Event
    ) -> int:
        """Fill in the vectors of some rows; gives the tokens read.

        Rows that are refused together are asked for by halves, so that a text that is too long loses itself alone.
        """
        try:
            answer = self._client.embed([self.spec.prompt + texts[row] for row in rows], retries=retries, stop=stop)
        except (ServerFailed, ServerUnavailable) as error:
            if error.status not in _OF_A_TEXT:
                raise
            if len(rows) > 1:
                if not self._has_halved:
                    self._has_halved = True
                    log.warning("%d texts together: %s; asked for by halves", len(rows), error.reason)
                retries = min(retries, 1) if error.status == HTTPStatus.INTERNAL_SERVER_ERROR else retries
                halves = np.array_split(rows, 2)
                return sum(self._ask(half, texts, vectors, failed, retries, stop) for half in halves)
            self._check_still_same(stop)  # a server that refuses the probe as well refuses everything
            failed[int(rows[0])] = f"the server refuses it: {error.reason}"
            return 0
        if answer.vectors.shape[1] != self.dimension:
            raise self._another(f"{self.dimension} dimensions then, {answer.vectors.shape[1]} now")
        vectors[rows] = answer.vectors
        return answer.tokens

    def _check_still_same(self, stop: Event) -> None:
        """Raise `ServerFailed` if another model answers than when this encoder was loaded."""
        self._require_same(self.probe, self._probed(stop))

    def _require_same(self, before: Floats, now: Floats) -> None:
        if len(before) != len(now):
            raise self._another(f"{len(before)} dimensions then, {len(now)} now")
        cosine = float(before @ now / np.linalg.norm(before))
        if not cosine >= LEAST_COSINE:
            raise self._another(
                f"a probe text's vectors have a cosine of {cosine:.4f}, the same model's {LEAST_COSINE} or more"
            )

    def _another(self, difference: str) -> ServerFailed:
        return self._client.failed(
            f"another model than before answers as {self.spec.model!r}: {difference}. Serve the former one again, or "
            "give this entry of `encoders` another `revision` (any text): its vectors are then made anew, beside the others"
        )

    def _probed(self, stop: Event) -> Floats:
        """(d,) float32 of norm 1, the vector of the probe text."""
        answer = self._client.embed([self.spec.prompt + PROBE], retries=self.spec.retries, stop=stop)
        length = float(np.linalg.norm(answer.vectors[0].astype(np.float64)))
        if not np.isfinite(length) or length == 0:
            raise self._client.failed("the vector of a probe text is zero or not finite")
        probe: Floats = (answer.vectors[0] / length).astype(np.float32)
        return probe


def load_remote_encoder(spec: RemoteSpec, device: str | None = None) -> RemoteEncoder:  # noqa: ARG001 - it has its own
    """Ask a server for the probe; see `load_vectorizer`.

    Raises:
        InvalidOption: the environment variable of the key is not set.
        ServerFailed, ServerUnavailable: see `EmbeddingClient.embed`.
    """
    return RemoteEncoder(spec, EmbeddingClient(spec))
