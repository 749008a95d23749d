"""Which cases of a test run with every `make test`, and which with `make test-slow` or `make torture` only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def quick_first(quick: int, cases: Iterable[Any]) -> list[Any]:
    """The first cases as they are, the others as slow tests."""
    return _first(quick, cases, pytest.mark.slow)


def torture_last(kept: int, cases: Iterable[Any]) -> list[Any]:
    """Of a slow test, the first cases as they are, the others for `make torture` only."""
    return _first(kept, cases, pytest.mark.torture)


def _first(count: int, cases: Iterable[Any], mark: pytest.MarkDecorator) -> list[Any]:
    every = list(cases)
    others = [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark) for case in every[count:]]
    return [*every[:count], *others]
