from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidOption, Pool, UnknownStep, build_step, select, step_spec
from selection.scorers.combine import Combine

COLUMNS = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1e9, 0.0, -1e9])}


def test_combine__is_a_weighted_sum_of_ranks():
    spec = {"combine": {"column": [{"field": "a", "weight": 1}, {"field": "b", "weight": 0.5}]}}
    scores = build_step(spec).score(Pool(columns=COLUMNS), rng=np.random.default_rng(0))
    # ranks of a: 1/6, 3/6, 5/6; of b: 5/6, 3/6, 1/6
    np.testing.assert_allclose(scores, [1 / 6 + 2.5 / 6, 3 / 6 + 1.5 / 6, 5 / 6 + 0.5 / 6])
    assert select([spec], Pool(columns=COLUMNS), budget=1).rows.tolist() == [2]


def test_combine__spec_round_trips_and_names_its_columns():
    spec = {"combine": {"column": {"field": "a", "weight": 2}}}
    step = build_step(spec)
    assert step_spec(step) == spec
    assert step.columns == {"a"}


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ({}, InvalidOption, "combine: needs scorers with their weights"),
        ({"random": 1}, InvalidOption, "combine: takes scorers, 'random' is a selector"),
        ({"rds_max": "much"}, InvalidOption, "combine: weight of rds_max must be a finite number, got 'much'"),
        ({"rds_maxx": 1}, UnknownStep, "Did you mean 'rds_max'"),
        ({"column": 1}, InvalidOption, "column: needs the option 'field'"),
    ],
)
def test_combine__bad_weights(weights, error, message):
    with pytest.raises(error, match=message):
        Combine(weights=weights)
