from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection.allocation import ALLOCATIONS, BALANCES, allocate, apportion, inverse_frequency, water_fill
from selection.errors import InvalidBudget, InvalidOption

sizes_strategy = st.lists(st.integers(0, 10_000), min_size=1, max_size=30)


@given(data=st.data(), sizes=sizes_strategy, how=st.sampled_from(ALLOCATIONS), minimum=st.integers(0, 5))
def test_allocate__sums_to_the_budget_within_bounds(data, sizes, how, minimum):
    low = [min(minimum, size) for size in sizes]
    budget = data.draw(st.integers(sum(low), sum(sizes)))
    counts = allocate(sizes, budget, how, minimum=minimum)
    assert sum(counts) == budget
    assert all(lo <= count <= size for lo, count, size in zip(low, counts, sizes, strict=True))


@given(data=st.data(), sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=20))
def test_allocate__proportional_is_within_one_of_the_exact_share(data, sizes):
    budget = data.draw(st.integers(0, sum(sizes)))
    for count, size in zip(allocate(sizes, budget), sizes, strict=True):
        assert abs(count - budget * size / sum(sizes)) < 1


def water_level(sizes, budget, how, minimum):
    """The exact real-valued shares: weight times one level, kept within the bounds; the level found by bisection."""
    weight = {"proportional": float, "equal": lambda size: float(size > 0), "sqrt": math.sqrt}[how]

    def shares(level):
        return [max(min(minimum, size), min(size, level * weight(size))) for size in sizes]

    low, high = 0.0, float(max(sizes)) + 1
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(shares(middle)) < budget else (low, middle)
    return shares(high)


@settings(max_examples=400)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    how=st.sampled_from(ALLOCATIONS),
    minimum=st.integers(0, 12),
)
def test_allocate__is_the_rounded_water_level_within_the_bounds(data, sizes, how, minimum):
    budget = data.draw(st.integers(sum(min(minimum, size) for size in sizes), sum(sizes)))
    for count, share in zip(
        allocate(sizes, budget, how, minimum=minimum), water_level(sizes, budget, how, minimum), strict=True
    ):
        assert abs(count - share) < 1 + 1e-6


@given(data=st.data(), sizes=sizes_strategy)
def test_allocate__equal_differs_by_one_at_most_unless_a_stratum_is_empty(data, sizes):
    budget = data.draw(st.integers(0, sum(sizes)))
    counts = allocate(sizes, budget, "equal")
    room = [count for count, size in zip(counts, sizes, strict=True) if count < size]
    assert not room or max(counts) - min(room) <= 1


@given(sizes=sizes_strategy, how=st.sampled_from(ALLOCATIONS), data=st.data())
def test_allocate__a_larger_stratum_never_gets_less_by_more_than_a_tie(sizes, how, data):
    budget = data.draw(st.integers(0, sum(sizes)))
    pairs = sorted(zip(sizes, allocate(sizes, budget, how), strict=True))
    assert all(b >= a - 1 for (_, a), (_, b) in pairwise(pairs))


def test_allocate__known_answers():
    assert allocate([50, 30, 15, 5], 10, "sqrt") == [4, 3, 2, 1]
    assert allocate([100, 2, 1], 12, "sqrt") == [10, 1, 1]
    assert allocate([50, 30, 15, 5], 10) == [5, 3, 2, 0]
    # Some strata lie below their minimum and some above their size at once.
    assert allocate([8, 13], 21, "sqrt", minimum=12) == [8, 13]
    assert allocate([27, 3, 36, 2], 22, "equal", minimum=6) == [9, 3, 8, 2]


def test_allocate__what_cannot_be_is_refused():
    with pytest.raises(
        InvalidBudget, match=r"budget must be in 2\.\.11 \(2 strata of 11 rows, at least 1 of each\), got 1"
    ):
        allocate([10, 1], 1, minimum=1)
    with pytest.raises(InvalidBudget, match="got 12"):
        allocate([10, 1], 12)
    with pytest.raises(InvalidOption, match="one of proportional, equal, sqrt, got 'best'"):
        allocate([10, 1], 1, "best")


@given(
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=20).filter(any),
    budget=st.integers(0, 10**6),
)
def test_apportion__sums_to_the_budget_within_one_of_each_exact_share(weights, budget):
    parts = apportion(weights, budget)
    assert sum(parts) == budget
    assert all(abs(part - budget * weight / sum(weights)) < 1 for part, weight in zip(parts, weights, strict=True))


@given(
    parts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=12).filter(
        lambda parts: any(weight for weight, _ in parts)
    ),
    more=st.integers(0, 100),
)
def test_apportion__never_below_what_a_part_has_and_the_others_keep_their_proportion(parts, more):
    weights, low = [weight for weight, _ in parts], [least for _, least in parts]
    budget = sum(low) + more
    counts = apportion(weights, budget, low=low)
    assert sum(counts) == budget
    assert all(part >= least for part, least in zip(counts, low, strict=True))
    free = [i for i in range(len(parts)) if counts[i] > low[i]]
    for i in free:
        for j in free:
            assert counts[i] * weights[j] <= (counts[j] + 2) * weights[i] + 2 * weights[j]


def test_apportion__refuses_what_cannot_be():
    with pytest.raises(InvalidBudget, match="at least 5"):
        apportion([1, 1], 4, low=[5, 0])
    with pytest.raises(InvalidOption, match="one above 0"):
        apportion([0, 0], 4)


groups_strategy = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8)


@settings(max_examples=300)
@given(data=st.data(), groups=groups_strategy)
def test_water_fill__gives_one_after_the_other_to_the_group_that_has_least(data, groups):
    have, most = map(list, zip(*groups, strict=True))
    budget = data.draw(st.integers(0, sum(most)))
    counts = [0] * len(have)
    for _ in range(budget):
        open_ = [i for i in range(len(have)) if counts[i] < most[i]]
        counts[min(open_, key=lambda i: (have[i] + counts[i], i))] += 1
    assert water_fill(have, budget, most) == counts


@given(data=st.data(), groups=groups_strategy, balance=st.sampled_from(sorted(BALANCES)))
def test_balances__sum_to_the_budget_within_the_room(data, groups, balance):
    have, most = map(list, zip(*groups, strict=True))
    budget = data.draw(st.integers(0, sum(most)))
    counts = BALANCES[balance](have, budget, most)
    assert sum(counts) == budget
    assert all(0 <= count <= room for count, room in zip(counts, most, strict=True))


def test_balances__known_answers():
    assert water_fill([10, 2, 5], 9, [50, 50, 50]) == [0, 6, 3]
    assert water_fill([10, 2, 5], 9, [50, 4, 50]) == [0, 4, 5]
    assert inverse_frequency([10, 2, 5], 9, [50, 50, 50]) == [1, 6, 2]
    assert inverse_frequency([10, 2, 5], 9, [50, 4, 50]) == [1, 4, 4]
    assert water_fill([], 0, []) == inverse_frequency([], 0, []) == []
    assert water_fill([0, 0], 10**9 + 1, [10**9, 10**9]) == [5 * 10**8 + 1, 5 * 10**8]


@pytest.mark.parametrize("balance", sorted(BALANCES))
def test_balances__more_than_there_is_room_for_is_refused(balance):
    with pytest.raises(InvalidBudget, match=r"budget must be in 0\.\.5, what 2 groups can be given, got 6"):
        BALANCES[balance]([0, 0], 6, [2, 3])
