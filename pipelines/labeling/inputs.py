"""What a labeling project adds to a draw: the rows that train, the model of them, the rows that may not be sent out.

A model is not stored: it is fitted again from the log, the same each time, and gives the probabilities of those rows
only that a draw asks for. The random arms of all rounds are held out: they never train, so they measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipelines.classifiers.own_file import own_probabilities
from pipelines.classifiers.training import TrainingSet, fit_model, read_training_set
from pipelines.labeling.annotations import Annotations, read_annotations
from pipelines.labeling.spending import SpendingLimit
from pipelines.pool_view import PoolView
from pipelines.recipes.inputs import DrawInputs, Mask
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.spec import SelectionSpec
from selection import Targets
from selection.learning.annotators import NONE
from selection.learning.classifier import (
    CommitteeProbabilities,
    Model,
    PredictedProbabilities,
    build_classifier,
    fit_committee,
)
from selection.types import Floats, RowBlocks, Rows
from storage.errors import BadInput
from storage.ids import Ids, from_arrow, rows_of
from storage.labels.rounds import sent_ids
from storage.pool.snapshot import Snapshot
from storage.records import read_selection
from storage.store import Store
from storage.vectors.segments import StoredVectors


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What an arm of a labeling round depends on beside a recipe. Records name some fields otherwise: `_RECORDED_AS`.

    Attributes:
        project: of `labeling:`.
        classes: their names; the position is the class number.
        aggregate: how several labels of a row become one.
        adjudicator: whose class of a row is its label; records without one do not name it.
        label_digest: of the log of labels that it saw.
        rounds: the rounds before; their random arms do not train.
        open_rounds: those of them whose rows are still out.
        other_selection: the selection that the round drew before; neither its rows nor those of the ones before it are
            drawn again.
        classifier, members: what gives probabilities and a committee; None and 0 where the steps need none.
        limit: what is left to spend and what a row costs, where that ends the batch.
    """

    project: str
    classes: Sequence[str]
    aggregate: str | Mapping[str, Any]
    label_digest: str
    rounds: Sequence[str]
    open_rounds: Sequence[str]
    other_selection: str | None
    classifier: Any
    members: int
    limit: SpendingLimit | None
    adjudicator: str | None = None

    def record(self) -> dict[str, Any]:
        """The JSON-plain form that is hashed and kept."""
        values = asdict(self)
        if self.adjudicator is None:
            del values["adjudicator"]
        return {_RECORDED_AS.get(name, name): value for name, value in values.items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Arm:
        """The arm that a selection's record describes."""
        names = {field.name: _RECORDED_AS.get(field.name, field.name) for field in fields(cls)}
        values = {name: record[key] for name, key in names.items() if key in record}
        return cls(**values | {"limit": values["limit"] and SpendingLimit(**values["limit"])})


_RECORDED_AS = {"label_digest": "labels", "open_rounds": "open", "other_selection": "apart", "limit": "purse"}


class LabelingInputs(DrawInputs):
    """What a labeling project adds to the draw of one arm, in the frame of the snapshot; computed when it is asked for."""

    def __init__(self, view: PoolView, spec: SelectionSpec, arm: Arm, annotations: Annotations) -> None:
        assert spec.encoder is not None  # a project has vectors, which its classifier learns from
        super().__init__(view, spec)
        self.arm, self.annotations = arm, annotations
        self.encoder = spec.encoder

    @cached_property
    def training(self) -> TrainingSet:
        """The labelled rows that train."""
        return training_set(self.view.store, self.annotations, self.arm.rounds, self.encoder)

    @cached_property
    def labels(self) -> Rows:
        """(n,) class numbers of the rows that train, -1 elsewhere."""
        labels = np.full(len(self.snapshot), NONE, np.int64)
        rows = rows_of(self.training.ids, self.snapshot.ids)
        labels[rows[rows >= 0]] = self.training.labels[rows >= 0]
        return labels

    @cached_property
    def labelled(self) -> Rows:
        """Rows with a label, ascending; held out ones too."""
        return np.flatnonzero(_has_id(self.snapshot, self.annotations.ids[self.annotations.labelled]))

    @cached_property
    def exclusions(self) -> Mapping[str, Mask]:
        """The rows that may not be sent out, by the reason."""
        store, annotations = self.view.store, self.annotations
        ids = {
            # A row with tied votes waits for somebody to decide: the same people would say the same again.
            "labelled": annotations.ids[annotations.labelled | annotations.tied],
            "leased": sent_ids(store, self.arm.open_rounds),
            "skipped_or_ignored": annotations.ids[annotations.dismissed],
            "gold": annotations.ids[annotations.gold != NONE],
            "random_arm": _selected_ids(store, self.arm.other_selection),
        }
        rules = {rule: _has_id(self.snapshot, excluded) for rule, excluded in ids.items()}
        if self._imported is not None:
            rules["without_probabilities"] = ~self._imported[1]
        return rules

    @cached_property
    def probabilities(self) -> RowBlocks | Floats:
        """(n, C): the user's own, or those of the model."""
        if self._imported is not None:
            return self._imported[0]
        model = fit_model(self.arm.classifier, self.training, len(self.arm.classes), self.spec.seed)
        return PredictedProbabilities(self._vectors, model)

    @property
    def classes(self) -> Sequence[str]:
        """Those of the project."""
        return self.arm.classes

    @cached_property
    def committee(self) -> RowBlocks:
        """(n, members, C)."""
        return CommitteeProbabilities(self._vectors, self._members)

    def on_targets(self, targets: Targets) -> Targets:
        """The targets with what the committee says of them, where the arm has one."""
        if not self.arm.members:
            return targets
        said = [member.probabilities(targets.vectors) for member in self._members]
        return replace(targets, committee=np.stack(said, axis=1))

    def affordable(self, rows: Rows) -> int:
        """How many of the picked rows, in their order, can be paid."""
        return len(rows) if self.arm.limit is None else self.arm.limit.affordable(rows, self.snapshot)

    def header(self) -> dict[str, Any]:
        """The log's last import that the draw saw."""
        return {"label_imports": self.annotations.imports}

    @cached_property
    def _vectors(self) -> StoredVectors:
        return self.view.vectors(self.encoder, self.snapshot)

    @cached_property
    def _members(self) -> list[Model]:
        vectors, labels, n_classes = self.training.vectors, self.training.labels, len(self.arm.classes)
        classifier = build_classifier(self.arm.classifier)
        return fit_committee(classifier, vectors, labels, n_classes, members=self.arm.members, seed=self.spec.seed)

    @cached_property
    def _imported(self) -> tuple[Floats, Mask] | None:
        return imported_probabilities(self.view.store, self.arm.classifier, self.arm.classes, self.snapshot)


def recorded_inputs(view: PoolView, spec: SelectionSpec, header: Mapping[str, Any]) -> DrawInputs:
    """What a recorded selection was drawn from, of a recipe or of an arm.

    Raises:
        BadInput: the labels of an arm are not those of the record.
    """
    if spec.arm is None:
        return recipe_inputs(view, spec)
    arm = Arm.from_record(spec.arm)
    upto = header["label_imports"]
    annotations = read_annotations(view.store, arm.project, arm.classes, arm.aggregate, arm.adjudicator, upto)
    if annotations.digest != arm.label_digest:
        raise BadInput(f"the labels of {arm.project} up to import {annotations.imports} are not those of the record")
    return LabelingInputs(view, spec, arm, annotations)


def training_set(store: Store, annotations: Annotations, rounds: Iterable[str], encoder: str) -> TrainingSet:
    """What may be learned from after these rounds; rows that the encoder never saw, or could not encode, are left out."""
    trains = annotations.labelled & ~np.isin(annotations.ids, sent_ids(store, rounds, "random"))
    ids, labels = annotations.ids[trains], annotations.consensus.labels[trains]
    return read_training_set(store, encoder, ids, labels)


def imported_probabilities(
    store: Store, classifier: Any, classes: Sequence[str], snapshot: Snapshot
) -> tuple[Floats, Mask] | None:
    """The user's own probabilities (n, C) and the rows that have some, where they stand for a classifier.

    Raises:
        BadInput: the file is not what a record says it was.
    """
    file = classifier.get("probabilities") if isinstance(classifier, dict) else None
    return None if file is None else own_probabilities(store, file, classes, snapshot)


def _selected_ids(store: Store, selection_id: str | None) -> Ids:
    """The rows of a selection of a round, and of those that the round drew before it."""
    ids = [np.empty(0, "S16")]
    while selection_id is not None:
        header, items = read_selection(store, selection_id)
        ids.append(from_arrow(items["id"]))
        selection_id = header["arm"]["apart"]
    return np.concatenate(ids)


def _has_id(snapshot: Snapshot, ids: Ids) -> Mask:
    """(n,) which rows have one of the ids."""
    flags = np.zeros(len(snapshot), np.bool_)
    rows = rows_of(ids, snapshot.ids)
    flags[rows[rows >= 0]] = True
    return flags
