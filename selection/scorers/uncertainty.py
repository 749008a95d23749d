"""How unsure a classifier is of a row, from its class probabilities.

Cost of each: one pass over the probabilities (n*C operations, C times as many for `expected_cost`), one block and n floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.errors import InvalidOption
from selection.kernels.probabilities import by_row
from selection.step import Scorer, check_choice, check_number
from selection.types import Floats, Input, Pool

NEEDS = frozenset({Input.PROBABILITIES})


@dataclass(frozen=True, slots=True, kw_only=True)
class LeastConfidence(Scorer):
    """1 - p1, p1 the probability of the likeliest class. In 0 .. 1 - 1/C.

    Source: Lewis & Gale 1994.
    """

    name: ClassVar[str] = "least_confidence"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import least_confidence

        return by_row(pool.get_probabilities(), Input.PROBABILITIES, least_confidence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin(Scorer):
    """1 - (p1 - p2), the probabilities of the two likeliest classes. In 0 .. 1; 0 where there is one class.

    Source: Scheffer et al. 2001.
    """

    name: ClassVar[str] = "margin"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import margin

        return by_row(pool.get_probabilities(), Input.PROBABILITIES, margin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy(Scorer):
    """- sum p log p in nats, with 0 log 0 = 0. In 0 .. ln C.

    Source: Shannon 1948; Joshi et al. 2009.
    """

    name: ClassVar[str] = "entropy"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`."""
        from selection.kernels.compiled.probabilities import entropy

        return by_row(pool.get_probabilities(), Input.PROBABILITIES, entropy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedCost(Scorer):
    """Uncertainty where mistakes differ in what they cost.

    Args:
        cost: C lists of C numbers: `cost[i][j]` is what it costs to predict class j where the truth is class i.
        by: "lowest", the expected cost of the cheapest prediction (with 0 for right and 1 for wrong: `least_confidence`);
            or "margin", minus the gap to the second cheapest (then `margin`, less 1).

    Source: Chen & Lin 2013; as in scikit-activeml `uncertainty_scores`.
    """

    cost: Sequence[Sequence[float]]
    by: str = "lowest"
    name: ClassVar[str] = "expected_cost"
    needs: ClassVar[frozenset[Input]] = NEEDS

    def __post_init__(self) -> None:
        rows = self.cost if isinstance(self.cost, list | tuple) else ()
        if len(rows) < 2 or any(not isinstance(row, list | tuple) or len(row) != len(rows) for row in rows):
            raise InvalidOption(
                f"cost must be a list for each class (two or more), with a number for each, got {self.cost!r}",
                step=self.name,
                option="cost",
            )
        for i, row in enumerate(rows):
            for value in row:
                check_number(self.name, f"cost of class {i}", value)
        object.__setattr__(self, "cost", tuple(tuple(row) for row in rows))
        check_choice(self.name, "by", self.by, ("lowest", "margin"))

    def score(self, pool: Pool, *, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        """See `Scorer.score`.

        Raises:
            InvalidOption: the costs are for another number of classes.
        """
        from selection.kernels.compiled.probabilities import expected_cost

        probabilities = pool.get_probabilities()
        classes = probabilities.shape[1]
        if len(self.cost) != classes:
            raise InvalidOption(
                f"cost is for {len(self.cost)} classes, but the probabilities have {classes}",
                step=self.name,
                option="cost",
            )
        cost = np.array(self.cost, np.float64)
        return by_row(probabilities, Input.PROBABILITIES, expected_cost, cost, self.by == "margin")
