from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.exports.exact_json import Number, dumps, loads

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(NUMBERS)
def test_numbers__print_back_as_they_were_written(number: str) -> None:
    assert dumps(loads(f'{{"a":[{number}]}}')).decode() == f'{{"a":[{number}]}}'


@given(VALUES)
def test_values__are_those_that_any_reader_has(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert json.loads(dumps(loads(text))) == value


def test_dumps__refuses_what_json_has_not() -> None:
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        dumps({"a": object()})
    assert {loads("1.0e5"), Number("1.0e5")} == {Number("1.0e5")}
