"""Where a labeling project stands: its labels, rounds, what is out, what was spent and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.errors import UnknownProject
from pipelines.labeling.annotations import Annotations, read_annotations
from pipelines.labeling.costs import prices, purse
from pipelines.messages import nearest
from selection.learning.annotators import NONE
from selection.types import Rows
from storage import ids as idlib
from storage.ids import Ids
from storage.labels.rounds import read_round_items, read_rounds
from storage.pool.snapshot import Snapshot

Round = dict[str, Any]


@dataclass(frozen=True)
class ProjectState:
    """One project at one moment.

    Attributes:
        name, project: of the configuration.
        answers: the log of labels.
        rounds: the headers of all rounds, by number.
        moment: now; leases end by it.
    """

    context: Context
    name: str
    project: Labeling
    answers: Annotations
    rounds: Sequence[Round]
    moment: datetime

    @cached_property
    def snapshot(self) -> Snapshot:
        """The pool as it is now."""
        return self.context.snapshot()

    @cached_property
    def open(self) -> list[Round]:
        """The rounds of which rows are still awaited."""
        return [one for one in self.rounds if not self._over(one) and self.waiting(one).any()]

    def items(self, one: Round) -> pa.Table:
        """The rows that a round sent out."""
        return read_round_items(self.context.store, one["round_id"])

    def waiting(self, one: Round) -> Rows:
        """(items,) how many labels each row of a round still wants: fewer for each label and each skip, none where it is out."""
        items = self.items(one)
        ids = idlib.from_arrow(items["id"])
        wants = items["annotators"].to_numpy().astype(np.int64) - self.answers.at(ids, self.answers.responses)
        wants[self.answers.at(ids, self.answers.closed.astype(np.int64)) > 0] = 0
        return np.asarray(np.maximum(wants, 0))

    @cached_property
    def labelled(self) -> int:
        """How many rows have a label."""
        return int(self.answers.labelled.sum())

    @cached_property
    def spent(self) -> float:
        """What was spent in the budget's unit: money where there are prices or costs, else rows."""
        budget = self.project.budget
        if budget is not None and budget.rows is not None:
            return float(self.labelled)
        given = purse(budget, 0.0, 0.0)
        if given is None:
            return self.answers.spent or float(self.labelled)
        return self.answers.spent + self._cost(given, self.answers.ids, self.answers.unpaid)

    @cached_property
    def left(self) -> float | None:
        """What is left of the budget once all that is out has come back; None without a budget."""
        budget = self.project.budget
        if budget is None:
            return None
        out = [(idlib.from_arrow(self.items(one)["id"]), self.items(one), self.waiting(one)) for one in self.open]
        if budget.rows is not None:
            new = sum(self._new(ids, items, waiting) for ids, items, waiting in out)
            return max(budget.rows - self.spent - new, 0.0)
        assert budget.money is not None
        given = purse(budget, 0.0, 0.0)
        assert given is not None
        return max(budget.money - self.spent - sum(self._cost(given, ids, waiting) for ids, _, waiting in out), 0.0)

    def _new(self, ids: Ids, items: pa.Table, waiting: Rows) -> int:
        """Of the rows that are out, those that have no label yet and are not gold."""
        has = self.answers.at(ids, self.answers.labelled.astype(np.int64)) > 0
        return int(((waiting > 0) & ~has & (np.array(items["arm"].to_pylist()) != "gold")).sum())

    def _cost(self, given: dict[str, Any], ids: Ids, counts: Rows) -> float:
        """What so many labels of these rows cost; rows that left the pool have no price any more, unless all have one."""
        if given["per_row"] is not None:
            return float(given["per_row"] * counts.sum())
        if not counts.any():
            return 0.0
        rows = idlib.rows_of(ids, self.snapshot.ids)
        price = np.nan_to_num(prices(given, self.snapshot)[np.maximum(rows, 0)])
        return float((price * counts)[rows >= 0].sum())

    def _over(self, one: Round) -> bool:
        return datetime.fromisoformat(one["lease_until"]) <= self.moment

    def by_class(self) -> dict[str, int]:
        """How many rows have each class."""
        labels = self.answers.consensus.labels[self.answers.labelled]
        counts = np.bincount(labels[labels != NONE], minlength=len(self.project.classes))
        return dict(zip(self.project.classes, counts.tolist(), strict=True))


def project_of(context: Context, name: str) -> Labeling:
    """A project of the configuration.

    Raises:
        UnknownProject: there is none of this name.
    """
    known = context.config.labeling
    if name not in known:
        have = f"there are: {', '.join(known)}" if known else "winnow.yaml has none; add one under `labeling`"
        raise UnknownProject(f"no labeling project is called {name!r}{nearest(name, known)}; {have}")
    return known[name]


def standing(context: Context, name: str) -> ProjectState:
    """Where a project stands now."""
    project = project_of(context, name)
    answers = read_annotations(context.store, name, project.classes, project.aggregate)
    return ProjectState(context, name, project, answers, read_rounds(context.store, name), datetime.now(UTC))


def budget_line(at: ProjectState) -> str:
    """What was spent and what is left, in words."""
    budget = at.project.budget
    if budget is None:
        return f"{at.spent:g} {'spent' if at.answers.spent else 'rows labelled'} so far, without a limit"
    whole = budget.money if budget.money is not None else budget.rows
    return f"{at.spent:g} of {whole:g} {'spent' if budget.money is not None else 'rows labelled'}, {at.left:g} left"
