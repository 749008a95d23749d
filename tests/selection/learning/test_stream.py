from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption
from selection.learning.stream import Biqf, BiqfState, VariableUncertainty, VariableUncertaintyState

UTILITY = [0.45, 0.1, 0.49, 0.3, 0.48, 0.47, 0.05, 0.44, 0.46, 0.2]


# Both equal to scikit-activeml 1.0.1.
def test_variable_uncertainty__known_answer() -> None:
    rule, state = VariableUncertainty(budget=0.3, step=0.05, window=10), VariableUncertaintyState(threshold=0.55)
    asked, thresholds = [], []
    for i, utility in enumerate(UTILITY):
        ask, state = rule.decide(state, utility)
        asked += [i] * ask
        thresholds.append(state.threshold)
    assert asked == [2, 4, 5, 7]
    expected = [0.5775, 0.606375, 0.57605625, 0.6048590625, 0.5746161094]
    expected += [0.5458853039, 0.5731795691, 0.5445205906, 0.5445205906, 0.5717466202]
    assert thresholds == pytest.approx(expected, abs=1e-9)
    assert state.labelled == pytest.approx(2.5348869)


def test_biqf__known_answer() -> None:
    rule, state = Biqf(budget=0.3, window=5, tolerance=4), BiqfState()
    asked, thresholds = [], []
    for i, utility in enumerate(UTILITY):
        recent = [*state.recent, utility][-5:]
        thresholds.append(rule.threshold(recent, state.seen + 1, state.asked))
        ask, state = rule.decide(state, utility)
        asked += [i] * ask
    assert asked == [0, 2, 7]
    assert thresholds == pytest.approx([0.45, 0.38, 0.47575, 0.532, 0.52275, 0.4975, 0.467, 0.421, 0.50025, 0.456])
    assert (state.recent, state.seen, state.asked) == (tuple(UTILITY[-5:]), 10, 3)


@pytest.mark.parametrize(
    ("rule", "first"),
    [(VariableUncertainty(budget=0.2), VariableUncertaintyState()), (Biqf(budget=0.2), BiqfState())],
    ids=["variable_uncertainty", "biqf"],
)
def test_decide__keeps_the_budget_under_drift_and_goes_on_from_json(rule, first) -> None:
    rng = np.random.default_rng(0)
    stream = np.concatenate([rng.random(2000) * 0.2, rng.random(2000) * 0.5])
    state, asked = first, 0
    for i, utility in enumerate(stream.tolist()):
        ask, state = rule.decide(state, utility)
        asked += ask
        if i == 1000:
            state = type(first)(**json.loads(json.dumps(asdict(state))))
    assert 0.15 < asked / len(stream) < 0.22
    whole, total = first, 0
    for utility in stream.tolist():
        ask, whole = rule.decide(whole, utility)
        total += ask
    assert (total, whole) == (asked, state)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_decide__refuses_what_is_not_finite(bad) -> None:
    with pytest.raises(InvalidInput, match="utility must be finite"):
        Biqf().decide(BiqfState(), bad)
    with pytest.raises(InvalidInput, match=r"uncertainty must be in 0\.\.1"):
        VariableUncertainty().decide(VariableUncertaintyState(), bad)


def test_variable_uncertainty__refuses_an_uncertainty_above_1() -> None:
    with pytest.raises(InvalidInput, match=r"got 1\.5"):
        VariableUncertainty().decide(VariableUncertaintyState(), 1.5)


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        (VariableUncertainty, {"budget": 0}),
        (VariableUncertainty, {"budget": 1.2}),
        (VariableUncertainty, {"step": 1.0}),
        (VariableUncertainty, {"window": 0}),
        (Biqf, {"budget": "all"}),
        (Biqf, {"window": 2.5}),
        (Biqf, {"tolerance": 0}),
    ],
)
def test_rules__refuse_bad_options(rule, options) -> None:
    with pytest.raises(InvalidOption, match=f"stream: {next(iter(options))}"):
        rule(**options)
