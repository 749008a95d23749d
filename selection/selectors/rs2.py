"""Repeated random sampling: a new part of the pool each round, until every row had its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.noise import hash_bits
from selection.pool import Pool
from selection.step import Selector, check_choice
from selection.streams import across_rounds
from selection.types import Rows, Selection, UInts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rs2(Selector):
    """Shuffle the candidates once for each pass; each round takes the next `budget` of them.

    Args:
        tail: what happens to the candidates left at the end of a pass if they are fewer than the budget. "carry": they
            start the next round, which continues with the next pass, so at any moment every candidate was taken equally
            often (to within one). "drop": each pass has whole rounds only.

    The result depends on seed and round alone as long as candidates and budget stay the same: no state is kept, and
    round 7 can be drawn without rounds 0 to 6. All whole rounds of a pass are disjoint, and no round has a row twice.
    The order within a pass is by a hash of the candidate's key, so it does not depend on the order of the pool. Already
    selected rows are no candidates: if the rounds are to be disjoint, give each round the same already selected rows,
    or none. A reason has no `ref`; its `rank` is the position in the round, gain and value are the pass (0 is the
    first).

    Not for: a subset to keep: each round is another one.

    Source: Okanovic et al. 2024 (RS2), `uniform_no_replacement.py` (whose chunks wrap one row short).
    Cost: one or two sorts of n hashes; with "carry" and a budget above n/2, one sort for each pass so far.
    """

    tail: str = "carry"
    name: ClassVar[str] = "rs2"

    def __post_init__(self) -> None:
        check_choice(self.name, "tail", self.tail, ("carry", "drop"))

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        shared, round_ = across_rounds(self.name, rng)
        rows = pool.candidate_rows
        keys = pool.get_keys()[rows]
        take_round = dropping if self.tail == "drop" else carrying
        places, passes = take_round(keys, budget, round_, shared)
        return Selection.in_order("draw", rows[places], passes)


def dropping(keys: UInts, budget: int, round_: int, shared: list[int]) -> tuple[Rows, Rows]:
    """The positions of a round's rows in `keys` and the pass of each, where each pass has whole rounds only."""
    rounds = len(keys) // budget
    number = round_ // rounds
    first = (round_ % rounds) * budget
    return shuffled(keys, shared, number)[first : first + budget], np.full(budget, number)


def carrying(keys: UInts, budget: int, round_: int, shared: list[int]) -> tuple[Rows, Rows]:
    """The positions of a round's rows in `keys` and the pass of each, where a round may continue into the next pass."""
    n = len(keys)
    number, first = divmod(round_ * budget, n)
    order = _pass(keys, budget, number, shared)[first : first + budget]
    missing = budget - len(order)
    passes = np.repeat([number, number + 1], [len(order), missing])
    return np.concatenate([order, _pass(keys, budget, number + 1, shared)[:missing]]) if missing else order, passes


def shuffled(keys: UInts, shared: list[int], number: int) -> Rows:
    """The order of a pass: by hash, ties to the lowest position."""
    return np.argsort(hash_bits(keys, np.random.default_rng([*shared, number])), kind="stable").astype(np.int64)


def _pass(keys: UInts, budget: int, number: int, shared: list[int]) -> Rows:
    """The order of a pass with "carry": shuffled, but the round that it shares with the previous pass repeats no row.

    The rows that start that round (the tail of the previous pass) are skipped until the round is full. This moves rows
    among the first `budget` positions only. So if the tail of a pass lies behind those, its own shuffle gives the tail,
    and the passes before it need not be computed.
    """
    n = len(keys)
    start = number
    while start > 0 and (tail := start * n % budget):
        start -= 1
        if n - tail >= budget:
            break
    order = shuffled(keys, shared, start)
    for later in range(start + 1, number + 1):
        tail = later * n % budget
        before = order[n - tail :]
        order = shuffled(keys, shared, later)
        if tail:
            fresh = np.flatnonzero(~np.isin(order, before))[: budget - tail]
            order = np.concatenate([order[fresh], np.delete(order, fresh)])
    return order
