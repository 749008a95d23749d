"""What of a pool holds evaluation texts, and how well the search for it finds what was planted.

records/contaminations/<id>/      contamination.json, matches.parquet (`MATCH_COLUMNS`), recall.parquet (`RECALL_COLUMNS`)
records/embedding_recalls/<id>/   embedding_recall.json, recall.parquet (`EMBEDDING_RECALL_COLUMNS`); the id of a selection
                                  or of a search of the pool
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from storage.damage import read_record
from storage.ids import Ids, from_arrow
from storage.records import commit_record, read_items, record_folder
from storage.store import Store

MATCH_COLUMNS = {
    "id": pa.uuid(),
    "target_set": pa.string(),
    "example": pa.uuid(),
    "example_name": pa.string(),
    "rule": pa.string(),
    "score": pa.float64(),
    "start": pa.int64(),
    "stop": pa.int64(),
    "excerpt": pa.string(),
}
RECALL_COLUMNS = {
    "target_set": pa.string(),
    "kind": pa.string(),
    "promised": pa.bool_(),
    "planted": pa.int64(),
    "found": pa.int64(),
    "recall": pa.float64(),
    "negatives": pa.int64(),
    "false_positives": pa.int64(),
    "precision": pa.float64(),
}
EMBEDDING_RECALL_COLUMNS = {
    "target_set": pa.string(),
    "form": pa.string(),
    "kind": pa.string(),
    "threshold": pa.float64(),
    "planted": pa.int64(),
    "found": pa.int64(),
    "recall": pa.float64(),
    "negatives": pa.int64(),
    "false_positives": pa.int64(),
}


def commit_contamination(store: Store, header: Mapping[str, Any], matches: pa.Table, recall: pa.Table) -> None:
    """Commit what was found; the same `contamination_id` twice is one record, the first.

    Args:
        header: JSON-plain, with `contamination_id` and `facts`.
        matches: `MATCH_COLUMNS`, a row of the pool and an example each.
        recall: `RECALL_COLUMNS`, an evaluation set and a kind of plant each.
    """
    tables = {"matches": matches.cast(pa.schema(MATCH_COLUMNS)), "recall": recall.cast(pa.schema(RECALL_COLUMNS))}
    commit_record(store, "contamination", header, tables)


def read_contamination(store: Store, contamination_id: str) -> dict[str, Any]:
    """The header of a record.

    Raises:
        NotInStore: there is none of this id.
        StoreDamaged: it is not whole.
    """
    return read_record("contaminations", record_folder(store, "contamination", contamination_id))


def contaminated_ids(store: Store, contamination_id: str) -> Ids:
    """The rows of the pool that hold an evaluation text, each as often as it holds one.

    Raises:
        NotInStore, StoreDamaged: as `read_contamination`.
    """
    folder = record_folder(store, "contamination", contamination_id)
    return from_arrow(read_items(folder / "matches.parquet", ["id"])["id"])


def read_recall(store: Store, contamination_id: str) -> list[dict[str, Any]]:
    """What was planted and found, as `RECALL_COLUMNS`.

    Raises:
        NotInStore, StoreDamaged: as `read_contamination`.
    """
    return _planted(record_folder(store, "contamination", contamination_id), RECALL_COLUMNS)


def commit_embedding_recall(store: Store, record_id: str, encoder: str, recall: pa.Table) -> None:
    """Commit what a rule on vectors finds of planted rows; the same id twice is one record, the first.

    Args:
        record_id: of the selection, or of the search of the pool, that has the rule.
        encoder: the fingerprint of the vectors.
        recall: `EMBEDDING_RECALL_COLUMNS`, an evaluation set, form and kind of plant each.
    """
    header = {"embedding_recall_id": record_id, "encoder": encoder}
    tables = {"recall": recall.cast(pa.schema(EMBEDDING_RECALL_COLUMNS))}
    commit_record(store, "embedding_recall", header, tables)


def read_embedding_recall(store: Store, record_id: str) -> list[dict[str, Any]]:
    """What was planted and found, as `EMBEDDING_RECALL_COLUMNS`.

    Raises:
        NotInStore, StoreDamaged: as `read_contamination`.
    """
    return _planted(record_folder(store, "embedding_recall", record_id), EMBEDDING_RECALL_COLUMNS)


def _planted(folder: Path, columns: Mapping[str, pa.DataType]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_items(folder / "recall.parquet", columns).to_pylist()
    return rows
