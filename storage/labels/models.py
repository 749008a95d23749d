"""Models of labeling projects: their training labels and predictions; the model itself is fitted again when needed.

    records/models/<model_id>/
      model.json            the header: project, classifier, encoder, metrics
      consensus.parquet     one label a row, out of the log (`CONSENSUS_SCHEMA`)
      predictions.parquet   the top class on the stop set (`PREDICTION_SCHEMA`)

Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.damage import read_record
from storage.ids import Ids, to_text
from storage.records import commit_record, digest_of, next_number, read_items, record_folder
from storage.store import Store

CONSENSUS_SCHEMA = pa.schema(
    [
        ("id", pa.uuid()),
        ("label", pa.string()),
        ("confidence", pa.float32()),
        ("n_labels", pa.int32()),
        ("relabel_score", pa.float32()),
    ]
)
PREDICTION_SCHEMA = pa.schema([("id", pa.uuid()), ("label", pa.string()), ("probability", pa.float32())])


def commit_model(store: Store, header: Mapping[str, Any], consensus: pa.Table, predictions: pa.Table) -> str:
    """Commit a model; the same `model_id` twice is one record, the first.

    Args:
        header: JSON-plain: `model_id`, `project` and whatever else describes the fit. `n_labelled` and `created_at` are
            filled in.
        consensus: columns of `CONSENSUS_SCHEMA`.
        predictions: columns of `PREDICTION_SCHEMA`.

    Returns:
        The model's id.

    Raises:
        ValueError: a column is missing.
    """
    tables = {
        "consensus": _typed(header, consensus, CONSENSUS_SCHEMA),
        "predictions": _typed(header, predictions, PREDICTION_SCHEMA),
    }
    with store.lock("models", f"recording model {header['model_id']}"):
        number = next_number(store, "models")
        return commit_record(store, "model", {**header, "n_labelled": len(consensus), "number": number}, tables)


def read_model(store: Store, model_id: str) -> tuple[dict[str, Any], pa.Table, pa.Table]:
    """A model's header, consensus and predictions.

    Raises:
        NotInStore: there is no such model.
        StoreDamaged: the record is not whole.
    """
    folder = record_folder(store, "model", model_id)
    return (
        read_record("models", folder),
        read_items(folder / "consensus.parquet", CONSENSUS_SCHEMA.names),
        read_items(folder / "predictions.parquet", PREDICTION_SCHEMA.names),
    )


def model_digest(header: Mapping[str, Any], ids: Ids, labels: npt.NDArray[np.int64], trained_on: Ids) -> str:
    """The id of a model: a hash of what it depends on, and of all labels.

    Args:
        header: of which `project`, `classes`, `classifier`, `encoder` and `seed` count.
        ids, labels: the labelled rows, ascending, and the class numbers of their labels.
        trained_on: those of the rows that the model learned from.
    """
    options = {key: header[key] for key in ("project", "classes", "classifier", "encoder", "seed")}
    return digest_of(options | {"ids": to_text(ids), "labels": labels.tolist(), "trained_on": to_text(trained_on)})


def _typed(header: Mapping[str, Any], table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in the types of a schema, behind the name of the model's project."""
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        model = header["model_id"]
        raise ValueError(f"model {model}: the table misses the columns {missing}, got {table.column_names}")
    typed = table.select(schema.names).cast(schema)
    return typed.add_column(0, "project", pa.repeat(str(header["project"]), len(table)))
