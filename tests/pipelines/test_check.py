"""`winnow check` says what would be read or drawn otherwise, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipelines.conftest import Winnow, change


@pytest.mark.slow
def test_check__a_selection_of_an_earlier_version_of_an_algorithm(light: Path, winnow: Winnow) -> None:
    change(light, "[rds_plus]", "[{rds_plus: {version: 1}}]")
    winnow("run", "near", "-c", light)
    assert "rds_plus" not in winnow("check", "-c", light).out
    change(light, "[{rds_plus: {version: 1}}]", "[rds_plus]")
    said = winnow("check", "-c", light).out
    assert "recipe near: drawn by version 1 of rds_plus; the next run draws it anew by version 2" in said
    winnow("run", "near", "-c", light)
    assert "rds_plus" not in winnow("check", "-c", light).out
