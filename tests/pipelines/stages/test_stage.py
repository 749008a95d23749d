"""A stage runs one at a time for its target, and every run is recorded."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import duckdb
import pytest

import pipelines.stages.stage as stage_module
from pipelines.cli.exit_codes import REFUSED, exit_code
from pipelines.config.load import load_config
from pipelines.context import Context
from pipelines.errors import OutOfMemory
from pipelines.runs import code_version, runs
from pipelines.stages.ingest import ingest
from pipelines.stages.stage import Check, Outcome, is_out_of_memory, stage
from storage.store import Store
from tests.pipelines.conftest import opened


@stage("full", checks={})
def full(context: Context) -> Outcome:
    """Fails as DuckDB does where there is no room."""
    raise duckdb.IOException("IO Error: no room")


@stage("try", checks={"good": "it is good", "nice": "it is nice"})
def trying(context: Context, how: str) -> Outcome:
    """Ends as it is told to."""
    if how == "fail":
        raise ValueError("no luck")
    checks = (Check("good", passed=how == "ok", detail="d"), Check("nice", passed=False, detail="e", blocking=False))
    return Outcome(subject=f"made by {how}", metrics={"n": 1}, summary="did it", checks=checks)


def test_stage__the_configuration_it_ran_with_is_kept_by_digest(light: Path) -> None:
    context = opened(light)
    ingest(context)
    (run,) = runs(context.store)
    kept = load_config(context.store.path("configs", f"{run['config_digest']}.yaml"))
    assert kept.digest == run["config_digest"] == context.config.digest


def test_stage__what_the_disk_refuses_duckdb_is_an_error_of_the_disk(light: Path) -> None:
    context = opened(light)
    with pytest.raises(OSError, match="no room"):
        full(context)
    (run,) = runs(context.store)
    assert (run["status"], run["error"]) == ("failed", "IOException: IO Error: no room")


def test_stage__a_full_disk_is_said_also_where_the_record_of_it_has_no_room(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @stage("writer", checks={})
    def writer(context: Context) -> Outcome:
        raise RuntimeError("faiss: write error in index.faiss: 57299 != 768000 (No space left on device)")

    def no_record(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    context = opened(light)
    monkeypatch.setattr(stage_module, "commit_run", no_record)
    with pytest.raises(OSError, match=f"no room on the disk of {context.store.root}: .* MB are free"):
        writer(context)


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


def test_stage__the_second_one_waits_and_says_for_whom(light: Path) -> None:
    began, go_on = threading.Event(), threading.Event()

    @stage("slow", checks={})
    def slow(context: Context, what: str) -> Outcome:
        began.set()
        assert go_on.wait(20)
        return Outcome(subject="s", metrics={}, summary="")

    said: list[str] = []

    def run_again() -> None:
        slow(opened(light, said=said), "x")

    first = threading.Thread(target=slow, args=(opened(light), "x"))
    first.start()
    assert began.wait(20)
    second = threading.Thread(target=run_again)
    second.start()
    while not said and second.is_alive():
        second.join(0.01)
    go_on.set()
    first.join(20)
    second.join(20)
    assert len(said) == 1
    assert said[0].startswith("slow x: waiting for winnow slow x, process ")


@pytest.mark.parametrize("error", [MemoryError("512 MB"), duckdb.OutOfMemoryException("Out of Memory Error: failed")])
def test_stage__without_memory_says_so(light: Path, error: Exception) -> None:
    @stage("grow", checks={})
    def grow(context: Context) -> Outcome:
        raise RuntimeError("a library's own words") from error

    with pytest.raises(OutOfMemory, match=r"grow: not enough memory; this process has used .* MB at most"):
        grow(opened(light))
    (run,) = runs(Store(light / "store"))
    assert (run["stage"], run["status"]) == ("grow", "failed")
    assert exit_code(OutOfMemory("")) == REFUSED


def test_stage__another_error_is_not_for_want_of_memory() -> None:
    assert not is_out_of_memory(ValueError("memory"))
