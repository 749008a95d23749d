"""Exit codes: what ended a command can be told apart by a script."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pipelines.cli.exit_codes import EXIT_CODES, exit_code
from pipelines.errors import ConfigError, HeldBack, RecipesFailed
from storage.errors import BadInput
from tests.pipelines.conftest import Winnow, change

HELD, WRONG = HeldBack("a check"), BadInput("a file")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError([]), 2),
        (WRONG, 2),
        (FileNotFoundError(2, "not there", "x"), 2),
        (HELD, 4),
        (RecipesFailed({"a": WRONG}, 2), 3),
        (RecipesFailed({"a": WRONG, "b": HELD}, 2), 3),
        (RecipesFailed({"b": HELD}, 2), 4),
        (RecipesFailed({}, 2, {"e": WRONG}), 3),
        (OSError(errno.ENOSPC, "no room"), 5),
    ],
)
def test_exit_code__of_an_error(error: Exception, code: int) -> None:
    assert exit_code(error) == code


def test_docs__list_every_code() -> None:
    text = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text("utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text


def test_run__held_back_and_failed_recipes_differ(winnow: Winnow, light: Path) -> None:
    assert winnow("run", "any", "-c", light).code == 0
    change(light, "steps: [random], budget: 8", "steps: [random], budget: 8, seed: 5, min_overlap: 0.99")
    assert winnow("run", "any", "-c", light).code == 4
    change(light, "budget: 8, seed: 5", "budget: 800, seed: 5")
    assert winnow("run", "any", "-c", light).code == 3


def test_help__names_the_codes(winnow: Winnow) -> None:
    shown = " ".join(winnow("--help").out.split())
    assert "3 some recipes or exports failed" in shown
