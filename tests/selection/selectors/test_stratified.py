from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidBudget, InvalidOption, MissingInput, Pool, select
from selection.selectors.random import Random
from selection.selectors.stratified import Stratified


def pool_of(sizes, **more):
    source = np.repeat([f"s{i}" for i in range(len(sizes))], sizes).astype(object)
    return Pool(columns={"source": source}, keys=np.arange(len(source)), **more), source


def counts(selection, source, sizes):
    return [int((source[selection.rows] == f"s{i}").sum()) for i in range(len(sizes))]


@pytest.mark.parametrize(
    ("sizes", "budget", "alloc", "expected"),
    [
        ([50, 30, 15, 5], 10, "proportional", [5, 3, 2, 0]),
        ([50, 30, 15, 5], 10, "equal", [3, 3, 2, 2]),
        ([50, 30, 15, 5], 10, "sqrt", [4, 3, 2, 1]),
        ([100, 2, 1], 12, "proportional", [12, 0, 0]),
        ([100, 2, 1], 12, "equal", [9, 2, 1]),
        ([100, 2, 1], 12, "sqrt", [10, 1, 1]),
    ],
)
def test_stratified__known_answers(sizes, budget, alloc, expected):
    pool, source = pool_of(sizes)
    selection = select([Stratified(by="source", alloc=alloc)], pool, budget=budget)
    assert counts(selection, source, sizes) == expected
    assert selection.reason.text() == source[selection.rows].tolist()
    assert set(selection.reason.kind) == {"stratum"}


def test_stratified__minimum_is_kept():
    pool, source = pool_of([96, 3, 1])
    selection = select([Stratified(by="source", min_per_stratum=2)], pool, budget=10)
    assert counts(selection, source, [96, 3, 1]) == [7, 2, 1]
    with pytest.raises(InvalidBudget, match=r"3\.\.100 .*got 2"):
        select([Stratified(by="source", min_per_stratum=1)], pool, budget=2)


def test_stratified__already_selected_do_not_count_as_size():
    pool, source = pool_of([10, 10], already_selected=np.arange(10))
    assert counts(select([Stratified(by="source")], pool, budget=4), source, [10, 10]) == [0, 4]


def test_stratified__within_ranks_inside_each_stratum():
    scores = np.arange(20, dtype=np.float32)
    pool, _ = pool_of([10, 10], scores=scores)
    selection = select([Stratified(by="source", within="top")], pool, budget=4)
    assert selection.rows.tolist() == [9, 19, 8, 18]
    assert selection.reason.rank.tolist() == [0, 0, 1, 1]
    assert selection.gain.tolist() == [9, 19, 8, 18]


def test_stratified__groups_by_default():
    selection = select(["stratified"], Pool(groups=np.array([2, 2, 7, 7])), budget=2)
    assert sorted(selection.reason.text()) == ["2", "7"]
    with pytest.raises(MissingInput, match="stratified needs groups"):
        select(["stratified"], Pool(scores=np.ones(3)), budget=2)


def test_stratified__a_new_stratum_leaves_the_draw_of_the_others():
    names, keys = np.repeat(["b", "c", "a"], [40, 40, 20]), np.arange(100)  # the new stratum sorts first
    step = [{"stratified": {"within": "random"}}]
    before = select(step, Pool(groups=names[:80], keys=keys[:80]), budget=8, seed=3)
    after = select(step, Pool(groups=names, keys=keys), budget=10, seed=3)
    assert set(before.rows) == {row for row in after.rows if row < 80}


def test_stratified__strata_draw_from_different_streams(monkeypatch):
    seen = []

    def select_first(self, pool, budget, *, rng):
        seen.append(rng.random())
        return original(self, pool, budget, rng=rng)

    original = Random.select
    monkeypatch.setattr(Random, "select", select_first)
    select(["stratified"], Pool(groups=np.repeat([0, 1, 2], 5)), budget=6)
    assert len(set(seen)) == 3


def test_stratified__any_prefix_is_nearly_stratified():
    pool, source = pool_of([60, 30, 10])
    selection = select([Stratified(by="source")], pool, budget=20)
    half = source[selection.rows[:10]]
    assert [(half == f"s{i}").sum() for i in range(3)] == [6, 3, 1]


def test_stratified__bad_options():
    with pytest.raises(InvalidOption, match="alloc must be one of proportional, equal, sqrt, got 'fair'"):
        Stratified(alloc="fair")
    with pytest.raises(InvalidOption, match="within must be a selector, 'rds_max' is a scorer"):
        Stratified(within="rds_max")
    with pytest.raises(InvalidOption, match="min_per_stratum must be an integer >= 0, got -1"):
        Stratified(min_per_stratum=-1)
