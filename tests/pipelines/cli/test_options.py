"""Options that every command has; completion; colours."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rich.console

from pipelines.cli import main as command_line
from pipelines.progress import Terminal
from tests.pipelines.conftest import Winnow


def test_run__quiet_says_results_only_and_verbose_the_checks(winnow: Winnow, light: Path) -> None:
    verbose = winnow("-v", "run", "any", "-c", light)
    assert "  passed budget_met: 8 rows, budget 8 rows" in verbose.err
    assert " of memory so far" in verbose.err
    for arguments in (["-q", "run", "any"], ["run", "any", "--quiet"]):
        quiet = winnow(*arguments, "-c", light)
        assert (quiet.code, quiet.err) == (0, "")
        assert "any: 8 rows, selection " in quiet.out
    assert "passed" not in winnow("run", "any", "-c", light).err
    assert winnow("run", "nayn", "-c", light, "-q").err.startswith("winnow: no recipe is called")


def test_options__that_exclude_each_other(winnow: Winnow) -> None:
    ended = winnow("-q", "-v", "status")
    assert (ended.code, "choose one of --quiet and --verbose" in ended.err) == (2, True)


def test_terminal__quiet_keeps_warnings() -> None:
    stream = io.StringIO()
    terminal = Terminal(stream, quiet=True)
    terminal.say("pool: read")
    terminal.progress("embed", 1, 2)
    terminal.say("warning: no report")
    assert stream.getvalue() == "warning: no report\n"


@pytest.mark.parametrize("value", ["1", ""])
def test_no_color__goes_for_bold_too(value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("NO_COLOR", value)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    command_line._print("any", style="bold")
    command_line._print_table([{"a": 1}])
    assert ("\x1b" in capsys.readouterr().out) == (value == "")


def test_completion__knows_the_commands() -> None:
    """What the script of `--install-completion` asks."""
    asked = {"_WINNOW_COMPLETE": "complete_bash", "COMP_WORDS": "winnow pl", "COMP_CWORD": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout.split() == ["plan"]
