"""What every stage works with: the configuration, the store, where to report, and the record of each execution."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol

import duckdb

from pipelines.config.load import Config, load_config
from pipelines.errors import NothingYet
from pipelines.progress import Reporter
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.records import commit_run, new_run_id
from storage.store import Store, read_json, utc_now, write_durably

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


@dataclass(frozen=True)
class Context:
    """One invocation on one project.

    Attributes:
        config: the configuration as it was when the invocation began.
        store: where everything is kept.
        report: where to tell the progress.
        invocation: what the stages of one `winnow run` or one Dagster run have in common.
    """

    config: Config
    store: Store
    report: Reporter
    invocation: str = field(default_factory=new_run_id)

    def snapshot(self) -> Snapshot:
        """The pool as the `ingest` of this invocation left it, whatever others have ingested since; else the last one.

        Raises:
            NothingYet: nothing was ingested.

        Cost: reads the records of runs back to that ingest, all of them where this invocation has none.
        """
        last = last_run(self.store, "ingest", invocation=self.invocation) or last_run(self.store, "ingest")
        if last is None:
            raise NothingYet(
                "the pool was not read yet: run `winnow run` (or `winnow labels push`), or materialize the asset `pool`, first"
            )
        return open_snapshot(self.store, last["subject"])


class Stage(Protocol):
    """A stage function: of a context and, for some, the name of the encoder or recipe."""

    def __call__(self, context: Context, *arguments: str) -> Outcome:
        """Run it, and record that it ran."""
        ...


def open_context(config_path: Path, report: Reporter, invocation: str | None = None) -> Context:
    """Open a project; nothing is written before a stage runs, unless an `invocation` is named.

    A Dagster run is one process a step: the first step of an `invocation` decides which configuration all of its steps
    use, so that an edit of the file in mid-run changes nothing.
    """
    config = load_config(config_path)
    store = Store(config.store)
    if invocation is None:
        return Context(config, store, report)
    pinned = store.path("configs", "runs", invocation)
    with store.lock("configs", f"first step of {invocation}"):  # two steps may be the first
        if not pinned.exists():
            _keep(store, config)
            write_durably(pinned, config.digest)
    return Context(load_config(_kept(store, pinned.read_text("utf-8"))), store, report, invocation)


def _keep(store: Store, config: Config) -> None:
    """Keep a resolved configuration in the store, under its digest."""
    path = _kept(store, config.digest)
    if not path.exists():
        write_durably(path, config.resolved_yaml())


def _kept(store: Store, digest: str) -> Path:
    return store.path("configs", f"{digest}.yaml")


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
                _keep(context.store, context.config)
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


def runs(store: Store) -> Iterator[dict[str, Any]]:
    """The recorded executions of stages, newest first: run ids are ULIDs, so their names are in order of time."""
    for run_id in reversed(store.records("runs")):
        yield read_json(store.path("records", "runs", run_id, "run.json"))


def last_run(
    store: Store, stage: str, target: str | None = None, *, invocation: str | None = None
) -> dict[str, Any] | None:
    """The newest execution of a stage whose checks passed; of one target (a recipe, an encoder) or invocation if named."""
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
    package = version("winnow")
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return package
    try:
        head = subprocess.run(  # noqa: S603
            ["git", "-C", str(root), "describe", "--always", "--dirty"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return package
    return f"{package}+{head.stdout.strip()}"
