"""What stages have in common: one configuration for an invocation, one record for an execution."""

from __future__ import annotations

import threading
from pathlib import Path

import duckdb
import pytest

from pipelines.config.load import load_config
from pipelines.context import Context, open_context
from pipelines.errors import NothingYet
from pipelines.progress import Log
from pipelines.runs import code_version, last_run, runs
from pipelines.stages.ingest import ingest
from pipelines.stages.stage import Check, Outcome, stage
from tests.pipelines.conftest import change


def opened(project: Path, invocation: str | None = None, said: list[str] | None = None) -> Context:
    return open_context(project, Log((said if said is not None else []).append), invocation)


def test_open_context__an_invocation_keeps_the_configuration_it_began_with(light: Path) -> None:
    first = opened(light, "i1")
    change(light, "budget: 8", "budget: 9")
    again, other = opened(light, "i1"), opened(light, "i2")
    assert (again.config.digest, again.config.recipes["any"].budget) == (first.config.digest, 8)
    assert other.config.recipes["any"].budget == 9
    # Another time of loading, another process, another folder: the same files.
    assert again.config.pool.specs(again.config.root) == first.config.pool.specs(first.config.root)


def test_open_context__without_an_invocation_writes_nothing(light: Path) -> None:
    opened(light)
    assert not (light / "store").exists()


def test_stage__the_configuration_it_ran_with_is_kept_by_digest(light: Path) -> None:
    context = opened(light)
    ingest(context)
    (run,) = runs(context.store)
    kept = load_config(context.store.path("configs", f"{run['config_digest']}.yaml"))
    assert kept.digest == run["config_digest"] == context.config.digest


def test_snapshot__before_the_first_ingest_says_what_to_do(light: Path) -> None:
    with pytest.raises(NothingYet, match="or materialize the asset `pool`"):
        _ = opened(light).pool.snapshot


def test_snapshot__is_that_of_the_invocation_whatever_others_ingest(light: Path) -> None:
    mine = opened(light)
    ingest(mine)
    change(light, "data/*.jsonl", "data/a.jsonl")
    other = opened(light)
    ingest(other)
    assert (len(mine.pool.snapshot), len(other.pool.snapshot)) == (80, 40)
    assert len(opened(light).pool.snapshot) == 40


@stage("full", checks={})
def full(context: Context) -> Outcome:
    """Fails as DuckDB does where there is no room."""
    raise duckdb.IOException("IO Error: no room")


def test_stage__what_the_disk_refuses_duckdb_is_an_error_of_the_disk(light: Path) -> None:
    context = opened(light)
    with pytest.raises(OSError, match="no room"):
        full(context)
    (run,) = runs(context.store)
    assert (run["status"], run["error"]) == ("failed", "IOException: IO Error: no room")


@stage("try", checks={"good": "it is good", "nice": "it is nice"})
def trying(context: Context, how: str) -> Outcome:
    """Ends as it is told to."""
    if how == "fail":
        raise ValueError("no luck")
    checks = (Check("good", passed=how == "ok", detail="d"), Check("nice", passed=False, detail="e", blocking=False))
    return Outcome(subject=f"made by {how}", metrics={"n": 1}, summary="did it", checks=checks)


def test_stage__every_ending_is_recorded(light: Path) -> None:
    context = opened(light)
    assert trying(context, "ok").status == "ok"
    assert trying(context, "hold").status == "held_back"
    with pytest.raises(ValueError, match="no luck"):
        trying(context, "fail")

    failed, held, ok = runs(context.store)
    assert [run["status"] for run in (ok, held, failed)] == ["ok", "held_back", "failed"]
    assert (ok["subject"], ok["facts"], ok["summary"], ok["error"]) == ("made by ok", {"n": 1}, "did it", None)
    assert [check["passed"] for check in held["checks"]] == [False, False]
    assert (failed["subject"], failed["error"]) == (None, "ValueError: no luck")
    assert {run["invocation"] for run in (ok, held, failed)} == {context.invocation}
    assert all(run["code_version"] == code_version() for run in (ok, held, failed))


@pytest.mark.parametrize("reported", [("good",), ("good", "nice", "new"), ("good", "good", "nice"), ()])
def test_stage__an_outcome_reports_exactly_the_declared_checks(light: Path, reported: tuple[str, ...]) -> None:
    @stage("careless", checks=trying.checks)
    def careless(context: Context) -> Outcome:
        return Outcome("s", {}, "", checks=tuple(Check(name, passed=True, detail="") for name in reported))

    context = opened(light)
    with pytest.raises(AssertionError, match="careless: declares"):
        careless(context)
    assert next(runs(context.store))["status"] == "failed"


def test_last_run__is_the_newest_whose_checks_passed(light: Path) -> None:
    context = opened(light)
    for how in ("ok", "hold"):
        trying(context, how)
    assert last_run(context.store, "try")["subject"] == "made by ok"
    assert last_run(context.store, "try", "ok")["subject"] == "made by ok"
    assert last_run(context.store, "try", "hold") is None
    assert last_run(context.store, "other") is None


def test_stage__the_second_one_waits_and_says_for_whom(light: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    @stage("slow", checks={})
    def slow(context: Context, what: str) -> Outcome:
        began.set()
        assert go_on.wait(20)
        return Outcome(subject="s", metrics={}, summary="")

    said: list[str] = []

    def second() -> None:
        slow(opened(light, said=said), "x")

    one = threading.Thread(target=slow, args=(opened(light), "x"))
    one.start()
    assert began.wait(20)
    two = threading.Thread(target=second)
    two.start()
    while not said and two.is_alive():
        two.join(0.01)
    go_on.set()
    one.join(20)
    two.join(20)
    assert len(said) == 1
    assert said[0].startswith("slow x: waiting for winnow slow x, process ")
