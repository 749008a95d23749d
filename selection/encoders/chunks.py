"""Long texts in windows: each window becomes a vector, and their mean stands for the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.errors import InvalidOption
from selection.step import check_choice, check_integer
from selection.types import Floats, Ints, Rows

_KEYS = ("tokens", "overlap", "combine")


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How a long text is cut into windows.

    Attributes:
        tokens: of a window, special ones included.
        overlap: tokens of the text that a window shares with the one before it.
        combine: "mean": of the windows' unit vectors, weighted by their tokens, made unit.
    """

    tokens: int
    overlap: int = 0
    combine: str = "mean"

    def __post_init__(self) -> None:
        check_integer("encoder", "tokens", self.tokens, least=2)
        check_integer("encoder", "overlap", self.overlap, least=0)
        check_choice("encoder", "combine", self.combine, ("mean",))
        if self.overlap >= self.tokens:
            raise InvalidOption(
                f"overlap must be below tokens, which is {self.tokens}, got {self.overlap}",
                step="encoder",
                option="overlap",
            )

    @classmethod
    def of(cls, options: Any) -> Chunking:
        """From the value of `chunk`.

        Raises:
            InvalidOption: it is no mapping, or a key or value is wrong.
        """
        if not isinstance(options, Mapping):
            raise _invalid(f"must be a mapping of {', '.join(_KEYS)}, got {options!r}")
        unknown = [key for key in options if key not in _KEYS]
        if unknown:
            raise _invalid(f"unknown key {unknown[0]!r}; allowed: {', '.join(_KEYS)}")
        if "tokens" not in options:
            raise _invalid("needs `tokens`, how many a window has")
        try:
            return cls(**options)
        except InvalidOption as error:
            raise _invalid(error.reason) from None

    def check_room(self, special: int, limit: int | None) -> None:
        """Whether windows fit the model and go forward.

        Args:
            special: special tokens in each window.
            limit: the most tokens that the model takes.

        Raises:
            InvalidOption: they do not.
        """
        if limit is not None and self.tokens > limit:
            raise _invalid(f"windows of {self.tokens} tokens are too long: the model takes {limit} at most")
        if self.tokens - special <= self.overlap:
            raise _invalid(
                f"windows of {self.tokens} tokens, {special} of them special ones, leave {self.tokens - special} for the "
                f"text, which must be more than the overlap, {self.overlap}"
            )


def _invalid(reason: str) -> InvalidOption:
    return InvalidOption(f"chunk: {reason}", step="encoder", option="chunk")


@dataclass(frozen=True)
class SpecialTokens:
    """What a tokenizer puts before and behind a text.

    Attributes:
        before, behind: int32 token ids.
    """

    before: Ints
    behind: Ints

    @classmethod
    def of(cls, tokenizer: Any) -> SpecialTokens:
        """Those of a tokenizer, read off a short text."""
        whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
        places = [i for i in range(len(whole) - len(bare) + 1) if whole[i : i + len(bare)] == bare]
        if not places or not bare:
            raise _invalid("the tokenizer's special tokens cannot be told from those of a text")
        start, stop = places[0], places[0] + len(bare)
        return cls(np.array(whole[:start], np.int32), np.array(whole[stop:], np.int32))

    def __len__(self) -> int:
        return len(self.before) + len(self.behind)


def windows(ids: Ints, chunking: Chunking, special: SpecialTokens) -> list[Ints]:
    """The windows of a text.

    Args:
        ids: (t,) its tokens. Special ones at its ends stand at the ends of each window.

    Returns:
        The text itself where it fits a window. Otherwise windows of `tokens`, of which the last may be shorter, but has
        a token that the one before it has not.

    >>> none = SpecialTokens(np.zeros(0, np.int32), np.zeros(0, np.int32))
    >>> [each.tolist() for each in windows(np.arange(6), Chunking(tokens=3, overlap=1), none)]
    [[0, 1, 2], [2, 3, 4], [4, 5]]
    """
    if len(ids) <= chunking.tokens:
        return [ids]
    before, behind = special.before, special.behind
    # A chat template may write them or not.
    before = before if np.array_equal(ids[: len(before)], before) else before[:0]
    behind = behind if np.array_equal(ids[len(ids) - len(behind) :], behind) else behind[:0]
    text = ids[len(before) : len(ids) - len(behind)]
    room = chunking.tokens - len(before) - len(behind)
    starts = range(0, len(text) - chunking.overlap, room - chunking.overlap)
    return [np.concatenate([before, text[start : start + room], behind]) for start in starts]


def weighted_means(vectors: Floats, weights: Rows, counts: Rows) -> Floats:
    """One unit vector for each text, from those of its windows.

    Args:
        vectors: (w, d) float32 of norm 1, the windows of a text behind each other.
        weights: (w,) the tokens of each window.
        counts: (n,) windows of each text, >= 1.

    Returns:
        (n, d) float32 of norm 1; the vector itself, to the bit, for a text of one window. Zeros where windows cancel
        out, NaN where a window is not finite.
    """
    ends = np.cumsum(counts)
    means = vectors[ends - 1]
    for row in np.flatnonzero(counts > 1):
        own = slice(ends[row] - counts[row], ends[row])
        mean = weights[own].astype(np.float64) @ vectors[own]
        length = np.linalg.norm(mean)
        means[row] = mean / length if length != 0 else 0
    return means


def split(
    texts: Sequence[Ints], chunking: Chunking | None, special: SpecialTokens | None
) -> tuple[Sequence[Ints], Rows]:
    """The windows of all texts, behind each other, and (n,) int64 how many each has; without `chunking`, the texts."""
    if chunking is None or special is None:
        return texts, np.ones(len(texts), np.int64)
    parts = [windows(ids, chunking, special) for ids in texts]
    return [window for part in parts for window in part], np.array([len(part) for part in parts], np.int64)
