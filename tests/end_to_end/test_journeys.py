"""The commands of docs/journeys/*.md work as they stand, one after the other, in a shell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "journeys").glob("*.md"))

# Each command is a process of its own, as a user has it.
pytestmark = pytest.mark.slow


def blocks(page: Path) -> list[str]:
    """The shell commands of a page, in order."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the examples, and `winnow` and `python` of these sources."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("store"))
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, arguments in (("winnow", "-m pipelines"), ("python", "")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (commands / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_journey__every_command_works(page: Path, checkout: Path) -> None:
    script = "".join(f"echo '### block {number}'\n{block}" for number, block in enumerate(blocks(page), 1))
    path = os.pathsep.join([str(checkout / "bin"), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": os.pathsep.join([str(ROOT), "."])}
    environment.pop("WINNOW_CONFIG", None)
    command = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(command, check=False, cwd=checkout, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-3000:]}"
    assert "Traceback" not in result.stderr
