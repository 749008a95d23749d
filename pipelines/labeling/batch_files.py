"""The files of a batch: one for everybody, one for each named annotator, or one for the adjudicator."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from pipelines.labeling.project import ProjectState, Round
from storage.ids import Ids, from_arrow, to_bytes
from storage.labels.batches import BatchItem, file_name_of, write_batch
from storage.pool.content import Turns
from storage.pool.snapshot import Snapshot
from storage.scratch import scratch_folder, sweep

# The version of batches since which the rows that want a second person have a file of their own.
SECOND_FILE = 3


def write_files(state: ProjectState, header: Round) -> list[str]:
    """Write a round's batch where it is not there; what people have made of it since is left as it is.

    A file for each named annotator; where nobody is named, a file of all rows, and a second one of those rows that
    want a second person.

    Returns:
        The paths; of Label Studio's files those of the tasks.
    """
    items = state.items(header)
    snapshot = state.context.pool.snapshot_of(header["snapshot"])
    batch = [
        BatchItem(
            id=row_id,
            turns=turns,
            given_id=given_id,
            round_id=header["round_id"],
            prediction=item["prediction"],
            probability=item["probability"],
            model=header["model"],
        )
        for (row_id, turns, given_id), item in zip(
            rows_to_show(snapshot, from_arrow(items["id"])), items.to_pylist(), strict=True
        )
    ]
    version = header.get("batch_version", 1)
    parts = _parts(batch, items, version)
    return place_batch(
        state, f"{state.name}-{header['round']:04d}", parts, header["format"], header["classes"], version
    )


def rows_to_show(snapshot: Snapshot, ids: Ids) -> list[tuple[bytes, Turns, str | None]]:
    """Id, text and own id of some rows, in their order."""
    turns = {
        row_id: conversation
        for row_ids, conversations in snapshot.turns(ids)
        for row_id, conversation in zip(row_ids.tolist(), conversations, strict=True)
    }
    rows = zip(to_bytes(ids), ids.tolist(), snapshot.given_ids(ids), strict=True)
    return [(row_id, turns[key], given_id) for row_id, key, given_id in rows]


def place_batch(
    state: ProjectState,
    name: str,
    parts: Mapping[str, Sequence[BatchItem]],
    format: str,  # noqa: A002
    classes: Sequence[str],
    version: int,
) -> list[str]:
    """Write the files of a batch to the project's folder where they are not there; gives their paths.

    Args:
        parts: what the file's name ends in -> its rows.
        version: of the batch's fields.
    """
    folder, paths = Path(state.settings.out), []
    with scratch_folder(folder, f".{name}") as beside:
        for ending, part in parts.items():
            written = write_batch(beside / f"{name}{ending}", format, part, classes, version=version)
            paths.append(str(folder / written[0].name))
            for file in written:
                target = folder / file.name
                if not target.exists():
                    file.rename(target)
                elif not filecmp.cmp(file, target, shallow=False):
                    state.context.report.say(f"{target} has changed since it was written, and is left as it is")
    sweep(folder)
    return paths


def _parts(batch: Sequence[BatchItem], items: pa.Table, version: int) -> dict[str, Sequence[BatchItem]]:
    """The files of a round's batch, by what their names end in."""
    parts: dict[str, list[BatchItem]] = {}
    for item, people in zip(batch, items["assigned"].to_pylist(), strict=True):
        for person in people or ():
            parts.setdefault(f"-{file_name_of(person)}", []).append(replace(item, annotator=person))
    if parts:
        return dict(sorted(parts.items()))
    second = [item for item, wanted in zip(batch, items["annotators"].to_pylist(), strict=True) if wanted > 1]
    if second and version >= SECOND_FILE:
        return {"": batch, "-second": second}
    return {"": batch}
