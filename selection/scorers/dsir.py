"""Importance of a row by its words: how much likelier they are among the target texts than in the pool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidInput
from selection.pool import Pool
from selection.step import Scorer, check_choice, check_flag, check_integer, is_number
from selection.types import Doubles, Floats, Input, Rows

EPS = 1e-8  # of the authors' code: the probability of a bucket that nothing fell into
# Below so many n-grams of the targets, most buckets of the pool are not among them.
FEW_NGRAMS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Dsir(Scorer):
    """The log importance weight: the sum over a row's n-grams of ln p(n-gram | targets) - ln p(n-gram | pool).

    N-grams are words and pairs of words, hashed into buckets. A row without a token is dropped.

    Args:
        length_normalize: divide by the number of tokens; else long rows have the largest weights of either sign.
        laplace: what is added to each bucket's count of the targets; "auto" is 1 if the targets have fewer than a
            million n-grams, else 0.
        min_tokens: rows with fewer tokens are dropped.
        buckets: how many.
        hash: "fast", or "sha256" for the buckets of the authors' code.

    As published: `{dsir: {length_normalize: false, laplace: 0, min_tokens: 100, hash: sha256}}`, then `softmax`, which
    adds Gumbel noise to the log weights and takes the highest sums. `top` in its place takes the highest weights.

    The pool's distribution is that of the rows that earlier filters left.

    Not for: a handful of targets, or a task that is told by more than its words.

    Source: Xie et al. 2023 (DSIR), `hashed_ngram_dsir.py`. Cost: two passes over the texts, in which
    Python cuts them into tokens; two floats for each bucket, one for each row, and one block of texts.
    """

    length_normalize: bool = True
    laplace: float | str = "auto"
    min_tokens: int = 0
    buckets: int = 10_000
    hash: str = "fast"
    name: ClassVar[str] = "dsir"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.TEXTS, Input.TARGET_TEXTS})

    def __post_init__(self) -> None:
        check_flag(self.name, "length_normalize", self.length_normalize)
        if self.laplace != "auto" and not (is_number(self.laplace) and self.laplace >= 0):
            raise self.invalid(f"laplace must be auto or a finite number >= 0, got {self.laplace!r}", "laplace")
        check_integer(self.name, "min_tokens", self.min_tokens, least=0)
        check_integer(self.name, "buckets", self.buckets, least=1)
        check_choice(self.name, "hash", self.hash, ("fast", "sha256"))

    @property
    def drops(self) -> bool:
        """The rows of too few tokens."""
        return True

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidInput: the target texts hold no token.
        """
        from selection.kernels.ngrams import Ngrams

        ngrams = Ngrams(self.buckets, exact=self.hash == "sha256")
        texts = pool.get_texts()
        wanted = ngrams.counts(pool.get_target_texts())
        if not wanted.any():
            raise InvalidInput("target_texts: there is no word in them")
        laplace = float(wanted.sum() < FEW_NGRAMS) if isinstance(self.laplace, str) else float(self.laplace)
        gain = log_ratios(wanted, ngrams.counts(texts), laplace)
        scores = np.empty(len(pool), np.float32)
        for block in ngrams.blocks(texts):
            weight = np.asarray(np.bincount(block.place, gain[block.bucket], len(block.rows)), np.float64)
            if self.length_normalize:
                weight = weight / np.maximum(block.tokens, 1)
            scores[block.rows] = np.where(block.tokens < max(self.min_tokens, 1), -np.inf, weight)
        return scores


def log_ratios(wanted: Rows, pool: Rows, laplace: float) -> Doubles:
    """(buckets,) what an n-gram of each bucket adds to the log weight, from the counts of targets and pool."""
    from selection.kernels.compiled.probabilities import logs

    target_share = (wanted + laplace) / (wanted.sum() + laplace * len(wanted))
    pool_share = pool / max(int(pool.sum()), 1)
    return np.asarray(logs(target_share + EPS) - logs(pool_share + EPS))
