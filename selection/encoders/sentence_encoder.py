"""A model that sentence-transformers runs, with all the modules that its author saved."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from selection.encoders.encoder import BATCH_TOKENS, batches, quiet, side_by_side, weights_met
from selection.encoders.format import Turns, part_of, plain, tulu
from selection.encoders.representation import Encoded
from selection.encoders.sentence_spec import SentenceSpec
from selection.encoders.spec import invalid_encoder
from selection.types import Floats, Rows

# Characters in a token, roughly; sizes batches before a text is cut into tokens.
_CHARS_PER_TOKEN = 3
# What a text takes beyond its tokens: a batch of empty texts is none.
_TOKENS_BESIDE = 4


class SentenceEncoder:
    """A model in memory; made by `load_sentence_encoder`.

    Attributes: see `Vectorizer`; `spec` holds the options that it was loaded from.
    """

    def __init__(self, spec: SentenceSpec, model: Any, device: str) -> None:
        self.spec, self.device, self._model = spec, device, model
        self.batch_tokens = BATCH_TOKENS["cuda" if device.startswith("cuda") else "cpu"]
        self.parameters = weights_met(model)
        self.max_tokens, notes = self._limited(spec.max_tokens)
        self.notes = tuple(notes)
        self._prompt = self._resolved_prompt()
        self._task = {} if spec.task is None else {"task": spec.task}
        self.dimension = int(self._forward(self._features(["a"])).shape[1])

    def _limited(self, wanted: int | None) -> tuple[int | None, list[str]]:
        """The limit in tokens, set in the model, and what is to be said of it."""
        limit = self._model.max_seq_length
        is_limited = limit is not None and np.isfinite(limit) and limit < 1e9
        if wanted is None:
            return int(limit) if is_limited else None, []
        if self.parameters == 0:
            raise invalid_encoder("max_tokens: static embeddings read all of a text", "max_tokens")
        if is_limited and wanted > limit:
            return int(limit), [f"max_tokens {wanted} is above the model's limit: texts are cut at {limit} tokens"]
        self._model.max_seq_length = wanted
        return wanted, []

    def _resolved_prompt(self) -> str | None:
        prompts, name = self._model.prompts, self.spec.prompt_name
        if self.spec.prompt is not None:
            return self.spec.prompt
        if name is not None and name not in prompts:
            have = f"it has {', '.join(sorted(prompts))}" if prompts else "it has none"
            raise invalid_encoder(f"prompt_name: {self.spec.model!r} has no prompt {name!r}; {have}", "prompt_name")
        name = name or self._model.default_prompt_name
        return None if name is None else str(prompts[name])

    def text_of(self, turns: Turns) -> str:
        """The text that is encoded for a row, without the prompt."""
        turns = part_of(turns, self.spec.turns)
        if self.spec.template == "plain":
            return plain(turns)
        return tulu(turns, getattr(self._model.tokenizer, "eos_token", None) or "")

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See `Vectorizer.vectors_of`. A row without the turns that are asked for has no vector.

        Batches depend on the characters of the texts and `batch_tokens` alone. As in `Encoder`, several run at a time
        on a CPU, each in one thread.
        """
        texts = [self.text_of(turns) for turns in rows]
        empty = dict.fromkeys((row for row, text in enumerate(texts) if not text), "no tokens")
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        most = self.max_tokens or sys.maxsize
        lengths = np.array([min(len(text) // _CHARS_PER_TOKEN, most) for text in texts], np.int64)
        parts: list[Rows] = list(batches(lengths + _TOKENS_BESIDE, batch_tokens or self.batch_tokens))
        counts = []

        def features(part: Rows) -> dict[str, Any]:
            # Not in the workers: a tokenizer is not made for several threads.
            made = self._features([texts[row] for row in part.tolist()])
            counts.append(_token_counts(made))
            return made

        with side_by_side(self.device) as run:
            for part, made in zip(parts, run(self._forward, map(features, parts)), strict=True):
                vectors[part] = made
                if on_batch is not None:
                    on_batch(len(part))
        tokens = np.concatenate([np.empty(0, np.int64), *counts])
        cut = int((tokens >= most).sum())
        return Encoded(vectors, empty, int(tokens.sum()), cut, not_finite="no tokens, or values not finite")

    def _features(self, texts: list[str]) -> dict[str, Any]:
        return cast("dict[str, Any]", self._model.preprocess(texts, prompt=self._prompt, **self._task))

    def _forward(self, features: dict[str, Any]) -> Floats:
        """(b, d) float32 of a batch, of any length."""
        import torch
        from sentence_transformers.util import batch_to_device

        with torch.inference_mode():
            output = self._model(batch_to_device(features, torch.device(self.device)), **self._task)
            vectors = output["sentence_embedding"][:, : self.spec.truncate_dim].float().cpu().numpy()
        return cast("Floats", vectors)


def _token_counts(features: dict[str, Any]) -> Rows:
    """(b,) the tokens of each text of a batch."""
    if "attention_mask" in features:
        return np.asarray(features["attention_mask"].sum(1), np.int64)
    starts = np.asarray(features["offsets"], np.int64)
    return np.diff(np.append(starts, len(features["input_ids"])))


def load_sentence_encoder(spec: SentenceSpec, device: str | None = None) -> SentenceEncoder:
    """Load a spec's model; see `load_vectorizer`.

    Raises:
        InvalidOption: the model does not exist or cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer

    folder = spec.folder()
    dtype = spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        with quiet() as missing:
            model = SentenceTransformer(
                str(folder or spec.model),
                device=device,
                revision=None if folder else spec.commit(),
                trust_remote_code=spec.trust_remote_code,
                model_kwargs={"dtype": dtype},
            )
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        ImportError,
        AttributeError,
        TypeError,
        SafetensorError,
    ) as error:
        raise invalid_encoder(f"model {spec.model!r} cannot be loaded: {error}") from error
    if missing:
        raise invalid_encoder(
            f"the files of model {spec.model!r} miss {len(missing)} weights (first: {missing[0]}); they would be drawn at "
            "random"
        )
    return SentenceEncoder(spec, model.eval(), device)
