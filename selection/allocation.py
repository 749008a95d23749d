"""How a budget is divided among groups: integers only, so that nothing depends on a rounding error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from selection.errors import InvalidBudget, InvalidOption

ALLOCATIONS = ("proportional", "equal", "sqrt")


def as_written(share: float) -> Fraction:
    """The fraction that a share means, so that a part of a count is what a person expects.

    >>> int(as_written(0.29) * 100), int(0.29 * 100), int(as_written(1 / 6) * 6)
    (29, 28, 1)
    """
    return Fraction(share).limit_denominator(10**9)


def allocate(sizes: Sequence[int], budget: int, how: str = "proportional", *, minimum: int = 0) -> list[int]:
    """Rows to take from each stratum.

    Shares are proportional to a weight: the stratum's size, 1, or the square root of its size. What a stratum cannot
    give, or must get beyond its share, is settled among the others in the same proportion; the shares are then rounded
    by largest remainder, ties to the earlier stratum.

    Args:
        sizes: rows in each stratum, >= 0.
        budget: 0 .. sum(sizes).
        how: one of `ALLOCATIONS`.
        minimum: each stratum gives at least this many rows, or all it has.

    Returns:
        One count for each stratum, between its minimum and its size; they sum to the budget.

    Raises:
        InvalidBudget: the minimums alone exceed the budget, or the budget exceeds the sizes.

    >>> allocate([50, 30, 15, 5], 10), allocate([100, 2, 1], 12, "equal"), allocate([90, 10, 1], 10, minimum=1)
    ([5, 3, 2, 0], [9, 2, 1], [8, 1, 1])
    """
    if how not in ALLOCATIONS:
        raise InvalidOption(f"allocation must be one of {', '.join(ALLOCATIONS)}, got {how!r}", option="how")
    low = [min(minimum, size) for size in sizes]
    if not sum(low) <= budget <= sum(sizes):
        raise InvalidBudget(
            f"budget must be in {sum(low)}..{sum(sizes)} "
            f"({len(sizes)} strata of {sum(sizes)} rows, at least {minimum} of each), got {budget}"
        )
    return _divide([_weight(size, how) for size in sizes], budget, low, list(sizes))


def apportion(
    weights: Sequence[int], budget: int, low: Sequence[int] | None = None, high: Sequence[int] | None = None
) -> list[int]:
    """Parts of a budget in proportion to given weights, as integers.

    Args:
        weights: >= 0, at least one of them above 0.
        budget: at least the sum of `low`.
        low: what each part gets at least; one that exceeds its share is settled among the others. 0 by default.
        high: what each part gets at most, at least its `low`; those of parts with a weight must hold the budget. No
            bound by default.

    Returns:
        One count for each weight, summing to the budget: the exact shares, rounded by largest remainder, ties to the
        earlier part.

    >>> apportion([3, 1, 0], 10), apportion([1, 1, 1], 10), apportion([1, 1, 1], 10, low=[6, 0, 0])
    ([8, 2, 0], [4, 3, 3], [6, 2, 2])
    >>> apportion([3, 1, 1], 10, high=[4, 9, 9])
    [4, 3, 3]
    """
    low = [0] * len(weights) if low is None else list(low)
    if not any(weight > 0 for weight in weights) or min(weights) < 0:
        raise InvalidOption(f"weights must be >= 0 and one above 0, got {list(weights)}", option="weights")
    if sum(low) > budget:
        raise InvalidBudget(
            f"budget must be at least {sum(low)}, the sum of what each part gets at least, got {budget}"
        )
    return _divide(weights, budget, low, [budget] * len(weights) if high is None else high)


def water_fill(have: Sequence[int], budget: int, most: Sequence[int]) -> list[int]:
    """Give one after the other, each to the group that has least together with what it was given; ties to the earlier.

    Args:
        have: what each group has before, >= 0.
        budget: 0 .. sum(most).
        most: what each group can be given, >= 0.

    Returns:
        One count for each group; they sum to the budget.

    >>> water_fill([10, 2, 5], 9, [50, 50, 50]), water_fill([10, 2, 5], 9, [50, 4, 50])
    ([0, 6, 3], [0, 4, 5])
    """
    _check_room(budget, most)

    def counts_at(level: int) -> list[int]:
        return [min(room, max(0, level - before)) for before, room in zip(have, most, strict=True)]

    # The highest level that the budget fills; what is left is less than one for each group at that level.
    low, high = 0, max((before + room for before, room in zip(have, most, strict=True)), default=0)
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if sum(counts_at(level)) <= budget else (low, level - 1)
    counts = counts_at(low)
    unfilled = [i for i, before in enumerate(have) if before + counts[i] == low and counts[i] < most[i]]
    for i in unfilled[: budget - sum(counts)]:
        counts[i] += 1
    return counts


def inverse_frequency(have: Sequence[int], budget: int, most: Sequence[int]) -> list[int]:
    """Parts of a budget in proportion to 1 / (1 + what a group has), rounded down; the rest to the largest part.

    Args:
        have, budget, most: as for `water_fill`. What a group cannot be given goes to the next smaller part.

    Source: the class-balanced baseline in the code of PCoreSet.

    >>> inverse_frequency([10, 2, 5], 9, [50, 50, 50])
    [1, 6, 2]
    """
    _check_room(budget, most)
    weights = [Fraction(1, before + 1) for before in have]
    total = sum(weights, Fraction(0))
    counts = [min(room, math.floor(budget * weight / total)) for weight, room in zip(weights, most, strict=True)]
    for i in sorted(range(len(have)), key=lambda i: (have[i], i)):
        counts[i] += min(most[i] - counts[i], budget - sum(counts))
    return counts


# How a budget is balanced over groups that have something already.
BALANCES = {"water_fill": water_fill, "inverse_frequency": inverse_frequency}


def _check_room(budget: int, most: Sequence[int]) -> None:
    if not 0 <= budget <= sum(most):
        raise InvalidBudget(f"budget must be in 0..{sum(most)}, what {len(most)} groups can be given, got {budget}")


def _divide(weights: Sequence[int], budget: int, low: Sequence[int], high: Sequence[int]) -> list[int]:
    """Proportional to `weights` within bounds; a weight of 0 gets its lower bound."""
    counts = [low[i] if weight == 0 else 0 for i, weight in enumerate(weights)]
    free = [i for i, weight in enumerate(weights) if weight > 0]
    rest = budget - sum(counts)
    # Settle the strata beyond a bound, on the side that is off by more, until none is (as CSS flexbox resolves
    # lengths).
    while free:
        total = sum(weights[i] for i in free)
        over = [i for i in free if rest * weights[i] > high[i] * total]
        under = [i for i in free if rest * weights[i] < low[i] * total]
        if not over and not under:
            break
        excess = sum(rest * weights[i] - high[i] * total for i in over)
        deficit = sum(low[i] * total - rest * weights[i] for i in under)
        settled = set(over if excess > deficit else under if deficit > excess else over + under)
        for i in settled:
            counts[i] = high[i] if i in over else low[i]
        rest -= sum(counts[i] for i in settled)
        free = [i for i in free if i not in settled]
    if free:
        total = sum(weights[i] for i in free)
        for i in free:
            counts[i] = rest * weights[i] // total
        missing = rest - sum(counts[i] for i in free)
        for i in sorted(free, key=lambda i: (-(rest * weights[i] % total), i))[:missing]:
            counts[i] += 1
    return counts


def _weight(size: int, how: str) -> int:
    if how == "proportional":
        return size
    if how == "equal":
        return min(size, 1)
    return math.isqrt(size << 64)  # the square root with 32 binary places
