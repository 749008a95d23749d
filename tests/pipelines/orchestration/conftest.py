"""Projects as Dagster sees them, and a run of their assets in this process."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from pipelines.orchestration.asset import Project
from pipelines.orchestration.definitions import build_definitions

KEYS = [
    "catalog",
    "pool",
    "report",
    "selection/any",
    "selection/near",
    "vectors/embeddings",
    "vectors/health",
    "vectors/target_embeddings",
]
LABELING = "labeling:\n  a-b: {classes: [x, y], steps: [entropy], labels: 'labels/*.jsonl'}\n"
LABELING_KEYS = ["a-b/batch", "a-b/labels", "a-b/model"]


def materialize(project: Path, keys: list[str] | None = None) -> dg.ExecuteInProcessResult:
    """All assets, or some, in this process; no retry waits."""
    definitions = build_definitions(project / "winnow.yaml")
    return dg.materialize(
        [*(definitions.assets or ()), *(definitions.asset_checks or ())],
        resources={"project": Project(project / "winnow.yaml")},
        selection=keys,
        raise_on_error=False,
    )


@pytest.fixture
def labeling(light: Path) -> Path:
    """The light project with a labeling project."""
    with (light / "winnow.yaml").open("a") as file:
        file.write(LABELING)
    (light / "labels").mkdir()
    return light
