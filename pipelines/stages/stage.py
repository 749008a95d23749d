"""A stage: one function, one at a time for its target, timed and recorded, with the checks that it declares."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import duckdb

from pipelines.context import Context, keep_config
from pipelines.runs import code_version
from storage.records import commit_run, new_run_id
from storage.store import utc_now

Status = Literal["ok", "held_back", "failed"]


Fact = int | float | str | None


@dataclass(frozen=True)
class Check:
    """A statement about a stage's result that was looked at.

    Attributes:
        name: what must hold, as a snake_case statement.
        passed: whether it holds.
        detail: the numbers behind it, for people.
        blocking: whether what follows must not run when it fails.
    """

    name: str
    passed: bool
    detail: str
    blocking: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a stage did: the same facts go to the catalog, to the Dagster UI and to the terminal.

    Attributes:
        subject: the id of what the stage made: a snapshot, encoder, index, selection or catalog file.
        facts: numbers and names; numbers get a plot over time in the Dagster UI.
        checks: what was checked.
        summary: one sentence for people.
    """

    subject: str
    facts: Mapping[str, Fact]
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


class Stage(Protocol):
    """A stage function: of a context and, for some, the name of the encoder or recipe."""

    def __call__(self, context: Context, *arguments: str) -> Outcome:
        """Run it, and record that it ran."""
        ...


def stage(name: str) -> Callable[[Callable[..., Outcome]], Stage]:
    """Make a function a stage: one at a time for its target, timed, and recorded whether it succeeds or fails."""

    def decorate(function: Callable[..., Outcome]) -> Stage:
        @functools.wraps(function)
        def run(context: Context, *arguments: str) -> Outcome:
            target = arguments[0] if arguments else None
            what = f"{name} {target}" if target else name
            lock = what.replace(" ", "-")
            with context.store.lock(
                lock, f"winnow {what}", lambda holder: context.report.say(f"{what}: waiting for {holder}")
            ):
                keep_config(context.store, context.config)
                started_at, began = utc_now(), time.monotonic()

                def record(status: Status, **more: Any) -> None:
                    commit_run(
                        context.store,
                        {
                            "run_id": new_run_id(),
                            "invocation": context.invocation,
                            "stage": name,
                            "target": target,
                            "status": status,
                            "started_at": started_at,
                            "finished_at": utc_now(),
                            "seconds": round(time.monotonic() - began, 3),
                            "config_digest": context.config.digest,
                            "code_version": code_version(),
                            "subject": None,
                            "summary": None,
                            "facts": {},
                            "checks": [],
                            "error": None,
                        }
                        | more,
                    )

                try:
                    outcome = function(context, *arguments)
                except Exception as error:
                    record("failed", error=f"{type(error).__name__}: {error}")
                    if isinstance(error, duckdb.IOException):  # what the disk refuses, named as all else names it
                        raise OSError(str(error)) from error
                    raise
                record(
                    outcome.status,
                    subject=outcome.subject,
                    summary=outcome.summary,
                    facts=dict(outcome.facts),
                    checks=[vars(check) for check in outcome.checks],
                )
            return outcome

        return run

    return decorate
