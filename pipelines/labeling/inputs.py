"""What a labeling project's answers teach: the rows that train, the model of them, and what both add to a draw.

A model is not stored: it is fitted again from the log, the same each time, and gives the probabilities of those rows only
that a draw asks for. The random arms of all rounds are held out: they never train, so they measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipelines.labeling.annotations import Annotations
from pipelines.recipes.spec import Arm, SelectionSpec
from selection.learning.annotators import NONE
from selection.learning.classifier import (
    CommitteeProbabilities,
    Model,
    PredictedProbabilities,
    build_classifier,
    fit_committee,
)
from selection.types import Floats, Input, RowBlocks, Rows, Targets
from storage import ids as idlib
from storage.errors import BadInput
from storage.ids import Ids
from storage.labels.imported_probabilities import probabilities_id, read_probabilities
from storage.labels.rounds import read_round_items
from storage.pool.snapshot import Snapshot
from storage.records import read_selection
from storage.store import Store
from storage.vectors import segments as stored

Mask = npt.NDArray[np.bool_]
# Why a row is kept out of a round's draw, in the order in which the rules are applied.
RULES = ("labelled", "leased", "skipped_or_ignored", "gold", "random_arm", "without_probabilities")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """What a classifier learns from.

    Attributes:
        ids: (m,) ascending, labelled rows that have a vector and are neither held out nor gold.
        vectors: (m, d) float32.
        labels: (m,) class numbers.
    """

    ids: Ids
    vectors: Floats
    labels: Rows

    @property
    def enough(self) -> bool:
        """Whether two classes are there, so that a model can tell them apart."""
        return len(np.unique(self.labels)) > 1


@dataclass(frozen=True, eq=False)
class LabelingInputs:
    """What a labeling project adds to the pool of a draw, in the frame of the snapshot.

    Attributes:
        labels: (n,) class numbers of the rows that train, -1 elsewhere.
        labelled: rows with a label, ascending; held out ones too.
        rules: name -> (n,) which rows it leaves in.
        probabilities, committee: where the steps need them.
        members: the committee's models.
    """

    labels: Rows
    labelled: Rows
    rules: Mapping[str, Mask]
    probabilities: RowBlocks | Floats | None = None
    committee: RowBlocks | None = None
    members: Sequence[Model] = ()

    def on_targets(self, targets: Targets) -> Targets:
        """The targets with what the committee says of them."""
        if not self.members:
            return targets
        return replace(
            targets, committee=np.stack([one.probabilities(targets.vectors) for one in self.members], axis=1)
        )


def sent(store: Store, rounds: Iterable[str], arm: str | None = None) -> Ids:
    """The rows that rounds sent out, each once, ascending; of one arm, or of all."""
    found = [np.empty(0, "S16")]
    for one in rounds:
        items = read_round_items(store, one)
        found.append(idlib.from_arrow(items["id"] if arm is None else items.filter(pc.equal(items["arm"], arm))["id"]))
    return np.unique(np.concatenate(found))


def training(store: Store, answers: Annotations, rounds: Iterable[str], encoder: str) -> TrainingSet:
    """What may be learned from after these rounds; rows that the encoder never saw, or could not encode, are left out."""
    learn = answers.labelled & ~np.isin(answers.ids, sent(store, rounds, "random"))
    ids = answers.ids[learn]
    unusable = np.union1d(stored.missing(store, encoder, ids), stored.failures(store, encoder, ids))
    usable = ~np.isin(ids, unusable)
    ids, labels = ids[usable], answers.consensus.labels[learn][usable]
    if not len(ids):
        return TrainingSet(ids, np.empty((0, 0), np.float32), labels)
    vectors = stored.StoredVectors(store, encoder, ids).take(np.arange(len(ids)))
    return TrainingSet(ids, np.asarray(vectors, np.float32), labels)


def fit(classifier: Any, learn: TrainingSet, n_classes: int, seed: int) -> Model:
    """The model of the labels."""
    return build_classifier(classifier).fit(learn.vectors, learn.labels, n_classes, seed=seed)


def own_probabilities(
    store: Store, classifier: Any, classes: Sequence[str], snapshot: Snapshot
) -> tuple[Floats, Mask] | None:
    """The user's own probabilities (n, C) and the rows that have some, where they stand for a classifier.

    Raises:
        BadInput: the file is not what a record says it was.
    """
    given = classifier.get("probabilities") if isinstance(classifier, dict) else None
    if given is None:
        return None
    if given["digest"] != probabilities_id(store, given["url"]):
        raise BadInput(f"the probabilities {given['url']} are not those of the record: the file has changed since")
    return read_probabilities(store, given["url"], given["id"], classes, snapshot)


def bring(
    store: Store,
    drawing: SelectionSpec,
    answers: Annotations,
    snapshot: Snapshot,
    wanted: frozenset[Input],
) -> LabelingInputs:
    """What the project adds to a draw whose steps need the `wanted`."""
    arm = drawing.arm
    assert arm is not None
    assert drawing.encoder is not None
    labels = np.full(len(snapshot), NONE, np.int64)
    labelled = _rows(answers.ids[answers.labelled], snapshot)
    learn = training(store, answers, arm.rounds, drawing.encoder)
    rows = idlib.rows_of(learn.ids, snapshot.ids)
    labels[rows[rows >= 0]] = learn.labels[rows >= 0]
    rules = {
        "labelled": ~_at(labelled, snapshot),
        "leased": ~_at(_rows(sent(store, arm.open), snapshot), snapshot),
        "skipped_or_ignored": ~_at(_rows(answers.ids[answers.closed], snapshot), snapshot),
        "gold": ~_at(_rows(answers.ids[answers.gold != NONE], snapshot), snapshot),
        "random_arm": ~_at(_rows(_chosen(store, arm.apart), snapshot), snapshot),
    }
    brought = LabelingInputs(labels, labelled, rules)
    if not wanted & {Input.PROBABILITIES, Input.COMMITTEE}:
        return brought
    own = own_probabilities(store, arm.classifier, arm.classes, snapshot)
    if own is not None:
        values, known = own
        return replace(brought, probabilities=values, rules={**rules, "without_probabilities": known})
    vectors = stored.StoredVectors(store, drawing.encoder, snapshot.ids, snapshot=snapshot.id)
    if Input.PROBABILITIES in wanted:
        brought = replace(
            brought,
            probabilities=PredictedProbabilities(vectors, fit(arm.classifier, learn, len(arm.classes), drawing.seed)),
        )
    if Input.COMMITTEE in wanted:
        members = _committee(arm, learn, drawing.seed)
        brought = replace(brought, committee=CommitteeProbabilities(vectors, members), members=members)
    return brought


def _committee(arm: Arm, learn: TrainingSet, seed: int) -> list[Model]:
    classifier = build_classifier(arm.classifier)
    return fit_committee(classifier, learn.vectors, learn.labels, len(arm.classes), members=arm.members, seed=seed)


def _chosen(store: Store, selection_id: str | None) -> Ids:
    if selection_id is None:
        return np.empty(0, "S16")
    return idlib.from_arrow(read_selection(store, selection_id)[1]["id"])


def _rows(ids: Ids, snapshot: Snapshot) -> Rows:
    """Those of the ids that the snapshot has, as rows, ascending."""
    rows = idlib.rows_of(ids, snapshot.ids)
    return np.sort(rows[rows >= 0])


def _at(rows: Rows, snapshot: Snapshot) -> Mask:
    mask = np.zeros(len(snapshot), np.bool_)
    mask[rows] = True
    return mask
