from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selection import InvalidOption, InvalidRecipe, Pool, select
from selection.selectors.rs2 import Rs2


def _rounds(n: int, k: int, count: int, tail: str, seed: int = 0) -> list[list[int]]:
    pool = Pool(scores=np.zeros(n))
    return [select([Rs2(tail=tail)], pool, budget=k, seed=seed, round=r).rows.tolist() for r in range(count)]


def _flat(rounds: list[list[int]]) -> list[int]:
    return [row for rows in rounds for row in rows]


@pytest.mark.parametrize("tail", ["carry", "drop"])
def test_select__rounds_of_a_pass_are_disjoint(tail: str) -> None:
    rounds = _rounds(10, 3, 3, tail)
    assert [len(set(_flat(rounds[: i + 1]))) for i in range(3)] == [3, 6, 9]


def test_select__drop_begins_anew_after_whole_rounds() -> None:
    rounds = _rounds(10, 3, 6, "drop")
    assert len(set(_flat(rounds[3:]))) == 9
    assert rounds[:3] != rounds[3:]


@settings(max_examples=60)
@given(n=st.integers(1, 30), data=st.data(), seed=st.integers(0, 3))
def test_select__carry_takes_every_candidate_equally_often_at_any_moment(
    n: int, data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, n))
    count = np.zeros(n, int)
    for picked in _rounds(n, k, 12, "carry", seed):
        assert len(set(picked)) == k
        count[picked] += 1
        assert count.max() - count.min() <= 1


@settings(max_examples=40)
@given(n=st.integers(1, 30), data=st.data())
def test_select__drop_gives_whole_disjoint_rounds(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n))
    rounds = _rounds(n, k, 2 * (n // k), "drop")
    for part in (rounds[: n // k], rounds[n // k :]):
        taken = _flat(part)
        assert len(taken) == len(set(taken)) == k * (n // k)


def test_select__same_seed_and_round_give_the_same_rows_and_another_round_does_not_change_the_pass() -> None:
    assert _rounds(50, 7, 9, "carry", seed=4) == _rounds(50, 7, 9, "carry", seed=4)
    assert _rounds(50, 7, 3, "carry", seed=4) != _rounds(50, 7, 3, "carry", seed=5)


def test_select__follows_the_keys_not_the_order() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 100)
    order = np.random.default_rng(1).permutation(100)
    for round_ in range(5):
        a = select(["rs2"], Pool(keys=keys, scores=np.zeros(100)), budget=30, round=round_)
        b = select(["rs2"], Pool(keys=keys[order], scores=np.zeros(100)), budget=30, round=round_)
        assert a.rows.tolist() == order[b.rows].tolist()


@pytest.mark.slow
def test_select__first_round_is_uniform_over_rows() -> None:
    count = np.zeros(6)
    for seed in range(3000):
        count[select(["rs2"], Pool(scores=np.zeros(6)), budget=2, seed=seed).rows] += 1
    assert abs(count - 1000).max() < 110  # 4 standard deviations of a binomial (3000, 1/3)


def test_select__without_the_runners_round_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match="round"):
        Rs2().select(Pool(scores=np.zeros(4)), 2, rng=np.random.default_rng(0))
    with pytest.raises(InvalidOption):
        Rs2(tail="wrap")


def test_select__already_selected_rows_are_no_candidates() -> None:
    pool = Pool(scores=np.zeros(9), already_selected=[1, 2])
    taken = _flat([select(["rs2"], pool, budget=2, round=r).rows.tolist() for r in range(3)])
    assert len(set(taken)) == 6
    assert not {1, 2} & set(taken)


def test_select__rounds_inside_strata_are_disjoint_too() -> None:
    pool = Pool(columns={"source": np.array(list("ab") * 20)})
    steps = [{"stratified": {"by": "source", "within": "rs2"}}]
    taken = _flat([select(steps, pool, budget=10, round=r).rows.tolist() for r in range(4)])
    assert sorted(taken) == list(range(40))
