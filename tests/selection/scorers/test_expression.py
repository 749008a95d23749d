from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, InvalidRecipe, MissingInput, Pool, select
from selection.registry import build_step, parse_steps, recorded_spec, recorded_steps
from selection.scorers.expression import Expression


@pytest.mark.parametrize("spec", [{"expression": "a / b"}, {"expression": {"sql": "a / b"}}])
def test_expression__takes_the_column_of_its_text(spec: Any) -> None:
    pool = Pool(columns={"a / b": np.array([0.5, 2.0, 2.0])})
    selection = select([spec], pool, budget=3)
    assert selection.rows.tolist() == [1, 2, 0]
    assert selection.gain.tolist() == [2.0, 2.0, 0.5]


def test_expression__is_recorded_with_its_option() -> None:
    step = build_step({"expression": "a / b"})
    assert recorded_spec(step) == {"expression": {"sql": "a / b"}}
    assert recorded_steps([{"expression": {"sql": "a / b"}}])[0] == step
    combined = parse_steps(
        {"combine": {"expression": [{"sql": "a", "weight": 2}, {"sql": "-b"}], "column": {"field": "c"}}}
    )
    assert combined[0].expressions == {"a", "-b"}
    assert combined[0].columns == {"a", "-b", "c"}


def test_expression__only_a_step_that_says_so_is_set_by_a_text() -> None:
    with pytest.raises(InvalidRecipe, match="a step is a name or"):
        build_step({"column": "a"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan], r"expression 'a': row 1 has no value \(NULL or NaN\); `where` can keep such rows out"),
        ([np.inf, 1.0], "expression 'a': row 0 is inf, which is not finite"),
        ([1.0, -np.inf], "expression 'a': row 1 is -inf, which is not finite"),
        ([1.0, 1e300], r"expression 'a': row 1 is 1e\+300, which is not finite as float32"),
        (["x", "y"], "expression 'a' must give numbers, gives <U1"),
    ],
)
def test_expression__a_row_without_a_finite_value_is_named(values: list[Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        select([{"expression": "a"}], Pool(columns={"a": np.array(values)}), budget=1)


def test_expression__missing_column_and_bad_options() -> None:
    with pytest.raises(MissingInput, match="expression needs column 'a / b'"):
        select([{"expression": "a / b"}], Pool(columns={"a": np.ones(2)}), budget=1)
    for sql in ("", " ", 3, None):
        with pytest.raises(InvalidOption, match="sql must be one SQL expression"):
            Expression(sql=sql)  # type: ignore[arg-type]
