"""A stage: a function that runs one at a time for its target, is timed and recorded, and declares its checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

from pipelines.context import Context, keep_config
from pipelines.errors import USER_ERRORS, OutOfMemory
from pipelines.runs import code_version, peak_memory_bytes
from storage.damage import first_damage
from storage.disk import disk_full
from storage.errors import StoreDamaged
from storage.format import note_format
from storage.records import commit_run
from storage.store import utc_now

Status = Literal["ok", "held_back", "failed"]
Metric = int | float | str | None


@dataclass(frozen=True)
class Check:
    """The result of a check.

    Attributes:
        name: a statement in snake_case that must hold, as the stage declares it.
        passed: whether it holds.
        detail: the numbers behind it, for the user.
        blocking: whether a failure stops the stages that depend on this one.
    """

    name: str
    passed: bool
    detail: str
    blocking: bool = True


@dataclass(frozen=True)
class Outcome:
    """The result of a stage: the same metrics go to the catalog, to the Dagster UI and to the terminal.

    Attributes:
        subject: the id of the result: a snapshot, encoder, index, selection or catalog file.
        metrics: numbers and names, `facts` in the record; numbers get a plot over time in the Dagster UI.
        summary: a sentence for the user.
        checks: the result of each declared check.
    """

    subject: str
    metrics: Mapping[str, Metric]
    summary: str
    checks: tuple[Check, ...] = ()

    @property
    def failed_checks(self) -> tuple[Check, ...]:
        """The blocking checks that do not hold."""
        return tuple(check for check in self.checks if check.blocking and not check.passed)

    @property
    def status(self) -> Status:
        """`ok`, or `held_back` when a blocking check failed."""
        return "held_back" if self.failed_checks else "ok"


@dataclass(frozen=True)
class Stage:
    """A stage function that runs one at a time for its target and is recorded, whether it succeeds or fails.

    Attributes:
        name: the stage as the records of runs name it.
        checks: the checks that every outcome reports, by name, with what each means.
        function: the work, of a context and, for some, the name of an encoder, recipe or labeling project.
    """

    name: str
    checks: Mapping[str, str]
    function: Callable[..., Outcome]

    def __call__(self, context: Context, *arguments: str) -> Outcome:
        """Run the stage once nobody else runs it for the same target, and commit a record of the run."""
        target = arguments[0] if arguments else None
        title = f"{self.name} {target}" if target else self.name
        store = context.store
        with store.lock(
            title.replace(" ", "-"),
            f"winnow {title}",
            lambda holder: context.report.say(f"{title}: waiting for {holder}"),
        ):
            store.sweep()
            note_format(store)
            keep_config(store, context.config)
            started_at, started = utc_now(), time.monotonic()

            def record(status: Status, **result: Any) -> None:
                seconds = round(time.monotonic() - started, 3)
                record_run(context, self.name, target, status=status, started_at=started_at, seconds=seconds, **result)

            try:
                outcome = self.function(context, *arguments)
                reported = [check.name for check in outcome.checks]
                assert sorted(reported) == sorted(self.checks), (
                    f"{title}: declares {[*self.checks]}, reports {reported}"
                )
            except Exception as error:
                full = disk_full(error, store.root)
                with suppress(OSError) if full else nullcontext():  # there may be no room for the record either
                    record("failed", error=f"{type(error).__name__}: {error}")
                if full:
                    raise full from error
                if is_out_of_memory(error):
                    raise OutOfMemory(
                        f"{title}: not enough memory; this process has used {peak_memory_bytes() / 1e6:,.0f} MB at most. What was "
                        "committed stays, and the next run goes on from there; `winnow plan` says what a run needs"
                    ) from error
                if isinstance(error, duckdb.IOException):  # the disk's fault, reported as from any other writer
                    raise OSError(str(error)) from error
                if not isinstance(error, (*USER_ERRORS, OSError)) and (damage := first_damage(store)):
                    away = "move its folder out of the store and run again: what comes from your files is made again"
                    raise StoreDamaged(f"{damage}; {away}") from error
                raise
            record(
                outcome.status,
                subject=outcome.subject,
                summary=outcome.summary,
                facts=dict(outcome.metrics),
                checks=[vars(check) for check in outcome.checks],
            )
        return outcome


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or what led to it, says that there is no memory, in the words of any library."""
    cause: BaseException | None = error
    while cause is not None:
        # DuckDB and torch have classes of their own.
        if isinstance(cause, MemoryError) or type(cause).__name__ in ("OutOfMemoryException", "OutOfMemoryError"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def record_run(context: Context, stage: str, target: str | None, **result: Any) -> str:
    """Commit the record of something that was done; gives its `run_id`.

    Args:
        result: keys of `commit_run` that say more than that it went well and took no time.
    """
    now = utc_now()
    return commit_run(
        context.store,
        {
            "invocation": context.invocation,
            "stage": stage,
            "target": target,
            "status": "ok",
            "started_at": now,
            "finished_at": now,
            "seconds": 0.0,
            "peak_memory_bytes": peak_memory_bytes(),
            "config_digest": context.config.digest,
            "code_version": code_version(),
            "subject": None,
            "summary": None,
            "facts": {},
            "checks": [],
            "error": None,
        }
        | result,
    )


def stage(name: str, checks: Mapping[str, str]) -> Callable[[Callable[..., Outcome]], Stage]:
    """Make a function a stage that declares its checks; an outcome must report each of them, and no other."""
    return lambda function: Stage(name, checks, function)
