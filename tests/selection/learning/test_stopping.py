from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selection import InvalidInput, InvalidOption
from selection.learning.stopping import (
    Advice,
    Observation,
    Rules,
    advise,
    cohen_kappa,
    f_bound,
    overall_uncertainty,
    unchanged,
)

FIRST = np.array([0, 0, 1, 1, 0, 1, 0, 1, 0, 0])
THEN = np.array([0, 0, 1, 1, 0, 1, 1, 1, 0, 0])
OFF = {"kappa": None, "uncertainty": None, "change": None, "plateau": None}


def test_kappa__of_successive_predictions() -> None:
    rounds = [FIRST, THEN, THEN, THEN, THEN]
    assert [cohen_kappa(a, b) for a, b in pairwise(rounds)] == pytest.approx([0.8, 1, 1, 1])
    history = [Observation(predictions=p) for p in rounds]
    rules = Rules(**OFF | {"kappa": 0.99})
    assert [advise(rules, history[:k]).stop for k in range(6)] == [False, False, False, False, False, True]


def test_kappa__one_class_throughout_agrees_and_chance_scores_zero() -> None:
    assert cohen_kappa(np.ones(5, int), np.ones(5, int)) == 1
    assert cohen_kappa(np.ones(5, int), np.zeros(5, int)) == 0
    assert cohen_kappa(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_kappa__is_what_scikit_learn_says(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import cohen_kappa_score

    a, b = np.array(pairs).T
    if len(np.union1d(a, b)) > 1:
        assert cohen_kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))


def test_overall_uncertainty__known_value() -> None:
    P = np.array([[7, 2, 1], [4, 3.5, 2.5], [0.5, 9, 0.5], [3.4, 3.3, 3.3], [5, 4.9, 0.1], [10, 0, 0]]) / 10
    assert overall_uncertainty(P) == pytest.approx(0.624640022, abs=1e-9)
    assert overall_uncertainty(np.ones((3, 1))) == overall_uncertainty(np.empty((0, 3))) == 0
    rules = Rules(**OFF | {"uncertainty": 0.05})
    assert not advise(rules, [Observation(mean_uncertainty=0.05)]).stop
    assert advise(rules, [Observation(mean_uncertainty=0.04)]).reasons == ("mean uncertainty 0.0400 is below 0.05",)


def test_change__the_threshold_itself_suffices() -> None:
    assert unchanged(FIRST, THEN) == 0.9
    history = [Observation(predictions=FIRST), Observation(predictions=THEN)]
    assert advise(Rules(**OFF | {"change": 0.1}), history).stop
    assert not advise(Rules(**OFF | {"change": 0.0}), history).stop
    assert advise(Rules(**OFF | {"change": 0.0}), [*history, history[-1]]).stop


def test_f_bound() -> None:
    assert f_bound(0.99) == pytest.approx(0.0404040404)


def test_plateau__rounds_since_the_best_metric() -> None:
    rules = Rules(**OFF | {"plateau": 2})
    values = [None, 0.5, 0.7, 0.7, 0.6, 0.8]
    history = [Observation(metric=value) for value in values]
    assert [advise(rules, history[:k]).stop for k in range(1, 7)] == [False, False, False, False, True, False]


def test_budget() -> None:
    rules = Rules(**OFF | {"budget": 100})
    assert not advise(rules, [Observation(spent=99.5)]).stop
    assert advise(rules, [Observation(spent=100)]).reasons == ("100 of the budget of 100 is spent",)


def test_advise__a_round_without_a_model_starts_the_count_anew() -> None:
    same = [Observation(predictions=THEN)] * 3
    rules = Rules(**OFF | {"kappa": 0.99})
    assert not advise(rules, [*same, Observation(), *same]).stop
    assert advise(rules, [Observation(), *same, same[0]]).stop


def test_advise__all_rules_that_are_met_say_so_and_none_by_default_without_rounds() -> None:
    history = [Observation(predictions=THEN, mean_uncertainty=0.01, metric=0.5, spent=3)] * 6
    assert len(advise(Rules(budget=3), history).reasons) == 5
    assert advise(Rules(), []) == Advice(stop=False, reasons=())


def test_advise__refuses_another_stop_set() -> None:
    with pytest.raises(InvalidInput, match="same rows"):
        advise(Rules(), [Observation(predictions=FIRST), Observation(predictions=FIRST[:5])])


@pytest.mark.parametrize("options", [{"kappa": -1}, {"window": 0}, {"plateau": 0}, {"change": "x"}, {"budget": -2.0}])
def test_rules__refuse_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(options))):
        Rules(**options)  # type: ignore[arg-type]
