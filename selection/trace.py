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
        rows, scores: (m,) the rows that the selector saw and their scores; empty without a scorer.
        closed: "quota" or "max_per_group" -> for each of its groups, whether it took nothing more at the end.
    """

    dropped: list[tuple[str, Rows]] = field(default_factory=list)
    scorer: str | None = None
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    scores: Array = field(default_factory=lambda: np.empty(0, np.float32))
    closed: dict[str, list[bool]] = field(default_factory=dict)
