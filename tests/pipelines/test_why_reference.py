"""`winnow why` over random recipes: it answers what `why_reference` makes of the documentation, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.why import why
from tests.pipelines.why_projects import differences, make_project
from tests.quick import torture_last


def _check(folder: Path, *, seed: int, recipes: int, rows: int, **options: Any) -> set[str]:
    """Compare so many answers of a project at most; the rules that were named."""
    drawings = make_project(folder, seed, recipes, **options)
    cases = list(drawings.expected())
    order = np.random.default_rng(seed).permutation(len(cases))[:rows]
    for selection, row, expected in (cases[place] for place in order.tolist()):
        (answer,) = why(drawings.context, row, selection)
        assert not differences(drawings, answer, expected), (selection, row, answer, expected)
    return {cases[place][2].rule for place in order.tolist()}


def test_why__answers_what_the_documentation_says(tmp_path: Path) -> None:
    rules = _check(tmp_path, seed=3, recipes=2, rows=60, nights=1, where=False)
    assert len(rules) > 5, rules


@pytest.mark.slow
@pytest.mark.parametrize("seed", torture_last(0, range(10)))
def test_why__answers_what_the_documentation_says_for_every_row(tmp_path: Path, seed: int) -> None:
    _check(tmp_path, seed=seed, recipes=12, rows=10_000)
