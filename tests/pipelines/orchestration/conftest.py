"""Projects as Dagster sees them, and a run of their assets in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.orchestration.asset import EngineResource, Project
from pipelines.orchestration.definitions import build_definitions
from pipelines.stages.stage import Outcome, Stage

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


def materialize(
    project: Path, keys: list[str] | None = None, config: dict[str, Any] | None = None
) -> dg.ExecuteInProcessResult:
    """All assets, or some, in this process; no retry waits."""
    definitions = build_definitions(project / "winnow.yaml")
    return dg.materialize(
        [*(definitions.assets or ()), *(definitions.asset_checks or ())],
        resources={"project": Project(project / "winnow.yaml"), "engine": EngineResource()},
        selection=keys,
        run_config=config,
        raise_on_error=False,
    )


@contextmanager
def failing(stage: Stage, check: str | None = None) -> Iterator[None]:
    """A stage that does its work, and of which a blocking check fails: the first, or the one that is named."""
    function, name = stage.function, check or next(iter(stage.checks))

    def failed(*arguments: Any) -> Outcome:
        outcome = function(*arguments)
        checks = [replace(c, passed=False, blocking=True) if c.name == name else c for c in outcome.checks]
        return replace(outcome, checks=tuple(checks))

    object.__setattr__(stage, "function", failed)
    try:
        yield
    finally:
        object.__setattr__(stage, "function", function)


@pytest.fixture
def labeling(light: Path) -> Path:
    """The light project with a labeling project."""
    with (light / "winnow.yaml").open("a") as file:
        file.write(LABELING)
    (light / "labels").mkdir()
    return light
