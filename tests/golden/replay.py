"""The golden run: every command, in order, from an empty store to the last batch."""

from __future__ import annotations

from pathlib import Path

from tests.golden.commands import winnow_in
from tests.golden.project import PROJECTS, answer, grow


def replay(project: Path) -> None:
    """Run the recipes, label round after round, let the pool grow, run again."""
    with winnow_in(project) as winnow:
        winnow("run")
        for number in range(max(PROJECTS.values()) + 1):
            for name, answered in PROJECTS.items():
                if number <= answered:
                    winnow("labels", "push", name)
                if number < answered:
                    answer(project, name, number)
        grow(project)
        winnow("run")
        winnow("labels", "push", "topics")  # labels of unknown rows are looked up again in the pool that grew
        winnow("labels", "push", "committee", "--more")
        answer(project, "committee", PROJECTS["committee"])
        winnow("labels", "pull", "committee")
