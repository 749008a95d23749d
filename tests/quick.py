"""Which cases of a test run with every `make test`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(quick: int, cases: Iterable[Any]) -> list[Any]:
    """The first cases as they are, the others as slow tests."""
    every = list(cases)
    slow = [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in every[quick:]
    ]
    return [*every[:quick], *slow]
