"""How many tokens a row has for a trainer's tokenizer. Only the tokenizer is loaded, no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.encoders.format import TEXT, plain, templated
from selection.encoders.spec import EncoderSpec
from selection.errors import InvalidOption, TemplateRefusal
from selection.types import Rows

# Part of the fingerprint. Increase it whenever the counts of the same tokenizer would change.
COUNTS_VERSION = 1

_ROWS = 1024  # tokenised at once

Conversation = Sequence[tuple[str, str]]

_FILES = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "chat_template", "spiece", "sentencepiece")


@dataclass(frozen=True)
class TokenCounter:
    """A tokenizer in memory; made by `load_token_counter`."""

    name: str
    tokenizer: Any

    def counts(self, rows: Sequence[Conversation]) -> tuple[Rows, list[str]]:
        """(n,) int64 tokens of each row; and for each row that the chat template refuses, its words.

        A conversation is rendered by the tokenizer's chat template, if it has one. Otherwise, and where the template
        refuses it, the contents are counted, separated by line breaks, with the special tokens that the tokenizer adds.

        Cost: a few hundred thousand tokens a second.
        """
        counts = np.zeros(len(rows), np.int64)
        refusals: list[str] = []
        for start in range(0, len(rows), _ROWS):
            batch = rows[start : start + _ROWS]
            texts: dict[bool, dict[int, str]] = {False: {}, True: {}}  # rendered or not -> row -> text
            for row, turns in enumerate(batch, start=start):
                text = self._rendered(turns, refusals)
                texts[text is not None][row] = plain(turns) if text is None else text
            for rendered, by_row in texts.items():
                if by_row:
                    # A chat template writes the special tokens itself; the tokenizer would add the first one again.
                    tokens = self.tokenizer(
                        list(by_row.values()), add_special_tokens=not rendered, return_attention_mask=False
                    )
                    counts[list(by_row)] = [len(ids) for ids in tokens["input_ids"]]
        return counts, refusals

    def _rendered(self, turns: Conversation, refusals: list[str]) -> str | None:
        if not self.tokenizer.chat_template or [role for role, _ in turns] == [TEXT]:
            return None
        try:
            return templated(self.tokenizer, turns)
        except TemplateRefusal as refusal:
            refusals.append(str(refusal))
            return None


def tokenizer_fingerprint(name: str) -> str:
    """32 hex digits of the tokenizer's files or hub commit: the same fingerprint means the same counts.

    Args:
        name: as `EncoderSpec.model`.

    Raises:
        InvalidOption: there is no such tokenizer.
    """
    spec = EncoderSpec(model=name)
    folder = spec.folder()
    total = hashlib.blake2b(str(COUNTS_VERSION).encode(), digest_size=16)
    if folder is None:
        total.update(f"{name}@{spec.commit()}".encode())
        return total.hexdigest()
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name.startswith(_FILES))
    if not files:
        raise InvalidOption(f"the folder {folder} holds no tokenizer", step="tokenizer")
    for path in files:
        total.update(f"\0{path.name}\0{hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()}".encode())
    return total.hexdigest()


def load_token_counter(name: str) -> TokenCounter:
    """Load a tokenizer.

    Raises:
        InvalidOption: there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    spec = EncoderSpec(model=name)
    folder = spec.folder()
    revision = {} if folder else {"revision": spec.commit()}
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder or name), **revision)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InvalidOption(f"{name!r} cannot be loaded: {error}", step="tokenizer") from error
    tokenizer.model_max_length = int(1e30)  # no text is cut, so the tokenizer need not warn
    return TokenCounter(name, tokenizer)
