"""Models of labeling projects: what they were fitted on and what they said; the model itself is fitted again when needed.

    records/models/<model_id>/
      model.json            the header: project, classifier, encoder, metrics
      consensus.parquet     one label a row, out of the log (`CONSENSUS_SCHEMA`)
      predictions.parquet   the top class on the stop set (`PREDICTION_SCHEMA`)

Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from storage import ids as ids_
from storage.errors import NotInStore
from storage.records import read_items, write_items
from storage.store import Store, read_json, utc_now, write_json

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
        header: JSON-plain: `model_id`, `project` and whatever else describes the fit. `n_labelled` and `created_at` are filled in.
        consensus: columns of `CONSENSUS_SCHEMA`.
        predictions: columns of `PREDICTION_SCHEMA`.

    Returns:
        The model's id.

    Raises:
        ValueError: a column is missing.
    """
    model_id = str(header["model_id"])
    tables = {
        "consensus": _typed(model_id, consensus, CONSENSUS_SCHEMA),
        "predictions": _typed(model_id, predictions, PREDICTION_SCHEMA),
    }
    if not store.has("records", "models", model_id):
        with store.committing("records", "models", model_id) as folder:
            for name, table in tables.items():
                named = table.add_column(0, "project", pa.repeat(str(header["project"]), len(table)))
                write_items(folder / f"{name}.parquet", "model_id", model_id, named)
            write_json(
                folder / "model.json",
                {"created_at": utc_now(), **header, "model_id": model_id, "n_labelled": len(consensus)},
            )
    return model_id


def read_model(store: Store, model_id: str) -> tuple[dict[str, Any], pa.Table, pa.Table]:
    """A model's header, consensus and predictions.

    Raises:
        NotInStore: there is no such model.
        StoreDamaged: the record is not whole.
    """
    if not model_id or not store.has("records", "models", model_id):
        raise NotInStore(f"no model {model_id!r} in {store.root}; the catalog's `models` lists them")
    folder = store.path("records", "models", model_id)
    return (
        read_json(folder / "model.json"),
        read_items(folder / "consensus.parquet", CONSENSUS_SCHEMA.names),
        read_items(folder / "predictions.parquet", PREDICTION_SCHEMA.names),
    )


def _typed(model_id: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise ValueError(f"model {model_id}: the table misses the columns {missing}, got {table.column_names}")
    columns = [
        ids_.to_arrow(ids_.from_arrow(table[column.name]))
        if column.name == "id"
        else table[column.name].cast(column.type)
        for column in schema
    ]
    return pa.table(columns, schema=schema)
