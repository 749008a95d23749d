"""The context of a stage: the configuration, the store and the reporter."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pipelines.config.load import load_config
from pipelines.config.schema import Config
from pipelines.pool_view import PoolView
from pipelines.progress import Reporter
from pipelines.runs import last_run
from storage.format import check_format
from storage.records import new_run_id
from storage.store import Store, write_durably


@dataclass(frozen=True)
class Context:
    """One invocation on one project.

    Attributes:
        config: the configuration as it was when the invocation began.
        store: where everything is kept.
        report: receives messages and progress.
        invocation: an id that the stages of one `winnow run` or one Dagster run share.
        reread: read files of the pool again that an earlier version of winnow read by other rules.
        began_after: the newest record of a run when the invocation began; those of its own stages have later ids. Empty
            where that is not known.
    """

    config: Config
    store: Store
    report: Reporter
    invocation: str = field(default_factory=new_run_id)
    reread: bool = False
    began_after: str = ""

    @cached_property
    def pool(self) -> PoolView:
        """The pool as the `ingest` of this invocation left it, whatever others have ingested since; else the last one.

        Cost: reads the records of runs back to that ingest; all of them where this invocation has none, and it is not
        known when it began.
        """
        own = last_run(self.store, "ingest", invocation=self.invocation, after=self.began_after)
        last = own or last_run(self.store, "ingest")
        return PoolView(self.config, self.store, last["subject"] if last else None)

    def reopen_pool(self) -> None:
        """Look for the pool again, after an ingest."""
        self.__dict__.pop("pool", None)


def open_context(config_path: Path, report: Reporter, invocation: str | None = None) -> Context:
    """Open a project; nothing is written before a stage runs, unless an `invocation` is named.

    A Dagster run is one process a step: the first step of an `invocation` decides which configuration all of its steps
    use, so that an edit of the file in mid-run changes nothing.
    """
    config = load_config(config_path)
    store = Store(config.store, on_notice=report.say)
    check_format(store)
    if invocation is None:
        return Context(config, store, report)
    pinned = store.path("configs", "runs", invocation)
    with store.lock("configs", f"first step of {invocation}"):  # two steps may be the first
        if not pinned.exists():
            keep_config(store, config)
            write_durably(pinned, "\n".join([config.digest, *store.records("runs")[-1:]]))
    digest, _, began_after = pinned.read_text("utf-8").partition("\n")
    return Context(load_config(_kept(store, digest)), store, report, invocation, began_after=began_after)


def keep_config(store: Store, config: Config) -> None:
    """Keep a resolved configuration in the store, under its digest."""
    path, text = _kept(store, config.digest), config.resolved_yaml()
    if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        write_durably(path, text)


def _kept(store: Store, digest: str) -> Path:
    return store.path("configs", f"{digest}.yaml")
