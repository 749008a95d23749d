"""Take the rows of highest score that are not too similar to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.kernels.ranking import highest
from selection.pool import Pool
from selection.step import Selector, check_number
from selection.types import Input, Reason, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class DiversityFilter(Selector):
    """Go through the candidates by descending score and take each whose cosine to every row taken before is small (Deita).

    Args:
        tau: in -1..1, the largest cosine to a row taken before; a row at exactly tau is taken.

    Of equal scores the lowest row comes first. Already selected rows count as taken before. A zero vector has cosine 0
    to every row. The gain is the score; `ref` is the most similar row taken before, of equals the lowest, and `value`
    its cosine (none and NaN for a first row). If fewer rows than the budget are far enough from each other, that is an
    error, or with `allow_short` a selection that is `exhausted`.

    Exact, for any block size. Cost for b taken rows (already selected ones included): a pass over the vectors, then at
    most 2*n*b*d operations; the rows after the last pick are not compared. Memory: 8*d bytes for each taken row, and
    40 MB.

    Not for: vectors by which unrelated texts have cosines above `tau`: few rows are then taken.

    Source: Liu et al. 2024 (Deita). Their code compares a batch with the rejected rows of the batch as well, and keeps
    rows whose vectors are NaN.
    """

    tau: float = 0.9
    name: ClassVar[str] = "diversity_filter"
    needs: ClassVar[frozenset[Input]] = frozenset({Input.VECTORS, Input.SCORES})
    nested: ClassVar[bool] = True
    incremental: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.name, "tau", self.tau, least=-1, most=1)

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:  # noqa: ARG002
        """See `Selector.select`."""
        from selection.kernels.diversity import diverse_rows

        candidates, scores = pool.candidate_rows, pool.get_scores()
        order = candidates[highest(scores[candidates], len(candidates))]
        rows, cosine, near = diverse_rows(
            pool.get_vectors(), order, budget, kept=pool.get_already_selected(), tau=self.tau
        )
        reason = Reason.of("neighbour", len(rows), ref=near, value=cosine)
        return Selection(rows, scores[rows], reason)
