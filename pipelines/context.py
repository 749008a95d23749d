"""The context of a stage: the configuration, the store and the reporter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from pipelines.config.load import load_config
from pipelines.config.schema import Config, Engine, digest_of_resolved
from pipelines.pool_view import PoolView
from pipelines.progress import Reporter
from pipelines.runs import last_run
from storage.format import check_format
from storage.records import is_run_id, new_run_id
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
        other_engine: where large work is done instead of as the configuration says.
        began_after: the newest record of a run when the invocation began; those of its own stages have later ids. Empty
            where that is not known.
    """

    config: Config
    store: Store
    report: Reporter
    invocation: str = field(default_factory=new_run_id)
    reread: bool = False
    other_engine: Engine | None = None
    began_after: str = ""

    @property
    def engine(self) -> Engine:
        """Where large work is done. No result depends on it, so it stands beside the configuration."""
        return self.other_engine or self.config.engine

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


def open_context(
    config_path: Path, report: Reporter, invocation: str | None = None, engine: Mapping[str, Any] | None = None
) -> Context:
    """Open a project; nothing is written before a stage runs, unless an `invocation` is named.

    Args:
        engine: keys of the section `engine` that the steps of this `invocation` have otherwise than the file.

    A Dagster run is one process a step: the first step of an `invocation` decides which configuration all of its steps
    use, so that an edit of the file in mid-run changes nothing.
    """
    config = load_config(config_path)
    store = Store(config.store, on_notice=report.say)
    check_format(store)
    if invocation is None:
        return Context(config, store, report, began_after=_newest_run(store))
    pinned = _pinned(store, invocation)
    with store.lock("configs", f"first step of {invocation}"):  # two steps may be the first
        if not pinned.exists():
            keep_config(store, config)
            write_durably(pinned, f"{config.digest}\n{_newest_run(store)}")
    digest, _, began_after = pinned.read_text("utf-8").partition("\n")
    kept = _kept(store, digest)
    other = load_config(kept, {f"engine.{key}": value for key, value in engine.items()}).engine if engine else None
    return Context(load_config(kept), store, report, invocation, other_engine=other, began_after=began_after)


def began_after(store: Store, invocation: str) -> str:
    """An id that the records of an invocation's stages come after; empty where none is known.

    That of a Dagster run is noted; that of another one is an id itself, made before those of its records.
    """
    try:
        return _pinned(store, invocation).read_text("utf-8").partition("\n")[2]
    except FileNotFoundError:
        return invocation if is_run_id(invocation) else ""


def _pinned(store: Store, invocation: str) -> Path:
    """Where the first step of a Dagster run notes the configuration of all, and the newest record at that time."""
    return store.path("configs", "runs", invocation)


def _newest_run(store: Store) -> str:
    """The record that was committed last; empty if there is none."""
    return max(store.records("runs"), default="")


def keep_config(store: Store, config: Config) -> None:
    """Keep a resolved configuration in the store, under its digest."""
    path, text = _kept(store, config.digest), config.resolved_yaml()
    if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
        write_durably(path, text)


def kept_config_damage(path: Path) -> str | None:
    """What is wrong with a configuration that the store keeps, in words that name it; None if nothing is."""
    try:
        plain = yaml.safe_load(path.read_text("utf-8"))
        is_whole = isinstance(plain, dict) and digest_of_resolved(plain) == path.stem
    except (OSError, ValueError, TypeError, RecursionError, yaml.YAMLError):
        is_whole = False
    return None if is_whole else f"{path} is not the configuration that was kept"


def _kept(store: Store, digest: str) -> Path:
    return store.path("configs", f"{digest}.yaml")
