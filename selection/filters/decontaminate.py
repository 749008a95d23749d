"""Drop rows that hold what a target asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.contamination import ContaminationRules
from selection.pool import Pool
from selection.step import Filter, check_number
from selection.types import DroppedRows, Input, Reason, Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Decontaminate(Filter):
    """Drop rows whose text holds what a target asks, word for word or in large part.

    Words are compared without case, punctuation, white space and invisible characters, see `kernels.contamination`.

    Args:
        n: words of an n-gram.
        short_n: words of an n-gram of questions of less than 2n words. One of less than `short_n` words is found only
            where it makes whole lines of the row.
        threshold: the share of a question's n-grams that a row must hold.
        similarity: rows are dropped, too, whose cosine to a target that steps see is at least this: rewordings and
            translations. None: vectors do not count. Rows that hold a target within a longer text are seldom that
            similar; how many planted ones are is in the view `embedding_recall`.

    The selection's record lists the dropped rows: by which rule ("exact", "ngrams", "embedding"), for which target, and
    the share of its n-grams or the cosine. Of several targets it is the one of which the row holds most; ties to
    "exact", then to the first target. Rows that no rule on texts drops name the most similar target, ties to the first.

    Not for: all recipes of a project: `decontamination:` searches the pool once for all, and measures its recall.

    Cost: one pass over the texts, about 5 nanoseconds a character of ASCII on one thread, and some 100 microseconds for
    each row that holds a question; with `similarity`, 2*n*m*d operations in float32. Memory: about 60 bytes for each
    n-gram of the targets, beside the texts; with `similarity` also 16 bytes a row.

    Source: n-grams of 13 words, Brown et al. 2020 (GPT-3), appendix C; share of n-grams as in Singh et al. 2024
    (ConTAM).
    """

    n: int = 13
    short_n: int = 5
    threshold: float = 0.6
    similarity: float | None = None
    name: ClassVar[str] = "decontaminate"
    bars: ClassVar[bool] = True
    added_options: ClassVar[tuple[str, ...]] = ("similarity",)

    def __post_init__(self) -> None:
        self.rules  # noqa: B018  # checks the options
        if self.similarity is not None:
            check_number(self.name, "similarity", self.similarity, least=-1, most=1)

    @property
    def needs(self) -> frozenset[Input]:
        """Texts; with `similarity` also vectors."""
        on_vectors = set() if self.similarity is None else {Input.VECTORS, Input.TARGETS}
        return frozenset({Input.TEXTS, Input.TARGET_QUESTIONS} | on_vectors)

    @property
    def rules(self) -> ContaminationRules:
        """When a row holds a question."""
        return ContaminationRules(n=self.n, short_n=self.short_n, threshold=self.threshold)

    def keep(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Rows:
        """See `Filter.keep`."""
        return self.apply(pool, budget, rng=rng)[0]

    def apply(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> tuple[Rows, DroppedRows]:  # noqa: ARG002
        """See `Filter.apply`."""
        from selection.kernels.contamination import Contamination

        rows = np.flatnonzero(pool.candidates)
        texts, questions = pool.get_texts(), pool.get_target_questions()
        best: dict[int, tuple[float, str, int]] = {}
        for match in Contamination(questions, self.rules).matches(texts[row] for row in rows.tolist()):
            key = (-match.score, match.rule, match.target)  # "exact" sorts before "ngrams"
            best[match.row] = min(key, best.get(match.row, key))
        best = {int(rows[place]): key for place, key in best.items()}
        names = list(pool.target_names or map(str, range(len(questions))))
        if self.similarity is not None:
            near, target_names = _near(pool, rows, self.similarity)
            best = {row: (-cosine, "embedding", len(names) + target) for row, (cosine, target) in near.items()} | best
            names += target_names
        dropped = np.array(sorted(best), np.int64)
        score, rule, target = zip(*(best[row] for row in dropped.tolist()), strict=True) if best else ((), (), ())
        reason = Reason(
            kind=np.array(rule, dtype=np.str_),
            ref=np.array(target, np.int64),
            rank=np.full(len(dropped), -1, np.int64),
            value=-np.array(score, np.float32),
            names=tuple(names),
        )
        return np.setdiff1d(rows, dropped).astype(np.int64), DroppedRows(self.name, dropped, reason)


def _near(pool: Pool, rows: Rows, similarity: float) -> tuple[dict[int, tuple[float, int]], list[str]]:
    """Row -> cosine and place of its most similar target, of those rows that are similar enough; the targets' names."""
    from selection.kernels.assign import most_similar_centre

    targets = pool.get_targets()
    nearest = most_similar_centre(pool.get_vectors(), np.asarray(targets.vectors, np.float32))
    near = rows[(nearest.place[rows] >= 0) & (nearest.value[rows] >= similarity)]
    values = zip(near.tolist(), nearest.value[near].tolist(), nearest.place[near].tolist(), strict=True)
    return {row: (cosine, place) for row, cosine, place in values}, list(targets.printable())
