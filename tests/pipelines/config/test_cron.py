"""A check of cron strings that needs no Dagster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.cron import cron_mistake

FIELD = st.one_of(
    st.just("*"),
    st.integers(0, 70).map(str),
    st.tuples(st.integers(0, 32), st.integers(0, 32)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(0, 40).map(lambda step: f"*/{step}"),
    st.sampled_from(["1,2", "mon", "jan-mar", "x", "1-", "5/2", "*-3", ""]),
)


@given(fields=st.lists(FIELD, min_size=4, max_size=6))
def test_cron_mistake__what_passes_passes_in_dagster(fields: list[str]) -> None:
    from dagster._utils.schedules import is_valid_cron_string

    cron = " ".join(fields)
    if cron_mistake(cron) is None:
        assert is_valid_cron_string(cron), cron


@pytest.mark.parametrize("cron", ["0 2 * * *", "*/15 * * * *", "0 9-17 * * mon-fri", "5,35 0 1 jan,jul *", "0 0 * * 7"])
def test_cron_mistake__usual_texts_are_right(cron: str) -> None:
    assert cron_mistake(cron) is None


@pytest.mark.parametrize(
    ("cron", "message"),
    [
        ("60 2 * * *", "minute must be in 0..59, found '60'"),
        ("0 2 0 * *", "day of month must be in 1..31, found '0'"),
        ("0 2 * foo *", "month must be in 1..12 or jan..dec, found 'foo'"),
        ("0 5-2 * * *", "hour is a range from high to low, found '5-2'"),
        ("*/0 2 * * *", "minute is not a number, a range, a list or a step, found '*/0'"),
        ("0 2,, * * *", "hour is not a number, a range, a list or a step, found '2,,'"),
    ],
)
def test_cron_mistake__says_which_field_is_wrong(cron: str, message: str) -> None:
    assert cron_mistake(cron) == message
