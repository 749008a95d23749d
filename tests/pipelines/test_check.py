"""`winnow check` says what would be read or drawn otherwise, and changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.check import check_lines
from pipelines.run import run_all
from tests.pipelines.conftest import Winnow, change, opened


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


def test_check_deep__parts_that_no_index_names_are_listed(light: Path, winnow: Winnow) -> None:
    change(light, "recipes:\n", "index: {kind: ivf, min_recall: 0}\nrecipes:\n")
    winnow("run", "near", "--config", light)
    assert "no index names" not in winnow("check", "--deep", "--config", light).out
    shutil.rmtree(light / "store" / "indexes")
    (part,) = (light / "store" / "index_parts").iterdir()
    ended = winnow("check", "--deep", "--config", light)
    assert f"{part}: no index names it; it may be removed" in ended.out


def test_check__the_configuration_of_a_run_of_dagster_is_known(light: Path) -> None:
    run_all(opened(light))
    opened(light, invocation="f3a1")
    assert [line for line in check_lines(opened(light), deep=True) if "names no configuration" in line] == []
