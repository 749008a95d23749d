"""The recorded executions of stages, and the version of the code that ran."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.store import Store, read_json


def runs(store: Store) -> Iterator[dict[str, Any]]:
    """The recorded executions of stages, newest first; run ids are ULIDs, so they sort by time."""
    for run_id in reversed(store.records("runs")):
        yield read_json(store.path("records", "runs", run_id, "run.json"))


def last_run(
    store: Store, stage: str, target: str | None = None, *, invocation: str | None = None
) -> dict[str, Any] | None:
    """The newest execution of a stage whose checks passed; only of this target (a recipe, an encoder) or invocation if named."""
    return next(
        (
            run
            for run in runs(store)
            if run["stage"] == stage
            and run["status"] == "ok"
            and target in (None, run["target"])
            and invocation in (None, run["invocation"])
        ),
        None,
    )


@functools.cache
def code_version() -> str:
    """Winnow's version, with the commit where it runs from a git checkout."""
    package = version("winnow-pool")
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return package
    try:
        describe = ["git", "-C", str(root), "describe", "--always", "--dirty"]
        head = subprocess.run(describe, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return package
    return f"{package}+{head.stdout.strip()}"
