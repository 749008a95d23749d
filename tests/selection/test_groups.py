from __future__ import annotations

import numpy as np
import pytest

from selection import Pool
from selection.groups import by_value, cost_by_group, strata


def test_by_value__missing_values_are_in_no_group():
    assert by_value(np.array(["null", None, "a", "null"], object)).tolist() == [0, -1, 2, 0]
    assert by_value(np.array([2.0, np.nan, 2.0])).tolist() == [0, -1, 0]
    assert by_value(np.array(["b", "a"])).tolist() == [1, 0]
    assert by_value(np.empty(0)).tolist() == []
    assert by_value(np.empty(0, object)).tolist() == []
    assert by_value(np.array(["a", np.nan, float("nan")], object)).tolist() == [0, -1, -1]


def test_cost_by_group__candidates_and_already_selected_apart():
    pool = Pool(scores=[0.0] * 5, already_selected=[1], eligible=[True, False, True, True, False])
    have, free = cost_by_group(np.array([0, 1, 1, -1, 0]), pool, np.array([1.0, 2, 4, 8, 16]), 3)
    assert have.tolist() == [0, 2, 0]
    assert free.tolist() == [1, 4, 0]


@pytest.mark.parametrize(
    ("values", "stratum", "names"),
    [
        (np.array([1.5, np.nan, 0.5, np.nan]), [1, 2, 0, 2], ("0.5", "1.5", "null")),
        (np.array(["b", None, float("nan"), "a"], object), [1, 2, 2, 0], ("a", "b", "null")),
        (np.array([True, False]), [1, 0], ("False", "True")),
        (np.array([3, "3"], object), [0, 1], ("3", "3")),
        (np.array([], object), [], ()),
    ],
)
def test_strata__null_is_a_stratum_of_its_own(values, stratum, names):
    of_row, of_stratum = strata(values)
    assert of_row.tolist() == stratum
    assert of_stratum == names
