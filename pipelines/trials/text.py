"""Rows as tokens: what the loss is of, how rows become batches, and the tokenizer of a model from scratch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from selection.encoders.format import TEXT

END = "<|end|>"
_ROWS = 512  # tokenised at once

Ids = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tokens:
    """A row, or rows one after another.

    Attributes:
        ids: (t,) int32.
        answer: (t,) bool, the tokens that the loss is of.
    """

    ids: Ids
    answer: Mask


@dataclass(frozen=True, eq=False)
class Reader:
    """How rows become tokens.

    Attributes:
        raw: a `tokenizers.Tokenizer`.
        end: the token that ends a row.
        begin: the token that begins a row, where the model has one.
    """

    raw: Any
    end: int
    begin: int | None = None

    @property
    def size(self) -> int:
        """How many tokens there are."""
        return int(self.raw.get_vocab_size())

    def read(self, rows: Sequence[Iterable[tuple[str, str]]]) -> list[Tokens]:
        """Conversations as tokens: each turn behind its role, as `selection.encoders.format.tulu`; all of a single text.

        The loss is of the answers, each with the token that ends it. Where a row has no answer it is of all contents.

        Cost: about a million tokens a second and core.
        """
        return list(chain.from_iterable(self._batch(rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)))

    def _batch(self, rows: Sequence[Iterable[tuple[str, str]]]) -> Iterator[Tokens]:
        pieces = [pieces_of(turns) for turns in rows]
        texts = [text.encode("utf-8", "replace").decode() for row in pieces for text, _ in row]
        read = iter(self.raw.encode_batch(texts, add_special_tokens=False))
        for row in pieces:
            ids: list[int] = [] if self.begin is None else [self.begin]
            answer = [False] * len(ids)
            for _, counts in row:
                own = [*next(read).ids, *([self.end] if counts else [])]
                ids += own
                answer += [counts] * len(own)
            yield Tokens(np.array(ids, np.int32), np.array(answer, np.bool_))


def pieces_of(turns: Iterable[tuple[str, str]]) -> list[tuple[str, bool]]:
    r"""The texts of a row in order, each with whether the loss is of it.

    >>> pieces_of([("user", "Hi"), ("assistant", "Hello")])
    [('<|user|>\nHi\n', False), ('<|assistant|>\n', False), ('Hello', True)]
    >>> pieces_of([("text", "Once.")]), pieces_of([("user", "2 + 2?")])
    ([('Once.', True)], [('<|user|>\n', False), ('2 + 2?', True)])
    """
    every = list(turns)
    has_answer = any(role == "assistant" for role, _ in every)
    pieces = []
    for role, content in every:
        header = "" if role == TEXT else f"<|{role}|>\n"
        if role == "assistant" or not has_answer:
            pieces += [(header, False)] if header else []
            pieces.append((content.strip(), True))
        else:
            pieces.append((f"{header}{content.strip()}\n", False))
    return pieces


def train_reader(texts: Iterable[str], size: int) -> Reader:
    """A byte-level BPE of at most so many tokens, trained on some texts.

    Source: Radford et al. 2019 (GPT-2), by the `tokenizers` library.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator((text.encode("utf-8", "replace").decode() for text in texts), trainer)
    return Reader(raw, 0)


def open_reader(path: str) -> Reader:
    """A tokenizer that `train_reader` made and `raw.save` wrote."""
    from tokenizers import Tokenizer

    return Reader(Tokenizer.from_file(path), 0)


def packed(rows: Sequence[Tokens], count: int, context: int, rng: np.random.Generator) -> tuple[Ids, Mask]:
    """Sequences to train on: the rows in random order, one after another, cut into equal lengths; then again.

    Args:
        rows: at least one with a token.

    Returns:
        (count, context) the tokens, and which of them the loss is of.

    >>> rows = [Tokens(np.full(2, n, np.int32), np.ones(2, bool)) for n in range(3)]
    >>> packed(rows, 2, 3, np.random.default_rng(0))[0].tolist()
    [[2, 2, 0], [0, 1, 1]]
    """
    wanted, have = count * context, 0
    order: list[int] = []
    lengths = [len(row.ids) for row in rows]
    while have < wanted:
        order += rng.permutation(len(rows)).tolist()
        have += sum(lengths)
    ids = np.concatenate([rows[place].ids for place in order])[:wanted]
    answer = np.concatenate([rows[place].answer for place in order])[:wanted]
    return ids.reshape(count, context), answer.reshape(count, context)


def shortened(row: Tokens, context: int) -> Tokens:
    """What a model of so much context sees of an example: all of it, or the end of its prompt and the beginning of its answer.

    The first answer stands at half of the context at the latest.
    """
    if len(row.ids) <= context:
        return row
    first = int(row.answer.argmax())
    start = min(max(0, first - context // 2), len(row.ids) - context)
    return Tokens(row.ids[start : start + context], row.answer[start : start + context])


def batches(rows: Sequence[Tokens], tokens: int) -> Iterator[list[int]]:
    """Places of rows of about equal length, so many that a batch has about so many tokens, padding included."""
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    start = 0
    for place, following in pairwise([*range(len(order)), len(order)]):
        if following == len(order) or (following - start + 1) * len(rows[order[following]].ids) > tokens:
            yield order[start : place + 1]
            start = following
