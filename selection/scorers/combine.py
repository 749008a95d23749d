"""Several scorers as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.pool import Pool
from selection.registry import build_step
from selection.step import Scorer, check_number
from selection.types import Floats, Input


@dataclass(frozen=True, slots=True, kw_only=True)
class Combine(Scorer):
    """A weighted sum of the ranks that other scorers give.

    A rank is the share of rows with a lower score, ties at their middle, so it lies in (0, 1) and no scorer outweighs
    another by its unit.

    Args:
        weights: the options themselves: scorer -> its weight, its options with a `weight` among them, or a list of
            these where one scorer is used more than once.

    For example:

        combine: {rds_max: 1, column: [{field: quality, weight: 0.5}, {field: length, weight: -0.2}]}

    Not for: what must hold for each row: a low rank can be outweighed. Use `where` or a filter.

    Cost: that of the scorers and a sort for each.
    """

    weights: Mapping[str, Any]
    name: ClassVar[str] = "combine"
    open_options: ClassVar[str | None] = "weights"
    open_steps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise self.invalid(f"needs scorers with their weights, as {{rds_max: 1}}, got {self.weights!r}")
        self.parts()

    def parts(self) -> list[tuple[Scorer, float]]:
        """The scorers and their weights."""
        parts = []
        for name, value in self.weights.items():
            for entry in value if isinstance(value, list | tuple) else [value]:
                options = dict(entry) if isinstance(entry, Mapping) else {"weight": entry}
                weight = options.pop("weight", 1)
                check_number("combine", f"weight of {name}", weight)
                step = build_step({name: options})
                if not isinstance(step, Scorer):
                    raise self.invalid(f"takes scorers, {name!r} is a {step.kind}", name)
                parts.append((step, float(weight)))
        return parts

    @property
    def needs(self) -> frozenset[Input]:
        """What the scorers need."""
        return frozenset().union(*(step.needs for step, _ in self.parts()))

    @property
    def columns(self) -> frozenset[str]:
        """What the scorers read."""
        return frozenset().union(*(step.columns for step, _ in self.parts()))

    @property
    def expressions(self) -> frozenset[str]:
        """Those of the scorers."""
        return frozenset().union(*(step.expressions for step, _ in self.parts()))

    @property
    def drops(self) -> bool:
        """A row that any of the scorers drops."""
        return any(step.drops for step, _ in self.parts())

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:
        """See `Scorer.score`."""
        total = np.zeros(len(pool))
        for step, weight in self.parts():
            scores = np.asarray(step.score(pool, rng=rng), np.float32)
            total += np.where(np.isneginf(scores), -np.inf, weight * ranks(scores))
        return total.astype(np.float32)


def ranks(scores: Floats) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) float64 in (0, 1): the share of rows with a lower score, half of those with the same one counted.

    >>> ranks(np.array([5, 1, 5, 9], np.float32)).tolist()
    [0.5, 0.125, 0.5, 0.875]
    """
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.asarray(middle[group] / max(len(scores), 1), np.float64)
