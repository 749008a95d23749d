"""Repeated random sampling: another part of the pool each round, until all of it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from selection.noise import UInts, hash_bits
from selection.step import Selector, check_choice
from selection.streams import across_rounds
from selection.types import Pool, Reason, Rows, Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class Rs2(Selector):
    """Shuffle the candidates once a pass and hand out the next `budget` of them each round.

    Args:
        tail: what becomes of the candidates left at the end of a pass when they are fewer than the budget. "carry":
            they open the next round, which goes on with the next pass, so every candidate is taken equally often
            (to within one) at any moment. "drop": each pass hands out its whole rounds only.

    A function of seed and round alone, as long as candidates and budget stay the same: no state is kept, round 7 can
    be drawn without rounds 0 to 6. All whole rounds of a pass are disjoint, and no round holds a row twice. The order
    within a pass is by a hash of the candidate's key, so it does not depend on the order of the pool. Rows that are
    already selected are no candidates: give each round the same ones, or none, if the rounds are to be disjoint.
    `ref` is none, `rank` the place in the round, gain and value the pass (0 is the first).

    Source: Okanovic et al. 2024 (RS2), `uniform_no_replacement.py` (whose chunks wrap one row short).
    Cost: one or two sorts of n hashes; with "carry" and a budget above n/2, one for each pass so far.
    """

    tail: str = "carry"
    name: ClassVar[str] = "rs2"

    def __post_init__(self) -> None:
        check_choice(self.name, "tail", self.tail, ("carry", "drop"))

    def select(self, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
        """See `Selector.select`."""
        shared, round_ = across_rounds(self.name, rng)
        rows = np.flatnonzero(pool.candidates).astype(np.int64)
        keys = pool.get_keys()[rows]
        which = dropping if self.tail == "drop" else carrying
        places, passes = which(keys, budget, round_, shared)
        reason = Reason.of("draw", len(places), rank=np.arange(len(places)), value=passes)
        return Selection(rows[places], passes.astype(np.float32), reason)


def dropping(keys: UInts, budget: int, round_: int, shared: list[int]) -> tuple[Rows, Rows]:
    """The places of a round among `keys` and the pass of each, where passes begin anew with whole rounds."""
    rounds = len(keys) // budget
    number = round_ // rounds
    first = (round_ % rounds) * budget
    return shuffled(keys, shared, number)[first : first + budget], np.full(budget, number)


def carrying(keys: UInts, budget: int, round_: int, shared: list[int]) -> tuple[Rows, Rows]:
    """The places of a round among `keys` and the pass of each, where passes follow one another without a gap."""
    n = len(keys)
    number, first = divmod(round_ * budget, n)
    order = _pass(keys, budget, number, shared)[first : first + budget]
    missing = budget - len(order)
    passes = np.repeat([number, number + 1], [len(order), missing])
    return np.concatenate([order, _pass(keys, budget, number + 1, shared)[:missing]]) if missing else order, passes


def shuffled(keys: UInts, shared: list[int], number: int) -> Rows:
    """The order of one pass: by hash, ties to the lowest place."""
    return np.argsort(hash_bits(keys, np.random.default_rng([*shared, number])), kind="stable").astype(np.int64)


def _pass(keys: UInts, budget: int, number: int, shared: list[int]) -> Rows:
    """One pass as it is handed out: shuffled, except that the round it shares with the pass before repeats no row.

    The rows that open that round (the tail of the pass before) are passed over until the round is full. This moves
    rows among the first `budget` places only, so where the tail lies behind those, the pass before is known from its
    own shuffle.
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
