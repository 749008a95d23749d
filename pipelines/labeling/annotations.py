"""What the annotators of a labeling project have said, summed up by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from selection.learning.annotators import NONE, Consensus, Votes, dawid_skene, majority
from selection.types import Rows
from storage import ids as idlib
from storage.ids import Ids
from storage.labels.log import GOLD, counted, last_import, log_digest, read_log
from storage.store import Store

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Annotations:
    """The log of a project at a moment, one entry for each row that somebody said something of.

    Attributes:
        log: the events.
        imports: the number of the last import among them.
        ids: (r,) of the rows, ascending.
        consensus: one class a row, out of the votes.
        votes: who gave which row which class.
        annotators: their names, sorted; `votes.annotators` index them.
        responses: (r,) how many annotators gave a class or skipped.
        gold: (r,) the known class, -1 where the row is not gold.
        closed: (r,) ignored by somebody, or skipped by everyone who ever answered.
        spent: the sum of the costs that the log names.
        unpaid: (r,) how many labels name none.
        strange: labels of classes that the project no longer has; they count for nothing.
    """

    log: pa.Table
    imports: int
    ids: Ids
    consensus: Consensus
    votes: Votes
    annotators: tuple[str, ...]
    responses: Rows
    gold: Rows
    closed: Mask
    spent: float
    unpaid: Rows
    strange: int

    @property
    def digest(self) -> str:
        """Names the state of the log."""
        return log_digest(self.log)

    @property
    def labelled(self) -> Mask:
        """(r,) the rows with a label; ignored rows, and gold rows, which measure annotators, are not among them."""
        return np.asarray((self.consensus.labels != NONE) & (self.gold == NONE) & ~self.closed)

    @property
    def agreement(self) -> float | None:
        """The share of the rows with several labels whose labels are all the same; None without such rows."""
        several = self.labelled & (self.consensus.count > 1)
        right = self.votes.labels == self.consensus.labels[self.votes.rows]
        unanimous = np.bincount(self.votes.rows, right, minlength=len(self.ids)) == self.consensus.count
        return float(unanimous[several].mean()) if several.any() else None

    def at(self, ids: Ids, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """`values` (r,) of some ids; 0 where nobody said anything."""
        places = idlib.rows_of(ids, self.ids)
        return (
            np.where(places >= 0, values[np.maximum(places, 0)], 0) if len(self.ids) else np.zeros(len(ids), np.int64)
        )


def read_annotations(
    store: Store, project: str, classes: Sequence[str], aggregate: str, upto: int | None = None
) -> Annotations:
    """Sum up a project's log.

    Args:
        aggregate: "majority" or "dawid_skene".
        upto: the log as it was after this import; as it is now if left out.

    Cost: the log in memory.
    """
    upto = last_import(store, project) if upto is None else upto
    log = read_log(store, project, upto)
    events = counted(log)
    every, names = idlib.from_arrow(events["id"]), events["annotator"].to_pylist()
    ids, rows = np.unique(every, return_inverse=True)
    rows = rows.astype(np.int64)
    kinds = np.array(events["kind"].to_pylist(), dtype=object)
    number = {name: position for position, name in enumerate(classes)}
    given = np.array([number.get(label, NONE) for label in events["label"].to_pylist()], np.int64)
    people = tuple(sorted(set(names) - {GOLD}))
    place = {name: position for position, name in enumerate(people)}
    who = np.array([place.get(name, NONE) for name in names], np.int64)

    named = kinds == "class"
    voted = named & (given != NONE)
    votes = Votes(rows[voted], who[voted], given[voted])
    consensus = (
        dawid_skene(votes, len(ids), len(people), len(classes))
        if aggregate == "dawid_skene"
        else majority(votes, len(ids), len(classes))
    )
    gold = np.full(len(ids), NONE, np.int64)
    known = kinds == "gold"
    gold[rows[known]] = given[known]
    skipped = np.bincount(rows[kinds == "skip"], minlength=len(ids))
    labelled = np.bincount(rows[voted], minlength=len(ids))
    ignored = np.bincount(rows[kinds == "ignore"], minlength=len(ids)) > 0
    answering = len({name for name, kind in zip(names, kinds, strict=True) if kind in ("class", "skip")})
    return Annotations(
        log=log,
        imports=upto,
        ids=ids,
        consensus=consensus,
        votes=votes,
        annotators=people,
        responses=(skipped + labelled).astype(np.int64),
        gold=gold,
        closed=ignored | ((labelled == 0) & (skipped > 0) & (skipped >= answering)),
        spent=float(pc.sum(log["cost"]).as_py() or 0.0),
        unpaid=np.bincount(rows[named & np.asarray(pc.is_null(events["cost"]))], minlength=len(ids)).astype(np.int64),
        strange=int((named & (given == NONE)).sum()),
    )
