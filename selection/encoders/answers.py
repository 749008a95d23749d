"""A conversation as the tokens that a causal language model reads, and which of them are its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.encoders.format import Template, Turns, written
from selection.encoders.spec import invalid_encoder
from selection.errors import TemplateRefusal
from selection.types import Ints

NO_ANSWER, EMPTY_ANSWER, CUT = "no answer", "the answer is empty", "cut at max_tokens"
ALONE = "the answer has no token in front of it"

# Why a row cannot be read as it is, whatever the model.
ROW_CAUSES = (TemplateRefusal.WORDS, NO_ANSWER, EMPTY_ANSWER, CUT, ALONE)


@dataclass(frozen=True)
class Reading:
    """A text as tokens, and which of them the answer is.

    Attributes:
        ids: special tokens included, cut at `max_tokens`.
        answer: the first token of the answer and the one after its last; None where it is not whole.
        cause: why there is no whole answer; empty where there is one.
    """

    ids: Ints
    answer: tuple[int, int] | None
    cause: str = ""


class AnswerReader:
    """A tokenizer, and how rows are written for it.

    Attributes:
        max_tokens: the effective limit: that which is asked for, or of the model if it is lower.
        notes: messages for the user.
        pad: a token id to fill batches with.

    Raises:
        InvalidOption: the tokenizer does not say where its tokens stand in the text, or it has no chat template where
            one is asked for.
    """

    def __init__(self, tokenizer: Any, config: Any, *, model: str, template: Template, max_tokens: int) -> None:
        self._tokenizer, self._template = tokenizer, template
        if not tokenizer.is_fast:
            raise invalid_encoder(
                f"model {model!r}: its tokenizer does not say where its tokens stand in the text; a fast one is needed"
            )
        if template == "chat_template" and not tokenizer.chat_template:
            raise invalid_encoder(
                f"template chat_template: the tokenizer of {model!r} has none; use tulu or plain", "template"
            )
        limits = (tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or -1)
        self.max_tokens = int(min([max_tokens, *(limit for limit in limits if 0 < limit < 1e9)]))
        cut = f"max_tokens {max_tokens} is above the model's limit: rows are cut at {self.max_tokens} tokens"
        self.notes = (cut,) if self.max_tokens < max_tokens else ()
        self._special = template != "chat_template"
        pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
        self.pad = int(pad if pad is not None else eos if eos is not None else 0)

    def read(self, turns: Sequence[tuple[str, str]]) -> Reading:
        """A row as tokens.

        The answer is the last turn if it is an assistant's, with the end-of-sequence token that the template writes
        behind it. Its tokens are those of the whole row that stand in it, also in part.
        """
        role, answer = turns[-1][0], turns[-1][1].strip()
        why = NO_ANSWER if role != "assistant" else "" if answer else EMPTY_ANSWER
        try:
            return self._tokens(turns, answer, why)
        except TemplateRefusal as refusal:
            return Reading(np.empty(0, np.int32), None, str(refusal))

    def _tokens(self, turns: Turns, answer: str, why: str) -> Reading:
        text = written(self._template, self._tokenizer, turns)
        read = self._tokenizer(
            text,
            add_special_tokens=self._special,
            truncation=True,
            max_length=self.max_tokens,
            return_attention_mask=False,
            return_offsets_mapping=True,
        )
        ids = np.array(read["input_ids"], np.int32)
        begins, ends = np.array(read["offset_mapping"], np.int64).reshape(-1, 2).T
        last = int(ends.max(initial=0))
        if why:
            cut = len(ids) == self.max_tokens and last < len(text.rstrip())
            return Reading(ids, None, CUT if cut else why)
        start, stop = answer_span(text, answer, self._tokenizer.eos_token or "")
        if last < stop:
            return Reading(ids, None, CUT)
        inside = np.flatnonzero((ends > start) & (begins < stop))
        return Reading(ids, (int(inside[0]), int(inside[-1]) + 1))


def answer_span(text: str, answer: str, eos: str) -> tuple[int, int]:
    r"""Where the answer stands in a row's text: its first character, and the one after its last or after `eos` behind it.

    >>> answer_span("<|assistant|>\nyes</s>", "yes", "</s>")
    (14, 21)
    """
    if eos and text.endswith(answer + eos):
        return len(text) - len(answer + eos), len(text)
    start = text.rfind(answer)
    return start, start + len(answer)
