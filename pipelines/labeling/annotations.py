"""What the annotators of a labeling project have said, summed up by row."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selection.learning.annotators import NONE, Consensus, Votes, dawid_skene, majority
from selection.types import Mask, Rows
from storage.ids import Ids, from_arrow, rows_of
from storage.labels.files import MAX_NUMBER, UNKNOWN
from storage.labels.log import adjudicated_events, counted, event_imports, last_import, log_digest, read_log
from storage.store import Store


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
        respondents: (r,) who gave a class or skipped -> the number of the import that brought it.
        gold: (r,) the known class, -1 where the row is not gold.
        dismissed: (r,) ignored by somebody, or skipped by everyone who ever answered.
        spent: the sum of the costs that the log names.
        without_cost: (r,) how many labels name no cost.
        unknown_classes: labels of classes that the project no longer has; they count for nothing.
        adjudicator: the number of the person who decides; -1 without one, or where that person gave no class.
        settled: (r,) rows of which the adjudicator gave the class, which is their label whatever others say.
        adjudicated: (r,) rows that have no label while their votes are tied: those with a vote that this version read.
            Of votes that earlier versions read, the first of the tied classes stands, as their selections were drawn.
    """

    log: pa.Table
    imports: int
    ids: Ids
    consensus: Consensus
    votes: Votes
    annotators: tuple[str, ...]
    respondents: Sequence[Mapping[str, int]]
    gold: Rows
    dismissed: Mask
    spent: float
    without_cost: Rows
    unknown_classes: int
    adjudicator: int
    settled: Mask
    adjudicated: Mask

    @property
    def digest(self) -> str:
        """Names the state of the log."""
        return log_digest(self.log)

    @property
    def labelled(self) -> Mask:
        """(r,) the rows with a label; dismissed, tied and gold rows, which measure annotators, are not among them."""
        return self._voted & ~(self.tied & self.adjudicated)

    @property
    def tied(self) -> Mask:
        """(r,) the rows with as many votes for one class as for another."""
        return self._voted & self.consensus.tied

    @property
    def _voted(self) -> Mask:
        return np.asarray((self.consensus.labels != NONE) & (self.gold == NONE) & ~self.dismissed)

    @property
    def unnamed_conflicts(self) -> int:
        """How many rows have different classes from several files that name no annotator, so that the last counts."""
        log = self.log.filter(pc.and_(pc.equal(self.log["annotator"], UNKNOWN), pc.equal(self.log["kind"], "class")))
        rows = pa.table(
            {
                "row": np.unique(from_arrow(log["id"]), return_inverse=True)[1],
                "file": log["file"],
                "label": log["label"],
            }
        )
        by_row = rows.group_by("row").aggregate([("file", "count_distinct"), ("label", "count_distinct")])
        several = pc.and_(pc.greater(by_row["file_count_distinct"], 1), pc.greater(by_row["label_count_distinct"], 1))
        return pc.sum(several).as_py() or 0

    @property
    def voters_on_shared_rows(self) -> int:
        """How many people gave a class to a row that somebody else gave one too."""
        return len(np.unique(self.votes.annotators[self.consensus.count[self.votes.rows] > 1]))

    @property
    def spellings(self) -> list[list[str]]:
        """The names of annotators that differ in case, accents, white space or punctuation alone, by person."""
        return alike(self.annotators)

    @property
    def agreement(self) -> float | None:
        """The share of the rows with several labels whose labels are all the same; None without such rows.

        The adjudicator's labels are not among them: that person decides what others differ on.
        """
        is_other = self.votes.annotators != self.adjudicator
        rows, labels = self.votes.rows[is_other], self.votes.labels[is_other]
        several = self._voted & (np.bincount(rows, minlength=len(self.ids)) > 1)
        pairs = np.unique(np.stack([rows, labels]), axis=1)
        unanimous = np.bincount(pairs[0], minlength=len(self.ids)) == 1
        return float(unanimous[several].mean()) if several.any() else None

    def answered_by(self, ids: Ids, after: int = 0) -> list[frozenset[str]]:
        """Who gave each of some ids a class or skipped it, by an import with a higher number than `after`."""
        if not len(self.ids):
            return [frozenset()] * len(ids)
        answers: list[Mapping[str, int]] = [
            self.respondents[row] if row >= 0 else {} for row in rows_of(ids, self.ids).tolist()
        ]
        return [frozenset(name for name, number in who.items() if number > after) for who in answers]

    def lookup(self, ids: Ids, values: Rows) -> Rows:
        """`values` (r,) of some ids; 0 where nobody said anything."""
        if not len(self.ids):
            return np.zeros(len(ids), np.int64)
        places = rows_of(ids, self.ids)
        return np.where(places >= 0, values[np.maximum(places, 0)], 0)


def read_annotations(
    store: Store,
    project: str,
    classes: Sequence[str],
    aggregate: str | Mapping[str, Any],
    adjudicator: str | None = None,
    upto: int | None = None,
) -> Annotations:
    """Sum up a project's log.

    Args:
        aggregate: "majority", "dawid_skene", or {"dawid_skene": its options, as the configuration has them}.
        adjudicator: whose class of a row is its label.
        upto: the log as it was after this import; as it is now if left out.

    Cost: the log in memory.
    """
    upto = last_import(store, project) if upto is None else upto
    log = read_log(store, project, upto)
    events = counted(log)
    names = events["annotator"].to_pylist()
    ids, rows = np.unique(from_arrow(events["id"]), return_inverse=True)
    rows = rows.astype(np.int64)
    kinds = np.array(events["kind"].to_pylist(), dtype=object)
    class_number = {name: number for number, name in enumerate(classes)}
    labels = np.array([class_number.get(label, NONE) for label in events["label"].to_pylist()], np.int64)
    people = tuple(sorted({name for name, kind in zip(names, kinds, strict=True) if kind != "gold"}))
    person_number = {name: number for number, name in enumerate(people)}
    annotators = np.array([person_number.get(name, NONE) for name in names], np.int64)

    is_class = kinds == "class"
    is_vote = is_class & (labels != NONE)
    recent = adjudicated_events(store, project)
    is_adjudicated = np.array([event in recent for event in events["event"].to_pylist()], np.bool_)
    votes = Votes(rows[is_vote], annotators[is_vote], labels[is_vote])
    if aggregate == "majority":
        consensus = majority(votes, len(ids), len(classes))
    else:
        prior = aggregate["dawid_skene"] if isinstance(aggregate, Mapping) else {}
        given = {"votes_before": prior.get("prior_votes"), "accuracy_before": prior.get("prior_accuracy")}
        options = {name: value for name, value in given.items() if value is not None}
        consensus = dawid_skene(votes, len(ids), len(people), len(classes), **options)
        if prior.get("ties") == "wait":
            consensus = replace(consensus, tied=majority(votes, len(ids), len(classes)).tied)
    decider = person_number.get(adjudicator or "", NONE)
    decides = votes.annotators == decider
    consensus = _settled(consensus, votes.rows[decides], votes.labels[decides])
    gold = np.full(len(ids), NONE, np.int64)
    is_gold = kinds == "gold"
    gold[rows[is_gold]] = labels[is_gold]
    skips = np.bincount(rows[kinds == "skip"], minlength=len(ids))
    answers = np.bincount(rows[is_vote], minlength=len(ids))
    brought_by = event_imports(store, project)
    respondents: list[dict[str, int]] = [{} for _ in ids]
    for row in np.flatnonzero(is_vote | (kinds == "skip")).tolist():
        respondents[rows[row]][names[row]] = brought_by[events["event"][row].as_py()]
    ignored = np.bincount(rows[kinds == "ignore"], minlength=len(ids)) > 0
    no_cost = is_class & np.asarray(pc.is_null(events["cost"]))
    answering = len({name for name, kind in zip(names, kinds, strict=True) if kind in ("class", "skip")})
    return Annotations(
        log=log,
        imports=upto,
        ids=ids,
        consensus=consensus,
        votes=votes,
        annotators=people,
        respondents=respondents,
        gold=gold,
        dismissed=ignored | ((answers == 0) & (skips > 0) & (skips >= answering)),
        spent=float(pc.sum(log["cost"].filter(pc.less_equal(log["cost"], MAX_NUMBER))).as_py() or 0.0),
        without_cost=np.bincount(rows[no_cost], minlength=len(ids)).astype(np.int64),
        unknown_classes=int((is_class & (labels == NONE)).sum()),
        adjudicator=decider,
        settled=np.bincount(votes.rows[decides], minlength=len(ids)) > 0,
        adjudicated=np.bincount(rows[is_vote & is_adjudicated], minlength=len(ids)) > 0,
    )


def _settled(consensus: Consensus, rows: Rows, labels: Rows) -> Consensus:
    """The consensus with the classes that the adjudicator gave to some rows."""
    classes, confidence, tied = consensus.labels.copy(), consensus.confidence.copy(), consensus.tied.copy()
    classes[rows], confidence[rows], tied[rows] = labels, 1.0, False
    return replace(consensus, labels=classes, confidence=confidence, tied=tied)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, accents, white space or punctuation alone, together.

    >>> alike(["Ann Lee", "bob", "ann.lee", "José", "JOSE"])
    [['Ann Lee', 'ann.lee'], ['José', 'JOSE']]
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        letters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold())
        groups.setdefault("".join(filter(str.isalnum, letters)) or name, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
