"""How many tokens a row has for a trainer's tokenizer. Only the tokenizer is loaded, no model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.encoders.format import TEXT, messages, plain
from selection.encoders.spec import EncoderSpec
from selection.errors import InvalidOption
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

    def counts(self, rows: Sequence[Conversation]) -> Rows:
        """(n,) int64 tokens of each row.

        A conversation is rendered by the tokenizer's chat template, if it has one. Otherwise the contents are counted,
        separated by line breaks, with the special tokens that the tokenizer adds.

        Raises:
            InvalidOption: the chat template refuses a row.

        Cost: a few hundred thousand tokens a second.
        """
        counts = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _ROWS):
            batch = rows[start : start + _ROWS]
            has_template = bool(self.tokenizer.chat_template)
            templated = np.array([has_template and [role for role, _ in turns] != [TEXT] for turns in batch])
            for rendered in (False, True):
                places = np.flatnonzero(templated == rendered)
                if len(places):
                    texts = [self._rendered(batch[i]) if rendered else plain(batch[i]) for i in places.tolist()]
                    # A chat template writes the special tokens itself; the tokenizer would add the first one again.
                    tokens = self.tokenizer(texts, add_special_tokens=not rendered, return_attention_mask=False)
                    counts[start + places] = [len(ids) for ids in tokens["input_ids"]]
        return counts

    def _rendered(self, turns: Conversation) -> str:
        from jinja2 import TemplateError

        try:
            return str(self.tokenizer.apply_chat_template(messages(turns), tokenize=False))
        except TemplateError as error:
            roles = ", ".join(role for role, _ in turns)
            raise InvalidOption(
                f"tokenizer {self.name!r}: its chat template refuses a row with the roles {roles}: {error}; bring the counts "
                "as a column"
            ) from error


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
