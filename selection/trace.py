"""What a draw did with the rows that it did not take, for whoever asks why."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from selection.types import Array, Rows


@dataclass(eq=False)
class Trace:
    """Filled by `selection.select` for a caller that passes it; in the frame of the pool.

    Attributes:
        dropped: (step, its rows) of each filter and of each scorer that drops rows, in order; also of filters that do
            not report.
        scorer: the last step that scored; None if no step did.
        rows: (m,) the rows that the selector saw, those that were already selected among them.
        candidates: (m,) whether it could choose them.
        scores: (m,) their scores; empty without a scorer.
        groups: "quota" or "max_per_group" -> (m,) the group of each row, `selection.groups.NO_GROUP` = in none.
        quota_names: of the groups of the quota.
        closed: "quota", "max_per_group" or "budget" -> for each of its groups (the budget is one), 0 if it would have
            taken more, else 1 + how many rows were selected when it closed.
    """

    dropped: list[tuple[str, Rows]] = field(default_factory=list)
    scorer: str | None = None
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    candidates: Array = field(default_factory=lambda: np.empty(0, np.bool_))
    scores: Array = field(default_factory=lambda: np.empty(0, np.float32))
    groups: dict[str, Rows] = field(default_factory=dict)
    quota_names: tuple[str, ...] = ()
    closed: dict[str, list[int]] = field(default_factory=dict)
