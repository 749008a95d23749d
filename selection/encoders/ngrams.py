"""Texts by their words: counts of hashed n-grams, projected to a short vector. No model, any CPU."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from selection.encoders.format import Part, Turns, part_of, plain
from selection.encoders.postprocess import checked
from selection.encoders.projection import Projector
from selection.encoders.representation import Encoded
from selection.encoders.spec import invalid_encoder
from selection.kernels.ngrams import CLASSIFIER_BUCKETS, Ngrams, sparse_counts
from selection.step import check_choice, check_integer

# Part of the fingerprint. Increase it whenever the same spec would give other vectors.
NGRAMS_VERSION = 1
# The projection of so many takes 460 MB while it is made.
MAX_BUCKETS = 1 << 24


@dataclass(frozen=True, kw_only=True)
class NgramSpec:
    """Counts of hashed n-grams as vectors. JSON-plain: `asdict` is the record and rebuilds it.

    Attributes:
        kind: "ngrams".
        ngram: 1 for words and runs of punctuation, in lower case; 2 for pairs of neighbours as well.
        buckets: n-grams are hashed into so many; a large number keeps them apart and costs little.
        weighting: what a bucket that occurs c times in a text counts: "sublinear" is log(1 + c), "counts" is c.
        dims: dimensions of the vectors; a cosine errs by about 1 / sqrt(dims).
        seed: of the random projection from `buckets` to `dims`.
        turns: which turns are read: "all"; "prompt", "response" or "first_two" of the first exchange.
        store: how vectors are stored: "float16", or "float32" in twice the space.
        postprocess: "center" or "whiten" the vectors by a sample of the pool, as for hidden states.
    """

    ngram: int = 2
    buckets: int = CLASSIFIER_BUCKETS
    weighting: Literal["sublinear", "counts"] = "sublinear"
    dims: int = 1024
    seed: int = 0
    turns: Part = "all"
    store: Literal["float16", "float32"] = "float16"
    postprocess: str | Mapping[str, Any] | None = None
    kind: Literal["ngrams"] = "ngrams"

    def __post_init__(self) -> None:
        choices = {
            "weighting": ("sublinear", "counts"),
            "turns": get_args(Part),
            "store": ("float16", "float32"),
            "kind": ("ngrams",),
        }
        for name, allowed in choices.items():
            check_choice("encoder", name, getattr(self, name), allowed)
        for name, least in (("ngram", 1), ("buckets", 1), ("dims", 1), ("seed", 0)):
            check_integer("encoder", name, getattr(self, name), least=least)
        for name, most in (("ngram", 2), ("buckets", MAX_BUCKETS)):
            if getattr(self, name) > most:
                raise invalid_encoder(f"{name} must be at most {most}, got {getattr(self, name)}", name)
        object.__setattr__(self, "postprocess", checked(self.postprocess))

    @property
    def max_tokens(self) -> None:
        """See `Representation`: all of a text is read."""

    def check(self) -> None:
        """See `Representation.check`: there are no files."""

    def for_targets(self) -> NgramSpec:
        """See `Representation.for_targets`: the same."""
        return self

    def fingerprint(self) -> str:
        """32 hex digits of everything that a vector depends on: the options."""
        inputs = asdict(replace(self, postprocess=None)) | {"version": NGRAMS_VERSION}
        return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


class NgramEncoder:
    """The projection of a spec in memory.

    Attributes: see `Vectorizer`; `spec` holds the options. A token is a word or a run of punctuation.
    """

    device = "cpu"
    max_tokens = None
    batch_tokens = 1  # of no effect
    parameters = 0
    notes: Sequence[str] = ()

    def __init__(self, spec: NgramSpec) -> None:
        from scipy.sparse import csr_array

        self.spec, self.dimension = spec, spec.dims
        projector = Projector(kind="count_sketch", size=spec.buckets, dims=spec.dims, seed=spec.seed)
        columns, signs = projector.columns(0, spec.buckets)
        self._projection = csr_array((signs, columns, np.arange(spec.buckets + 1)), (spec.buckets, spec.dims))

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,  # noqa: ARG002
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See `Vectorizer.vectors_of`. The vector of a row depends on its text alone, to the bit.

        Cost: Python cuts the texts into tokens, about 0.3 microseconds a token. One block of texts in memory.
        """
        texts = [plain(part_of(turns, self.spec.turns)) for turns in rows]
        vectors = np.zeros((len(rows), self.dimension), np.float32)
        tokens = np.zeros(len(rows), np.int64)
        for block in Ngrams(self.spec.buckets, pairs=self.spec.ngram == 2).blocks(texts):
            counts = sparse_counts(block, self.spec.buckets)
            if self.spec.weighting == "sublinear":
                counts.data = np.log1p(counts.data)
            vectors[block.rows] = (counts @ self._projection).toarray()
            tokens[block.rows] = block.tokens
            if on_batch is not None:
                on_batch(len(block.rows))
        empty = dict.fromkeys(np.flatnonzero(tokens == 0).tolist(), "no tokens")
        return Encoded(vectors, empty, int(tokens.sum()), 0, not_finite="n-grams cancel out: raise `dims`")


def load_ngram_encoder(spec: NgramSpec, device: str | None = None) -> NgramEncoder:  # noqa: ARG001 - any CPU will do
    """See `load_vectorizer`."""
    return NgramEncoder(spec)
