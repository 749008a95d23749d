"""A loaded encoder: tokenise, batch by a token budget, run the model, pool."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selection.encoders.chunks import SpecialTokens, split, weighted_means
from selection.encoders.format import Turns, part_of, rds_query, written
from selection.encoders.pooling import pool
from selection.encoders.representation import Encoded
from selection.encoders.spec import EncoderSpec, invalid_encoder
from selection.errors import TemplateRefusal
from selection.types import Floats, Ints, Mask, Rows

Lengths = Rows

# Tokens in a batch, padding included. On a CPU one thread computes a batch, which should fit into its cache; a GPU
# needs enough tokens to be busy.
BATCH_TOKENS = {"cpu": 1024, "cuda": 65536}

# Texts beyond this, and so many characters for each token that is kept, are cut before they are tokenised.
_LONG_TEXT = 10_000
_CHARS_PER_TOKEN = 16
_TOKENISE_ROWS = 1024  # texts tokenised at once


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids.

    Attributes:
        ids: an int32 array for each text, special tokens included, cut at the encoder's `max_tokens`.
        truncated: (n,) bool, whether a text was cut.
    """

    ids: list[Ints]
    truncated: Mask

    @property
    def lengths(self) -> Lengths:
        return np.array([len(ids) for ids in self.ids], np.int64)


class Encoder:
    """A model in memory; made by `load_encoder`.

    Attributes:
        spec: the options that it was loaded from.
        device: "cpu", "cuda:0", ...
        dimension: d of its vectors.
        max_tokens: the effective limit: that of the spec, or of the model if it is lower and texts are not chunked.
        batch_tokens: the default token budget of a batch on this device.
        parameters: the number of weights without embedding tables; a token takes 2 * parameters operations.
        notes: messages for the user, for example that the model's limit is below `max_tokens`.
    """

    def __init__(self, spec: EncoderSpec, transformer: Any, device: str, notes: Sequence[str]) -> None:
        self.spec = spec
        self.device = device
        self._transformer = transformer
        self._tokenizer = transformer.tokenizer
        self.dimension = int(transformer.get_embedding_dimension())
        self._check_pooled(transformer)
        self.batch_tokens = BATCH_TOKENS["cuda" if device.startswith("cuda") else "cpu"]
        self.parameters = weights_met(transformer)
        limit = _token_limit(transformer)
        self._chunking = spec.chunking
        self._special_tokens = None
        if self._chunking:
            self._special_tokens = SpecialTokens.of(self._tokenizer)
            self._chunking.check_room(len(self._special_tokens), limit)
            limit = None  # a window keeps to it, a text need not
        self._limit = limit
        self.max_tokens = min(spec.max_tokens, limit) if limit else spec.max_tokens
        if self.max_tokens < spec.max_tokens:
            note = f"max_tokens {spec.max_tokens} is above the model's limit: texts are cut at {limit} tokens"
            notes = [*notes, note]
        self.notes = tuple(notes)
        if spec.template == "chat_template" and not self._tokenizer.chat_template:
            raise invalid_encoder(
                f"template chat_template: the tokenizer of {spec.model!r} has none; use tulu or plain", "template"
            )
        # A chat template writes the special tokens itself; the tokenizer would add the first one again.
        self._special = spec.template != "chat_template"
        pad, eos = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        # Llama has no padding token; padding is masked, so any id of the vocabulary works.
        self._pad = pad if pad is not None else eos if eos is not None else 0

    def _check_pooled(self, transformer: Any) -> None:
        """Have the model give the layers that are asked for, if it has them."""
        config, layers, powers = transformer.model.config, self.spec.layers, self.spec.gem_p
        if layers != (-1,):
            count = int(config.num_hidden_layers)
            absent = [layer for layer in layers if not -count - 1 <= layer <= count]
            if absent:
                raise invalid_encoder(
                    f"layers: {self.spec.model!r} has the layers -1 to -{count} (and 0, the embeddings), got {absent[0]}",
                    "layers",
                )
            config.output_hidden_states = True
        if self.dimension % len(powers):
            raise invalid_encoder(
                f"gem_p: {len(powers)} groups do not divide the {self.dimension} channels of {self.spec.model!r}",
                "gem_p",
            )

    def text_of(self, turns: Turns) -> str:
        """The text that is encoded for a candidate or a target: `prompt` and the turns in the spec's template.

        Raises:
            TemplateRefusal: the tokenizer's chat template does not take the turns.
        """
        turns = part_of(turns, self.spec.turns)
        if not turns:
            return ""
        eos = self._tokenizer.eos_token or ""
        if self.spec.template == "rds_query":
            return self.spec.prompt + rds_query(turns, eos)[0]
        text = written(self.spec.template, self._tokenizer, turns)
        # As RDS+ closes a prompt alone.
        closing = eos if self.spec.template == "tulu" and self.spec.turns == "prompt" else ""
        return self.spec.prompt + text + closing

    def answer_of(self, turns: Turns) -> str:
        """What of a target is cut into tokens by itself, behind its text; nothing in most templates."""
        return rds_query(turns, self._tokenizer.eos_token or "")[1] if self.spec.template == "rds_query" else ""

    def tokens(self, texts: Sequence[str], answers: Sequence[str] | None = None) -> Tokens:
        """Texts as token ids. Texts are not changed before: no chat template, no stripping, no lower-casing.

        Args:
            answers: one for each text, whose tokens come behind those of the text, without special ones; each of the
                two is cut at `max_tokens`, both together at the model's own limit.

        Cost: about a million tokens per second and core; 4 bytes a token.
        """
        tokens = self._cut(texts, special=self._special)
        if answers is None or not any(answers):
            return tokens
        behind = self._cut(answers, special=False)
        ids = [np.concatenate(both)[: self._limit] for both in zip(tokens.ids, behind.ids, strict=True)]
        over = [len(a) + len(b) > len(c) for a, b, c in zip(tokens.ids, behind.ids, ids, strict=True)]
        return Tokens(ids, tokens.truncated | behind.truncated | np.array(over, np.bool_))

    def _cut(self, texts: Sequence[str], *, special: bool) -> Tokens:
        ids: list[Ints] = []
        truncated: list[bool] = []
        for start in range(0, len(texts), _TOKENISE_ROWS):
            batch = self._tokenizer(
                [self._beginning(text) for text in texts[start : start + _TOKENISE_ROWS]],
                add_special_tokens=special,
                truncation=True,
                max_length=self.max_tokens,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
            )
            rows = batch["input_ids"]
            ids += [np.array(row, np.int32) for row in rows]
            # A tokenizer in Python does not report cuts; a text at the limit counts as cut.
            cut = [True] * len(rows) if batch.encodings is None else [bool(e.overflowing) for e in batch.encodings]
            truncated += [len(row) == self.max_tokens and is_cut for row, is_cut in zip(rows, cut, strict=True)]
        return Tokens(ids, np.array(truncated, np.bool_))

    def _beginning(self, text: str) -> str:
        """As much of a very long text as decides the tokens that are kept: a tokenizer takes 100 bytes a character.

        A beginning decides them if one of twice its length has the same.
        """
        size = _LONG_TEXT + _CHARS_PER_TOKEN * self.max_tokens
        kept: list[int] | None = None
        while size < len(text):
            before, kept = kept, self._first_tokens(text[:size])
            if kept is not None and kept == before:
                return text[:size]
            size *= 2
        return text

    def _first_tokens(self, text: str) -> list[int] | None:
        """The tokens kept of a text, without the special ones; None if all of its tokens are."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return ids[: self.max_tokens] if len(ids) > self.max_tokens else None

    def lengths(self, texts: Sequence[str]) -> Lengths:
        """(n,) int64: tokens of each text, special ones included, after the cut at `max_tokens`."""
        return self.tokens(texts).lengths

    def vectors_of(
        self,
        rows: Sequence[Turns],
        *,
        batch_tokens: int | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Encoded:
        """See `Vectorizer.vectors_of`. A row that the chat template refuses, or without a token, has none."""
        failed: dict[int, str] = {}
        texts = [self._text_of(turns, row, failed) for row, turns in enumerate(rows)]
        tokens = self.tokens(texts, [self.answer_of(turns) for turns in rows])
        vectors = self.encode_tokens(tokens, batch_tokens=batch_tokens, on_batch=on_batch)
        empty = dict.fromkeys(np.flatnonzero(tokens.lengths == 0).tolist(), "no tokens")
        total, cut = int(tokens.lengths.sum()), int(tokens.truncated.sum())
        return Encoded(vectors, empty | failed, total, cut, not_finite="hidden states not finite")

    def _text_of(self, turns: Turns, row: int, refusals: dict[int, str]) -> str:
        """The text to encode; empty for a row that the chat template refuses, whose words go to `refusals`."""
        try:
            return self.text_of(turns)
        except TemplateRefusal as refusal:
            refusals[row] = str(refusal)
            return ""

    def encode(self, texts: Sequence[str], *, batch_tokens: int | None = None) -> Floats:
        """Unit vectors of texts that `text_of` has formatted.

        Returns:
            (n, d) float32 of norm 1; zeros for a text without tokens, NaN if the model overflows.
        """
        return self.encode_tokens(self.tokens(texts), batch_tokens=batch_tokens)

    def encode_tokens(
        self, tokens: Tokens, *, batch_tokens: int | None = None, on_batch: Callable[[int], None] | None = None
    ) -> Floats:
        """As `encode`, from token ids.

        Args:
            batch_tokens: tokens in a batch, padding included; by default a number that suits the device.
            on_batch: called after each batch with its number of texts; one in windows counts with its last window.

        Batches are of windows where texts are chunked. They depend on the lengths and `batch_tokens` alone, so the same
        texts give the same batches. On a CPU each batch runs in one thread, and several batches run at a time. That is
        faster than all threads on one batch, since no thread waits for another inside a layer, and the vectors do not
        depend on the number of threads.
        """
        parts, counts = split(tokens.ids, self._chunking, self._special_tokens)
        lengths = np.array([len(ids) for ids in parts], np.int64)
        is_last = np.zeros(len(parts), np.bool_)
        is_last[np.cumsum(counts) - 1] = True
        vectors = np.zeros((len(parts), self.dimension), np.float32)
        by_batch = list(batches(lengths, batch_tokens or self.batch_tokens))
        with side_by_side(self.device) as run:
            for rows, part in zip(by_batch, run(lambda rows: self._forward(parts, rows), by_batch), strict=True):
                vectors[rows] = part
                if on_batch is not None:
                    on_batch(int(is_last[rows].sum()))
        return vectors if self._chunking is None else weighted_means(vectors, lengths, counts)

    def _forward(self, texts: Sequence[Ints], rows: Rows) -> Floats:
        """(len(rows), d) the vectors of a batch, padded on the right."""
        import torch

        ids, mask = padded([texts[row] for row in rows], self._pad)
        with torch.inference_mode():
            real = torch.from_numpy(mask).to(self.device)
            features = {"input_ids": torch.from_numpy(ids).to(self.device), "attention_mask": real.long()}
            output = self._transformer(features)
            if self.spec.layers == (-1,):
                hidden = output["token_embeddings"]
            else:
                every = output["all_layer_embeddings"]
                hidden = torch.stack([every[layer].float() for layer in self.spec.layers]).mean(0)
            return pool(hidden, real, self.spec.pooling, self.spec.gem_p).cpu().numpy()


def weights_met(model: Any) -> int:
    """The weights of a model that each token meets: all but those of embedding tables, where a token only finds its row."""
    embeddings = (m for m in model.modules() if type(m).__name__ in ("Embedding", "EmbeddingBag"))
    tables = {id(p) for m in embeddings for p in m.parameters()}
    return sum(p.numel() for p in model.parameters() if id(p) not in tables)


def padded(texts: Sequence[Ints], pad: int) -> tuple[Rows, Mask]:
    """(b, longest) int64 the token ids of a batch, padded on the right, and which of them are real."""
    lengths = np.array([len(ids) for ids in texts])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    batch = np.full(mask.shape, pad, np.int64)
    batch[mask] = np.concatenate(texts)
    return batch, mask


@contextmanager
def side_by_side(device: str) -> Iterator[Callable[..., Iterable[Floats]]]:
    """A `map` that runs several calls at a time on a CPU, each in one thread; on another device the built-in `map`."""
    if not device.startswith("cpu"):
        yield map
        return
    import torch

    threads = torch.get_num_threads()
    workers = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield workers.map
    finally:
        workers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting changes the mathematics library of the whole process


def batches(lengths: Lengths, batch_tokens: int) -> Iterator[Rows]:
    """The rows of each batch, longest texts first: at most `batch_tokens` tokens with padding, but at least one text.

    >>> [rows.tolist() for rows in batches(np.array([3, 9, 4, 4]), 9)]
    [[1], [2, 3], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def load_encoder(spec: EncoderSpec, device: str | None = None) -> Encoder:
    """Load a spec's model.

    Args:
        device: "cpu", "cuda", "cuda:1", ...; by default the first CUDA card, else the CPU.

    Raises:
        InvalidOption: the model does not exist or cannot be loaded.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers.base.modules.transformer import Transformer

    folder = spec.folder()
    hub = {} if folder else {"revision": spec.commit()}
    dtype = spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)
    device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        with quiet() as missing:
            transformer = Transformer(
                str(folder or spec.model),
                transformer_task="feature-extraction",
                model_kwargs={"dtype": dtype, **hub},
                processor_kwargs=dict(hub),
                config_kwargs=dict(hub),
                # Stated because it would be inferred otherwise: with a chat template, strings would become user turns.
                modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
                module_output_name="token_embeddings",
                do_lower_case=folder is not None and _lower_case(folder),
                unpad_inputs=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise invalid_encoder(f"model {spec.model!r} cannot be loaded: {error}") from error
    if missing:
        raise invalid_encoder(
            f"the files of model {spec.model!r} miss {len(missing)} weights (first: {missing[0]}); they would be drawn at "
            "random"
        )
    if transformer.tokenizer is None:
        raise invalid_encoder(f"model {spec.model!r} has no tokenizer")
    transformer.tokenizer.truncation_side = "right"
    return Encoder(spec, transformer.eval().to(device), str(device), _unused_modules(folder))


def _token_limit(transformer: Any) -> int | None:
    """The most tokens that the model takes, special ones included; None if it states no limit."""
    limits = [transformer.tokenizer.model_max_length]
    limits.append(getattr(transformer.config, "max_position_embeddings", None) or -1)
    for name, module in transformer.named_modules():
        # RoBERTa and its relatives number positions from padding_idx + 1, so a table of 514 has 512 positions.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limits.append(module.num_embeddings - module.padding_idx - 1)
    # A tokenizer without a limit has 1e30.
    return min((int(limit) for limit in limits if 0 < limit < 1e9), default=None)


def _lower_case(folder: Path) -> bool:
    """Whether a model saved by sentence-transformers needs lower-cased text."""
    config = folder / "sentence_bert_config.json"
    return config.is_file() and bool(json.loads(config.read_text("utf-8")).get("do_lower_case"))


def _unused_modules(folder: Path | None) -> list[str]:
    """A note for each trained module after the pooling, which a saved sentence-transformers model may have."""
    files = [folder / "modules.json", folder.parent / "modules.json"] if folder else []
    modules: list[dict[str, str]] = next((json.loads(path.read_text("utf-8")) for path in files if path.is_file()), [])
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    unused = [kind for kind in kinds if kind not in {"Transformer", "Pooling", "Normalize"}]
    return [f"the model's {kind} module is not applied: only its transformer is used" for kind in unused]


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Hide progress bars and the load report while weights load; yields the names of weights that the files miss."""
    from transformers.utils import logging as progress

    missing: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "LOAD REPORT" not in message:
            return True
        # Unused weights (a language model's head) are expected, and an encoder's own pooler is not used here.
        names = re.findall(r"^(\S+)\s*\|[^|]*MISSING", message, re.MULTILINE)
        missing.extend(name for name in names if not name.startswith("pooler."))
        return False

    logger = logging.getLogger("transformers.modeling_utils")
    shown = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    logger.addFilter(keep)
    try:
        yield missing
    finally:
        logger.removeFilter(keep)
        if shown:
            progress.enable_progress_bar()
