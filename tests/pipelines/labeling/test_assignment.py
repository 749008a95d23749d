"""Who labels which row of a batch."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.labeling.assignment import assign
from storage.ids import Ids

PEOPLE = ("ann", "bob", "cid", "dot")


def ids_of(count: int) -> Ids:
    return np.array([hashlib.md5(bytes([number])).digest() for number in range(count)], "S16")


def test_assign__by_hand() -> None:
    given_to = assign(ids_of(3), np.array([2, 1, 1]), ("ann", "bob"), [set(), set(), set()], seed=[0])
    assert sorted(given_to[0]) == ["ann", "bob"]
    assert sorted(given_to[1] + given_to[2]) == ["ann", "bob"]


@settings(max_examples=25)
@given(
    wanted=st.lists(st.integers(1, 2), min_size=1, max_size=60), people=st.integers(2, 4), seed=st.integers(0, 99),
    data=st.data(),
)  # fmt: skip
def test_assign__is_balanced_distinct_and_goes_by_id(wanted: list[int], people: int, seed: int, data: Any) -> None:
    names, ids = PEOPLE[:people], ids_of(len(wanted))
    nobody: list[set[str]] = [set()] * len(wanted)
    given_to = assign(ids, np.array(wanted), names, nobody, seed=[seed])
    assert [len(set(who)) for who in given_to] == [len(who) for who in given_to] == wanted
    load = Counter(name for who in given_to for name in who)
    assert max(load.values()) - min(load[name] for name in names) <= 1
    order = data.draw(st.permutations(range(len(wanted))))
    again = assign(ids[order], np.array(wanted)[order], names, nobody, seed=[seed])
    assert again == [given_to[place] for place in order]


def test_assign__everybody_shares_rows_with_everybody() -> None:
    given_to = assign(ids_of(60), np.full(60, 2), PEOPLE, [set()] * 60, seed=[3])
    pairs = Counter(pair for who in given_to for pair in combinations(sorted(who), 2))
    assert set(pairs) == set(combinations(PEOPLE, 2))
    assert min(pairs.values()) >= 8  # of 10 on average


def test_assign__nobody_gets_a_row_that_they_answered_before() -> None:
    answered = [{"ann"}, {"ann", "bob"}, {"eve"}]
    given_to = assign(ids_of(3), np.array([1, 2, 2]), ("ann", "bob"), answered, seed=[0])
    assert given_to[0] == ["bob"]
    assert given_to[1] == []  # nobody is left
    assert sorted(given_to[2]) == ["ann", "bob"]
