"""The records of a run's stages, and of the stages that ran before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from pipelines.context import Context, began_after
from pipelines.errors import NothingYet
from pipelines.runs import runs
from storage.errors import NotInStore
from storage.store import Store

Run = dict[str, Any]
LATEST = "latest"
# A run that draws recipes reads the pool or selects; one that sends out a batch reports to its labeling project.
OF_RECIPES, OF_LABELING = {"ingest", "select"}, "push"


@dataclass(frozen=True)
class History:
    """One run and those before it.

    Attributes:
        invocation: what its stages have in common.
        stages: the records of its stages in the order in which they ended; reports apart.
        earlier: the records of stages that ended before its first, newest first.
    """

    invocation: str
    stages: list[Run]
    earlier: Iterable[Run]

    def of(self, stage: str, target: str | None = None) -> Run | None:
        """The last record of a stage of this run; of a target, if one is named."""
        return next((run for run in reversed(self.stages) if _is(run, stage, target)), None)

    def before(self, stage: str, target: str | None = None) -> Run | None:
        """The last record of a stage before this run whose checks passed."""
        return next((run for run in self.earlier if _is(run, stage, target) and run["status"] == "ok"), None)

    @property
    def previous(self) -> str | None:
        """The run before that chose something."""
        last = self.before("select")
        return None if last is None else last["invocation"]

    def stages_of_previous(self, store: Store) -> list[Run]:
        """The records of that run's stages, newest first."""
        if self.previous is None:
            return []
        first, name = began_after(store, self.previous), self.previous
        return [run for run in takewhile(lambda run: run["run_id"] > first, self.earlier) if run["invocation"] == name]


class _Earlier:
    """Records that are read as far as somebody looks, once."""

    def __init__(self, records: Iterator[Run]) -> None:
        self._records, self._read = records, list[Run]()

    def __iter__(self) -> Iterator[Run]:
        yield from self._read
        for run in self._records:
            self._read.append(run)
            yield run


def history_of(context: Context, name: str = LATEST) -> History:
    """The records around a run.

    Args:
        name: its `invocation`, or `latest`.

    Raises:
        NothingYet: nothing was run yet.
        NotInStore: no run has this name.

    Cost: reads the records of all runs, about 0.1 ms each; of this invocation only its own, and of the earlier ones
        what is asked for.
    """
    store, after = context.store, context.began_after if name == context.invocation else ""
    records = [run for run in runs(store, after) if run["stage"] != "report"]
    invocation = _latest(records) if name == LATEST else name
    stages = [run for run in reversed(records) if run["invocation"] == invocation]
    if not stages:
        known = list(dict.fromkeys(run["invocation"] for run in records))[:5]
        raise NotInStore(f"no run {name!r} in {store.root}; the last ones are: {', '.join(known) or 'none'}")
    first = stages[0]["run_id"]
    earlier = (run for run in runs(store) if run["run_id"] < first and run["stage"] != "report")
    return History(invocation, stages, _Earlier(earlier))


def _latest(records: list[Run]) -> str:
    stages: dict[str, set[str]] = {}
    for run in records:
        stages.setdefault(run["invocation"], set()).add(run["stage"])
    latest = next(_of_recipes(stages), None)
    if latest is None:
        raise NothingYet("nothing was run yet: `winnow run` makes the first report")
    return latest


def _of_recipes(stages: dict[str, set[str]]) -> Iterator[str]:
    return (name for name, ran in stages.items() if ran & OF_RECIPES and OF_LABELING not in ran)


def _is(run: Run, stage: str, target: str | None) -> bool:
    return run["stage"] == stage and target in (None, run["target"])
