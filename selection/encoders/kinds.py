"""The kinds of representations: `kind:` of an entry of `encoders:`. To add one, add a line to `KINDS`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from selection.encoders.gradients import GradientSpec
from selection.encoders.ngrams import NgramSpec
from selection.encoders.remote_spec import RemoteSpec
from selection.encoders.representation import Representation, Vectorizer
from selection.encoders.sentence_spec import SentenceSpec
from selection.encoders.spec import EncoderSpec


@dataclass(frozen=True)
class Kind:
    """One kind.

    Attributes:
        spec: the class of its options; importing it loads no model library.
        loader: "module:function" that takes the spec and a device.
    """

    spec: type[Any]
    loader: str


KINDS: Mapping[str, Kind] = {
    "hidden_states": Kind(EncoderSpec, "selection.encoders.encoder:load_encoder"),
    "sentence_transformers": Kind(SentenceSpec, "selection.encoders.sentence_encoder:load_sentence_encoder"),
    "gradients": Kind(GradientSpec, "selection.encoders.gradients:load_gradient_encoder"),
    "ngrams": Kind(NgramSpec, "selection.encoders.ngrams:load_ngram_encoder"),
    "remote": Kind(RemoteSpec, "selection.encoders.remote_encoder:load_remote_encoder"),
}
DEFAULT_KIND = "hidden_states"


def load_vectorizer(spec: Representation, device: str | None = None) -> Vectorizer:
    """Load what turns rows into vectors.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; by default the first CUDA card, else the CPU.

    Raises:
        InvalidOption: a model does not exist or cannot be loaded.
        ServerFailed: the server of a model refuses.
        ServerUnavailable: it cannot be reached.
    """
    module, _, function = KINDS[spec.kind].loader.partition(":")
    vectorizer: Vectorizer = getattr(import_module(module), function)(spec, device)
    return vectorizer
