"""How unsure a classifier is of a row, from its class probabilities.

Cost of each: one pass over the probabilities (n*C operations, C times as many for `expected_cost`), one block and n
floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from selection.pool import Pool
from selection.scorers.probability_scorer import ProbabilityScorer
from selection.step import check_choice, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastConfidence(ProbabilityScorer):
    """1 - p1, where p1 is the probability of the likeliest class. In 0 .. 1 - 1/C.

    Not for: more than two classes that are confused in pairs: `margin` sees the runner-up.

    Source: Lewis & Gale 1994.
    """

    name: ClassVar[str] = "least_confidence"
    loop: ClassVar[str] = "least_confidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(ProbabilityScorer):
    """1 - (p1 - p2), where p1 and p2 are the probabilities of the two likeliest classes. In 0 .. 1; 0 for one class.

    Not for: rows that are unsure among many classes alike: it sees two of them, `entropy` all.

    Source: Scheffer et al. 2001.
    """

    name: ClassVar[str] = "margin"
    loop: ClassVar[str] = "margin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy(ProbabilityScorer):
    """- sum p log p in nats, with 0 log 0 = 0. In 0 .. ln C.

    Not for: pools with rows that belong to no class: the model is unsure of these, and they score highest.

    Source: Shannon 1948; Joshi et al. 2009.
    """

    name: ClassVar[str] = "entropy"
    loop: ClassVar[str] = "entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCost(ProbabilityScorer):
    """Uncertainty where some mistakes cost more than others.

    Args:
        cost: C lists of C numbers: `cost[i][j]` is the cost of predicting class j when the truth is class i.
        by: "lowest", the expected cost of the cheapest prediction (`least_confidence` if a right prediction costs 0 and
            a wrong one 1); or "margin", minus the gap to the second cheapest (then `margin`, less 1).

    Not for: mistakes that cost the same: `least_confidence` gives that order faster.

    Source: Chen & Lin 2013; as in scikit-activeml `uncertainty_scores`.
    """

    cost: Sequence[Sequence[float]]
    by: str = "lowest"
    name: ClassVar[str] = "expected_cost"
    loop: ClassVar[str] = "expected_cost"

    def __post_init__(self) -> None:
        rows = self.cost if isinstance(self.cost, list | tuple) else ()
        if len(rows) < 2 or any(not isinstance(row, list | tuple) or len(row) != len(rows) for row in rows):
            raise self.invalid(
                f"cost must be a list for each class (two or more), with a number for each, got {self.cost!r}", "cost"
            )
        for i, row in enumerate(rows):
            for value in row:
                check_number(self.name, f"cost of class {i}", value)
        object.__setattr__(self, "cost", tuple(tuple(row) for row in rows))
        check_choice(self.name, "by", self.by, ("lowest", "margin"))

    def arguments(self, pool: Pool, *, rng: np.random.Generator) -> tuple[Any, ...]:  # noqa: ARG002
        """The costs, and whether to score by the margin.

        Raises:
            InvalidOption: the costs are for another number of classes than the probabilities.
        """
        classes = pool.get_probabilities().shape[1]
        if len(self.cost) != classes:
            raise self.invalid(f"cost is for {len(self.cost)} classes, but the probabilities have {classes}", "cost")
        return np.array(self.cost, np.float64), self.by == "margin"
