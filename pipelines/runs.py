"""The recorded executions of stages, and the version of the code that ran."""

from __future__ import annotations

import functools
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.damage import readable
from storage.store import Store

_NOTHING: dict[str, Any] = {
    **dict.fromkeys(("invocation", "target", "subject", "summary", "error", "started_at", "seconds")),
    "checks": [],
    "facts": {},
}


def runs(store: Store, after: str = "") -> Iterator[dict[str, Any]]:
    """The recorded executions of stages, newest first, in the order of their ids; damaged records are left out.

    Args:
        after: only those with a later id, and nothing else is read.
    """
    for run_id in reversed(store.records("runs")):
        if run_id <= after:
            return
        if (run := readable(store, "runs", run_id)) is not None:
            yield _NOTHING | run


def last_run(
    store: Store, stage: str, target: str | None = None, *, invocation: str | None = None, after: str = ""
) -> dict[str, Any] | None:
    """The newest execution of a stage whose checks passed; only of this target (a recipe, an encoder) or invocation if named.

    Args:
        after: as for `runs`.
    """
    return next(
        (
            run
            for run in runs(store, after)
            if run["stage"] == stage
            and run["status"] == "ok"
            and target in (None, run["target"])
            and invocation in (None, run["invocation"])
        ),
        None,
    )


def failed_runs(store: Store) -> Iterator[tuple[dict[str, Any], str | None]]:
    """The runs that failed, were held back or warned, newest first; each with when the stage next succeeded for its target.

    A run that warned is mended by one whose checks all pass.
    """
    done: dict[tuple[str, str | None], str] = {}
    clean: dict[tuple[str, str | None], str] = {}
    for run in runs(store):
        key = (run["stage"], run["target"])
        passed = run["status"] == "ok"
        if passed and all(check["passed"] for check in run["checks"]):
            done[key] = clean[key] = run["started_at"]
            continue
        yield run, (clean if passed else done).get(key)
        if passed:
            done[key] = run["started_at"]


def exports(store: Store) -> dict[str, str | None]:
    """Folders that were exported to -> the selection that was last written there; None for labels and predictions."""
    folders: dict[str, str | None] = {}
    for run in runs(store):
        if run["stage"] == "export" and run["status"] == "ok" and run["facts"].get("path"):
            folders.setdefault(run["facts"]["path"], run["subject"])
    return folders


def causes(run: dict[str, Any]) -> list[str]:
    """Why a run failed, was held back or warned: its error, and each check that did not pass."""
    failed = [f"{check['name']}: {check['detail']}" for check in run["checks"] if not check["passed"]]
    return [run["error"], *failed] if run["error"] else failed


def peak_memory_bytes() -> int:
    """The most memory that this process has had so far; of stages in one process, a later one's is never less."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


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
