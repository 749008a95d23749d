"""The rows whose votes are tied, as a batch for the adjudicator, whose answer decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.config.schema import Labeling
from pipelines.errors import NothingYet
from pipelines.labeling.annotations import Annotations
from pipelines.labeling.batch_files import place_batch, rows_to_show
from pipelines.labeling.project import ProjectState
from pipelines.messages import counted
from storage.ids import from_arrow, rows_of, to_bytes, to_text
from storage.labels.batches import VERSION, BatchItem
from storage.records import digest_of


def adjudicator(name: str, settings: Labeling) -> str:
    """Who decides where votes are tied.

    Raises:
        NothingYet: the project `name` names nobody.
    """
    if settings.adjudicator is None:
        add = "`adjudicator:` with the name of the person who decides where votes are tied"
        raise NothingYet(f"labeling.{name} names no adjudicator; add {add}")
    return settings.adjudicator


def write_ties(state: ProjectState) -> str:
    """Write the rows that wait for the adjudicator, with the votes that are tied; gives a sentence for the user.

    The file is named after its rows, so that the same ties are the same file.

    Raises:
        NothingYet: the project names no adjudicator.
    """
    annotations, settings, person = state.annotations, state.settings, adjudicator(state.name, state.settings)
    ids = annotations.ids[annotations.tied & annotations.adjudicated]
    present = rows_of(ids, state.snapshot.ids) >= 0
    gone, ids = int((~present).sum()), ids[present]
    left = f"; {counted(gone, 'tied row')} left the pool" if gone else ""
    if not len(ids):
        return f"no row waits for {person}{left}"
    rounds, votes = _rounds(state), votes_by_row(annotations, settings.classes)
    items = [
        BatchItem(
            id=row_id,
            turns=turns,
            given_id=given_id,
            round_id=rounds.get(row_id),
            annotator=person,
            votes="; ".join(f"{who}: {label}" for who, label in votes[place].items()),
        )
        for (row_id, turns, given_id), place in zip(
            rows_to_show(state.snapshot, ids), rows_of(ids, annotations.ids).tolist(), strict=True
        )
    ]
    name = f"{state.name}-adjudication-{digest_of(to_text(ids))[:8]}"
    (file,) = place_batch(state, name, {"": items}, settings.format, settings.classes, VERSION)
    return f"{counted(len(items), 'row')} for {person} to decide in {file}{left}"


def votes_by_row(annotations: Annotations, classes: Sequence[str]) -> dict[int, dict[str, str]]:
    """Row of the annotations -> annotator -> class, annotators in order of their names."""
    given = annotations.votes
    votes: dict[int, dict[str, str]] = {}
    for row, who, label in sorted(
        zip(given.rows.tolist(), given.annotators.tolist(), given.labels.tolist(), strict=True)
    ):
        votes.setdefault(row, {})[annotations.annotators[who]] = classes[label]
    return votes


def _rounds(state: ProjectState) -> Mapping[bytes, str]:
    """The last round that sent out each row."""
    return {
        row_id: header["round_id"]
        for header in state.rounds
        for row_id in to_bytes(from_arrow(state.items(header)["id"]))
    }
