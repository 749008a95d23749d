"""How likely a causal language model finds each row: perplexity, ifd, token_uncertainty.

They read columns of negative log-likelihoods (NLL, in any unit, >= 0) that a forward pass stored. A row without a value
is an error that names it: a pass that failed on the row stands for no score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.scorers.column import Column, numbers
from selection.step import Scorer, check_choice, check_name
from selection.types import Array, Doubles, Floats, Input, Mask

# Where the authors' middle window begins (RDS+, `get_top_ppl.py`).
THIRD = 0.33


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity(Scorer):
    """By the mean NLL of the row's tokens, the logarithm of its perplexity.

    Args:
        nll: the column of the summed NLL; of the mean NLL where `tokens` is null.
        tokens: the column of the number of tokens, or null.
        prefer: "top" takes the highest perplexity first, "bottom" the lowest. "middle" goes outwards from the middle of
            the descending order of all n rows, so that a budget b takes the places from (n - b) // 2 on.
        middle: where the window of "middle" begins: "centred" as above; "third" at int(0.33 n), as in the authors'
            code. The rows above are then dropped.

    The score is the mean NLL, or its negative; of "middle", minus the place in the order in which rows are taken. Ties
    go to the lowest row. Places are exact for up to 16 million rows.

    Not for: short rows beside long ones: the mean of a few tokens varies most, so both ends are short rows.

    Source: Top-PPL and Mid-PPL of Ivison et al. 2025 (RDS+). Cost: n; "middle" sorts.
    """

    nll: str = "nll_sum"
    tokens: str | None = "n_tok"
    prefer: str = "top"
    middle: str = "centred"
    name: ClassVar[str] = "perplexity"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})

    def __post_init__(self) -> None:
        check_name(self.name, "nll", self.nll)
        check_name(self.name, "tokens", self.tokens, optional=True)
        check_choice(self.name, "prefer", self.prefer, ("top", "middle", "bottom"))
        check_choice(self.name, "middle", self.middle, ("centred", "third"))

    @property
    def columns(self) -> frozenset[str]:
        """One or two."""
        return frozenset({self.nll} | ({self.tokens} if self.tokens is not None else set()))

    @property
    def drops(self) -> bool:
        """The rows above the window of the authors' code."""
        return self.prefer == "middle" and self.middle == "third"

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: a value is missing, not finite, below 0, or of no tokens; names column and row.
        """
        mean = losses(self.nll, pool.get_column(self.nll))
        if self.tokens is not None:
            count = numbers(self.tokens, pool.get_column(self.tokens)).astype(np.float64)
            _refuse(count <= 0, self.tokens, count, "must be > 0 tokens")
            mean = mean / count
        if self.prefer != "middle":
            return (mean if self.prefer == "top" else -mean).astype(np.float32)
        order = np.argsort(-mean, kind="stable")
        scores = np.empty(len(mean), np.float32)
        scores[order] = (_centred if self.middle == "centred" else _from_third)(len(mean))
        return scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Ifd(Scorer):
    """Instruction-following difficulty: NLL of the answer after the prompt over NLL of the answer alone; highest first.

    Args:
        answer: the column of the mean NLL of the answer after its prompt.
        alone: the column of the mean NLL of the answer without it. Sums over the same tokens do as well.
        drop: which rows are dropped, since their prompt does not help: "at_least_1", those of a ratio of 1 or more;
            "above_1", as the authors' code; "none".

    Not for: answers of a few tokens, whose means vary most.

    Source: Li et al. 2024 (Cherry LLM). Cost: n.
    """

    answer: str = "nll_answer"
    alone: str = "nll_alone"
    drop: str = "at_least_1"
    name: ClassVar[str] = "ifd"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.COLUMNS})

    def __post_init__(self) -> None:
        check_name(self.name, "answer", self.answer)
        check_name(self.name, "alone", self.alone)
        check_choice(self.name, "drop", self.drop, ("at_least_1", "above_1", "none"))

    @property
    def columns(self) -> frozenset[str]:
        """Two."""
        return frozenset({self.answer, self.alone})

    @property
    def drops(self) -> bool:
        """Unless `drop: none`."""
        return self.drop != "none"

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: a value is missing, not finite or below 0, or a row to keep has no ratio; names both.
        """
        answer, alone = (losses(field, pool.get_column(field)) for field in (self.answer, self.alone))
        # Compared without dividing, so that no rounding moves a row across 1.
        dropped = {"at_least_1": answer >= alone, "above_1": answer > alone, "none": np.zeros(len(pool), bool)}[
            self.drop
        ]
        _refuse((alone == 0) & ~dropped, self.alone, alone, "so there is no ratio; `where` can keep such rows out")
        ratio = np.divide(answer, alone, out=np.full(len(pool), -np.inf), where=~dropped)
        return np.asarray(ratio, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUncertainty(Column):
    """How unsure a model is of the tokens of its row: a mean or a quantile of their NLL, highest first.

    Args:
        field: the column: a mean (`Chow-Average` of the paper) or a quantile (`Chow-Quantile`), where the 0.9 quantile
            of the NLL is the 0.1 quantile of the log-probability.
        descending: false takes the surest rows first.

    Not for: short rows beside long ones, as `perplexity`.

    Source: Gupta et al. 2024, "Language Model Cascades: Token-level uncertainty and beyond". Cost: n.
    """

    field: str = "nll_mean"
    name: ClassVar[str] = "token_uncertainty"

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`.

        Raises:
            InvalidInput: a value is missing, not finite or below 0; names column and row.
        """
        losses(self.field, pool.get_column(self.field))
        return Column.score(self, pool, rng=rng)


def losses(field: str, values: Array) -> Doubles:
    """(n,) float64 from a column of NLL.

    Raises:
        InvalidInput: a value is missing, no number, not finite or below 0.
    """
    numbers(field, values)
    nll = values.astype(np.float64)
    _refuse(nll < 0, field, nll, "but a negative log-likelihood is >= 0 (a log-probability has the other sign)")
    return nll


def _refuse(wrong: Mask, field: str, values: Doubles, rule: str) -> None:
    bad = np.flatnonzero(wrong)
    if len(bad):
        raise InvalidInput(f"column {field!r}: row {{row}} is {values[bad[0]]:g}, {rule}", row=int(bad[0]))


def _centred(n: int) -> Floats:
    """The score of each place of an order of n: the first b by score are the places from (n - b) // 2 on.

    >>> _centred(4).tolist()
    [-2.0, 0.0, -1.0, -3.0]
    """
    twice = 2 * np.arange(n) - (n - 1)
    scores = np.empty(n, np.float32)
    scores[np.argsort(np.abs(twice), kind="stable")] = -np.arange(n)
    return scores


def _from_third(n: int) -> Floats:
    """The score of each place of an order of n: from int(0.33 n) on; -inf before."""
    start = int(THIRD * n)
    return np.concatenate([np.full(start, -np.inf), -np.arange(n - start)]).astype(np.float32)
