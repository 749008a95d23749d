"""The recorded runs of stages."""

from __future__ import annotations

from pathlib import Path

from pipelines.context import Context
from pipelines.runs import last_run
from pipelines.stages.stage import Check, Outcome, stage
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
