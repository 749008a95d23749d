"""The state of a labeling project: its labels and rounds, what is awaited, what was spent and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import Config, Labeling
from pipelines.context import Context
from pipelines.errors import UnknownProject
from pipelines.labeling.annotations import Annotations, read_annotations
from pipelines.labeling.spending import ROUNDING, SpendingLimit
from pipelines.messages import counted, nearest
from selection.types import Mask, Rows
from storage.damage import set_aside_records
from storage.ids import Ids, from_arrow, rows_of
from storage.labels.rounds import read_round_items, read_rounds
from storage.pool.snapshot import Snapshot

Round = dict[str, Any]


@dataclass(frozen=True)
class ProjectState:
    """A labeling project at a moment.

    Attributes:
        name, settings: of the configuration.
        annotations: the log of labels.
        rounds: the headers of all rounds, by number.
        now: leases end by it.
    """

    context: Context
    name: str
    settings: Labeling
    annotations: Annotations
    rounds: Sequence[Round]
    now: datetime

    @cached_property
    def snapshot(self) -> Snapshot:
        """The pool as it is now."""
        return self.context.pool.snapshot

    @property
    def round_ids(self) -> list[str]:
        """The ids of all rounds, by number."""
        return [header["round_id"] for header in self.rounds]

    @cached_property
    def open_rounds(self) -> list[Round]:
        """The rounds of which labels are still awaited."""
        return [
            header
            for header in self.rounds
            if datetime.fromisoformat(header["lease_until"]) > self.now and self.missing_labels(header).any()
        ]

    def items(self, header: Round) -> pa.Table:
        """The rows that a round sent out."""
        return read_round_items(self.context.store, header["round_id"])

    def missing_labels(self, header: Round) -> Rows:
        """(items,) how many labels each row of a round still wants: fewer for each label and skip, none once dismissed or settled."""
        items = self.items(header)
        ids = from_arrow(items["id"])
        missing = items["annotators"].to_numpy().astype(np.int64)
        missing -= np.array([len(who) for who in self._answered(header)], np.int64)
        done = self.annotations.dismissed | self.annotations.settled
        missing[self.annotations.lookup(ids, done.astype(np.int64)) > 0] = 0
        return np.asarray(np.maximum(missing, 0))

    def _answered(self, header: Round) -> list[frozenset[str]]:
        """(items,) who has answered each row of a round; whoever skipped it before the round was drawn has not."""
        ids = from_arrow(self.items(header)["id"])
        return self.annotations.answered_by(ids, header["label_imports"])

    def waiting_for(self, header: Round) -> str:
        """Whose labels a round still wants, in words; nothing where anybody may give the first label of each row.

        A row that somebody else has labelled waits for so many people less, the last ones that it was given to.
        """
        items, missing = self.items(header), self.missing_labels(header)
        answered = self._answered(header)
        people = Counter[str]()
        for given_to, who, count in zip(items["assigned"].to_pylist(), answered, missing.tolist(), strict=True):
            people.update([person for person in given_to or () if person not in who][:count])
        if people:
            return ", ".join(f"{person} {rows:,}" for person, rows in sorted(people.items()))
        second = int(((missing > 0) & (items["annotators"].to_numpy() > missing)).sum())
        return f"{second:,} for a second person" if second else ""

    @cached_property
    def of_others(self) -> list[str]:
        """Labels of the newest round by somebody else than the row was given to: `bob 3 of ann's`, by person."""
        header = next(reversed(self.rounds), None)
        if header is None:
            return []
        items = self.items(header)
        answered = self._answered(header)
        stood_in = Counter[tuple[str, str]]()
        for given_to, who in zip(items["assigned"].to_pylist(), answered, strict=True):
            if given_to is not None:
                absent = " and ".join(person for person in given_to if person not in who)
                others = who.difference([*given_to, self.settings.adjudicator])
                stood_in.update((person, absent) for person in others)
        return [
            f"{person} answered {counted(rows, 'row')} " + (f"of {absent}" if absent else "that others had too")
            for (person, absent), rows in sorted(stood_in.items())
        ]

    @cached_property
    def labelled(self) -> int:
        """How many rows have a label."""
        return int(self.annotations.labelled.sum())

    @cached_property
    def spent(self) -> float:
        """What was spent in the budget's unit: money where labels have a price or a cost, else rows."""
        budget = self.settings.budget
        if budget is not None and budget.rows is not None:
            return float(self.labelled)
        if self._limit is None:
            return self.annotations.spent or float(self.labelled)
        return self.annotations.spent + self._cost(self._limit, self.annotations.ids, self.annotations.without_cost)

    @cached_property
    def left(self) -> float | None:
        """What is left of the budget once all that is awaited has come back; None without a budget."""
        budget = self.settings.budget
        if budget is None:
            return None
        return max(budget.whole - self.spent - sum(map(self._awaited, self.open_rounds)), 0.0)

    def budget_line(self) -> str:
        """What was spent and what is left, in words."""
        budget = self.settings.budget
        if budget is None:
            return f"{self.spent:g} {'spent' if self.annotations.spent else 'rows labelled'} so far, without a limit"
        unit = "spent" if budget.money is not None else "rows labelled"
        left = self.left or 0.0
        out = budget.whole - self.spent - left
        awaited = f"{round(out, 9):g} for what is out, " if out > ROUNDING * budget.whole else ""
        return f"{self.spent:g} of {budget.whole:g} {unit}, {awaited}{left:g} left"

    def by_class(self, rows: Mask) -> dict[str, int]:
        """How many have each class of some rows (r,) with a label."""
        counts = np.bincount(self.annotations.consensus.labels[rows], minlength=len(self.settings.classes))
        return dict(zip(self.settings.classes, counts.tolist(), strict=True))

    @cached_property
    def _limit(self) -> SpendingLimit | None:
        """What labels cost; None where the budget is not in money."""
        return SpendingLimit.of(self.settings.budget)

    def _awaited(self, header: Round) -> float:
        """What the labels that a round still wants cost; or its rows that have no label yet and are not gold."""
        items = self.items(header)
        ids = from_arrow(items["id"])
        if self._limit is not None:
            return self._cost(self._limit, ids, self.missing_labels(header))
        labelled = self.annotations.lookup(ids, self.annotations.labelled.astype(np.int64)) > 0
        is_gold = np.array(items["arm"].to_pylist()) == "gold"
        return int(((self.missing_labels(header) > 0) & ~labelled & ~is_gold).sum())

    def _cost(self, limit: SpendingLimit, ids: Ids, counts: Rows) -> float:
        """What so many labels of these rows cost; rows that left the pool have no price any more, unless all have one."""
        if limit.per_row is not None:
            return float(limit.per_row * counts.sum())
        if not counts.any():
            return 0.0
        rows = rows_of(ids, self.snapshot.ids)
        costs = np.nan_to_num(limit.costs(self.snapshot)[np.maximum(rows, 0)])
        return float((costs * counts)[rows >= 0].sum())


def project_settings(context: Context, name: str) -> Labeling:
    """A project of the configuration.

    Raises:
        UnknownProject: there is none of this name.
    """
    return configured_project(context.config, name)


def configured_project(config: Config, name: str) -> Labeling:
    """A project of the configuration.

    Raises:
        UnknownProject: there is none of this name.
    """
    known = config.labeling
    if name not in known:
        choices = f"there are: {', '.join(known)}" if known else "winnow.yaml has none; add one under `labeling`"
        raise UnknownProject(f"no labeling project is called {name!r}{nearest(name, known)}; {choices}")
    return known[name]


def project_state(context: Context, name: str) -> ProjectState:
    """The state of a project now."""
    settings = project_settings(context, name)
    _note_lost_labels(context)
    annotations = read_annotations(context.store, name, settings.classes, settings.aggregate, settings.adjudicator)
    return ProjectState(context, name, settings, annotations, read_rounds(context.store, name), datetime.now(UTC))


def _note_lost_labels(context: Context) -> None:
    """Say that labels do not count because their record was damaged, for as long as nobody takes them in again."""
    store = context.store
    paths = {record["path"] for record in set_aside_records(store) if record["path"].startswith("records/labels/")}
    lost = sum(not store.has(*path.split("/")) for path in paths)
    if lost:
        store.notice(
            f"the labels of {counted(lost, 'label file')} do not count: the record was damaged, `winnow check` names it. "
            "`winnow labels pull` with the file takes them in again"
        )
