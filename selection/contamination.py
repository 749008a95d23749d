"""When a text counts as holding an evaluation text, and what is said of it; `kernels.contamination` looks for them."""

from __future__ import annotations

from dataclasses import dataclass

from selection.errors import InvalidOption
from selection.step import check_integer, check_number


@dataclass(frozen=True, kw_only=True)
class ContaminationRules:
    """The rules on texts.

    Attributes:
        n: words of an n-gram, at least 1.
        short_n: words of an n-gram of targets of less than 2n words, 1 .. n.
        threshold: the share of a target's n-grams that a text must hold, above 0 and at most 1.

    Raises:
        InvalidOption: an option is out of its range.
    """

    n: int = 13
    short_n: int = 5
    threshold: float = 0.6

    def __post_init__(self) -> None:
        check_integer("decontaminate", "n", self.n, least=1)
        check_integer("decontaminate", "short_n", self.short_n, least=1)
        check_number("decontaminate", "threshold", self.threshold, above=0, most=1)
        if self.short_n > self.n:
            reason = f"short_n must be at most n = {self.n}, got {self.short_n}"
            raise InvalidOption(reason, step="decontaminate", option="short_n")

    def size(self, count: int) -> int:
        """Words of an n-gram of a target of so many words."""
        return self.n if count >= 2 * self.n else min(self.short_n, count)


@dataclass(frozen=True)
class Match:
    """A text that holds a target.

    Attributes:
        row, target: their places.
        rule: "exact" or "ngrams".
        score: the share of the target's n-grams that the text holds, 1.0 for "exact".
        start, stop: the characters of the text, as it is, from the first word of the match to the end of its last one.
            For "ngrams" it is the longest run of words all of whose n-grams are the target's, the first of them.
    """

    row: int
    target: int
    rule: str
    score: float
    start: int
    stop: int
