"""Out of a labeling project: the labelled rows; and predictions for every row of the pool, with the fitted model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.classifiers.model_source import ModelSource
from pipelines.classifiers.project import newest_model, open_project
from pipelines.config.schema import Labeling
from pipelines.context import Context
from pipelines.exports.card import write_simple_card
from pipelines.exports.fitted_model import save_model
from pipelines.exports.folder import Staging
from pipelines.exports.place import check_place, place_of, writing
from pipelines.exports.rows import BLOCK_ROWS, OrderedRows
from pipelines.exports.shapes import record_of, whole_row
from pipelines.exports.writer import FieldKinds, JsonLines
from pipelines.labeling.adjudication import votes_by_row
from pipelines.labeling.annotations import Annotations
from pipelines.labeling.project import ProjectState, project_settings, project_state
from pipelines.messages import counted
from selection.learning.linear import LinearModel
from selection.types import Floats, Mask, RowBlocks, Rows
from storage.ids import Ids, rows_of, to_text
from storage.labels.models import read_model
from storage.pool.snapshot import Snapshot


def export_labels(context: Context, project: str, out: str | Path) -> str:
    """Write the labelled rows of a project as JSON Lines: row, label, who gave which label, how it was decided.

    Gold, ignored and tied rows have no label of their own and are not written; nor are rows that left the pool, which
    are counted. Rows are in the order of their ids.

    Returns:
        A sentence for the user.

    Raises:
        UnknownProject: there is none of this name.
        WouldOverwrite: `out` holds something that winnow did not write.
    """
    place = place_of(out)
    project_settings(context, project)
    check_place(place)
    state = project_state(context, project)
    annotations = state.annotations
    places = np.flatnonzero(annotations.labelled)
    present = rows_of(annotations.ids[places], state.snapshot.ids) >= 0
    gone, places = int((~present).sum()), places[present]
    with writing(context.store, place) as staging:
        counts, file, kinds = _write_labelled(state, annotations, places, staging)
        facts = {
            "project": project,
            "labels": annotations.digest,
            "snapshot": state.snapshot.id,
            "classes": list(state.settings.classes),
            "aggregate": state.settings.aggregate,
            "rows": len(places),
            "rows_of_class": dict(counts),
            "no_longer_in_the_pool": gone,
            "tied": int((annotations.tied & annotations.adjudicated).sum()),
        }
        write_simple_card(staging.content, f"{project}, labelled rows", facts, [file], [], kinds.features("jsonl"))
    left = f"; {counted(gone, 'labelled row')} left the pool" if gone else ""
    return f"{counted(len(places), 'labelled row')} written to {place}{left}"


def export_predictions(context: Context, project: str, out: str | Path) -> str:
    """Write what a project's newest model says of every row of the pool, as Parquet, and the model as plain arrays.

    Columns: id, given_id, source, label (the top class), probability (of it), and `p_<class>` for each class; null for
    rows without a vector. Rows are in the order of their ids.

    Returns:
        A sentence for the user.

    Raises:
        UnknownProject, NothingYet: there is no such project, or it has no model yet.
        WouldOverwrite: `out` holds something that winnow did not write.

    Cost: one pass over the vectors; memory of a block, and the pool's columns `given_id` and `source`.
    """
    place = place_of(out)
    project_settings(context, project)
    check_place(place)
    model_id = newest_model(context.store, project)
    header, _, _ = read_model(context.store, model_id)
    snapshot = context.pool.snapshot
    source = open_project(context.pool, {"model": model_id, "members": 0}, snapshot)
    unknown = source.unknown()
    probabilities = source.probabilities()
    classes = list(header["classes"])
    with writing(context.store, place) as staging:
        file = _write_predictions(staging.content, snapshot, classes, probabilities, unknown)
        about = {
            "project": project,
            "model_id": model_id,
            "classes": classes,
            "classifier": header["classifier"],
            "encoder": header["encoder"],
        }
        model = source.fit() if isinstance(source, ModelSource) else None
        beside = save_model(staging.content / "model", model, about) if isinstance(model, LinearModel) else []
        facts = about | {
            "snapshot": snapshot.id,
            "rows": len(snapshot),
            "without_prediction": int(unknown.sum()),
            "metrics": header["metrics"],
        }
        write_simple_card(staging.content, f"{project}, predictions", facts, [file], beside, None)
    arrays = "the model as arrays in model/" if beside else "without the model, which is not linear"
    return f"predictions for {counted(len(snapshot), 'row')} written to {place}; {arrays}"


def _write_labelled(
    state: ProjectState, annotations: Annotations, places: Rows, staging: Staging
) -> tuple[Counter[str], Path, FieldKinds]:
    (staging.content / "data").mkdir()
    rows = OrderedRows(state.snapshot, annotations.ids[places], staging.scratch)
    votes = votes_by_row(annotations, state.settings.classes)
    counts, kinds = Counter[str](), FieldKinds()
    with JsonLines(staging.content / "data", 1, len(places)) as writer:
        for block in rows.blocks():
            records = []
            for row in block:
                place = int(places[row.place])
                label = state.settings.classes[int(annotations.consensus.labels[place])]
                decision = {
                    "label": label,
                    "confidence": float(annotations.consensus.confidence[place]),
                    "decided_by": _decided_by(votes.get(place, {}), state.settings),
                    "votes": [{"annotator": who, "label": given} for who, given in votes.get(place, {}).items()],
                }
                counts[label] += 1
                records.append(row.names | record_of(whole_row, row.conversation) | decision)
            kinds.add(records)
            writer.write([row.place for row in block], records)
        return counts, writer.files[0], kinds


def _decided_by(votes: Mapping[str, str], settings: Labeling) -> str:
    """How the votes became one label: `adjudicator`, `one vote`, `all votes`, or the way of `aggregate`."""
    if settings.adjudicator in votes:
        return "adjudicator"
    aggregate = settings.aggregate
    if len(set(votes.values())) == 1:
        return "one vote" if len(votes) == 1 else "all votes"
    return aggregate if isinstance(aggregate, str) else next(iter(aggregate))


def _write_predictions(
    folder: Path, snapshot: Snapshot, classes: list[str], probabilities: RowBlocks | Floats, unknown: Mask
) -> Path:
    (folder / "data").mkdir()
    path = folder / "data" / "train.parquet"
    given_ids, sources = snapshot.column("given_id"), snapshot.column("source")
    texts = [(name, pa.string()) for name in ("id", "given_id", "source", "label")]
    numbers = [(name, pa.float32()) for name in ("probability", *(f"p_{name}" for name in classes))]
    schema = pa.schema([*texts, *numbers])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, len(snapshot), BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, len(snapshot)))
            known = ~unknown[rows]
            P = np.zeros((len(rows), len(classes)), np.float32)
            P[known] = _taken(probabilities, rows[known])
            ids: Ids = np.asarray(snapshot.ids[rows])
            top = np.array(classes, object)[P.argmax(axis=1)]
            columns = [
                pa.array(to_text(ids)),
                pa.array(given_ids[rows], pa.string()),
                pa.array(sources[rows], pa.string()),
                pa.array(top, pa.string(), mask=~known),
                pa.array(P.max(axis=1, initial=0), mask=~known),
                *(pa.array(P[:, number], mask=~known) for number in range(len(classes))),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return path


def _taken(probabilities: RowBlocks | Floats, rows: Rows) -> Floats:
    return probabilities[rows] if isinstance(probabilities, np.ndarray) else np.asarray(probabilities.take(rows))
