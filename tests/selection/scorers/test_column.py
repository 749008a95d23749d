from __future__ import annotations

import numpy as np
import pytest

from selection import InvalidInput, InvalidOption, MissingInput, Pool, select
from selection.scorers.column import Column


def test_column__highest_first_or_lowest_first():
    pool = Pool(columns={"length": np.array([3, 1, 2])})
    assert select([{"column": {"field": "length"}}], pool, budget=3).rows.tolist() == [0, 2, 1]
    lowest = [{"column": {"field": "length", "descending": False}}]
    assert select(lowest, pool, budget=3).rows.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([1.0, np.nan]), "column 'q': row 1 is nan, must be a finite number"),
        (np.array([1.0, 1e300]), "column 'q': row 1 is 1e"),
        (np.array([1, None], object), "column 'q': row 1 is None, must be a number"),
        (np.array(["a", "b"]), "column 'q' must be numeric, got <U1"),
    ],
)
def test_column__what_is_no_number_is_an_error_with_its_row(values, message):
    with pytest.raises(InvalidInput, match=message):
        select([{"column": {"field": "q"}}], Pool(columns={"q": values}), budget=1)


def test_column__objects_that_are_numbers_are_read():
    pool = Pool(columns={"q": np.array([1, 2.5, True], object)})
    assert select([{"column": {"field": "q"}}], pool, budget=1).rows.tolist() == [1]


def test_column__missing_column_is_named():
    with pytest.raises(MissingInput, match=r"column needs column 'q'. The pool has columns length"):
        select([{"column": {"field": "q"}}], Pool(columns={"length": np.ones(2)}), budget=1)


def test_column__field_must_be_a_name():
    with pytest.raises(InvalidOption, match="column: field must be a name, got 3"):
        Column(field=3)
