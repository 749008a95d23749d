"""The recorded runs of stages."""

from __future__ import annotations

from pathlib import Path

from pipelines.context import Context
from pipelines.runs import failed_runs, last_run
from pipelines.stages.stage import Check, Outcome, stage
from storage.records import commit_run
from storage.store import Store
from tests.pipelines.conftest import opened


@stage("try", checks={"good": "it is good"})
def trying(context: Context, how: str) -> Outcome:
    """Is held back unless told to be `ok`."""
    return Outcome(f"made by {how}", {}, "did it", checks=(Check("good", passed=how == "ok", detail="d"),))


def test_last_run__is_the_newest_whose_checks_passed(light: Path) -> None:
    context = opened(light)
    for how in ("ok", "hold"):
        trying(context, how)
    assert last_run(context.store, "try")["subject"] == "made by ok"
    assert last_run(context.store, "try", "ok")["subject"] == "made by ok"
    assert last_run(context.store, "try", "hold") is None
    assert last_run(context.store, "other") is None


def test_failed_runs__a_warning_is_mended_by_a_run_whose_checks_pass(tmp_path: Path) -> None:
    store = Store(tmp_path)
    ended = [("failed", True), ("ok", False), ("ok", True), ("ok", False)]
    for number, (status, passed) in enumerate(ended):
        check = {"name": "c", "passed": passed, "detail": "d", "blocking": False}
        commit_run(
            store, {"stage": "ingest", "status": status, "started_at": f"day {number}", "checks": [check], "facts": {}}
        )
    assert [(run["started_at"], since) for run, since in failed_runs(store)] == [
        ("day 3", None),
        ("day 1", "day 2"),
        ("day 0", "day 1"),
    ]
