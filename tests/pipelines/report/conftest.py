"""Two nights of one project: rows come and go, and one of them is hostile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.gather import gather
from pipelines.run import run_and_report
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, make_light, opened

HOSTILE = [
    "</script><script>document.title='run'</script>",
    "<!--<script>",
    "<img src=x onerror=\"document.title='run'\">",
    "\u2028\u2029{{ 7 * 7 }} ${1 + 1}",
    "# heading\n[link](javascript:alert(1)) | a | b |",
]


@dataclass(frozen=True)
class Nights:
    """A project after two runs.

    Attributes:
        said: what the second run said.
        first, second: the documents of their reports.
    """

    project: Path
    said: list[str]
    first: dict[str, Any]
    second: dict[str, Any]

    def recipe(self, name: str) -> dict[str, Any]:
        """A recipe's part of the second document."""
        return next(recipe for recipe in self.second["recipes"] if recipe["name"] == name)


def hostile_row(text: str, number: int) -> dict[str, str]:
    """A row of the pool with a vector of its own, near the targets."""
    return {**row(number, "fox"), "prompt": text, "source": text[:20]}


@pytest.fixture(scope="session")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """A first run; then a file grows by rows that say hostile things, another file loses rows, and the budget stays."""
    project = make_light(tmp_path_factory.mktemp("nights") / "light")
    change(
        project,
        "  any: {steps: [random], budget: 8}",
        '  any: {steps: [random], budget: 40, where: "length(prompt) > 0"}',
    )
    first = opened(project)
    run_and_report(first)
    kept = (project / "data" / "b.jsonl").read_text().splitlines()
    (project / "data" / "b.jsonl").write_text("\n".join(kept[5:]) + "\n")
    write_rows(project / "data" / "c.jsonl", [hostile_row(text, 10 + n) for n, text in enumerate(HOSTILE)])
    change(project, "length(prompt) > 0", "length(prompt) > 8")
    said: list[str] = []
    second = opened(project, said)
    run_and_report(second)
    folders = [project / "store" / "records" / "reports" / run.invocation for run in (first, second)]
    documents = [json.loads((folder / "report.json").read_text("utf-8")) for folder in folders]
    assert gather(second, second.invocation)[0] | {"created_at": ""} == documents[1] | {"created_at": ""}
    return Nights(project, said, *documents)
