"""Classifiers of `classifiers:`: what each learned from and how good it is; the fit is made again when it is needed.

    records/classifiers/<classifier_id>/
      classifier.json      the header: name, classes, features, estimator, seed, metrics
      examples.parquet     what it learned from and was measured on, by id (`EXAMPLE_SCHEMA`)

Nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from storage.damage import read_record
from storage.records import commit_record, next_number, read_items, record_folder
from storage.store import Store

# `target_set` is null for a row of the pool; `held_out` examples measure and do not train.
EXAMPLE_SCHEMA = pa.schema(
    [("id", pa.uuid()), ("class", pa.string()), ("target_set", pa.string()), ("held_out", pa.bool_())]
)


def commit_classifier(store: Store, header: Mapping[str, Any], examples: pa.Table) -> str:
    """Commit a classifier; the same `classifier_id` twice is one record, the first.

    Args:
        header: JSON-plain: `classifier_id`, `name` and whatever else describes the fit. `number` and `created_at` are
            filled in.
        examples: columns of `EXAMPLE_SCHEMA`.

    Returns:
        The classifier's id.
    """
    with store.lock("classifiers", f"recording classifier {header['classifier_id']}"):
        number = next_number(store, "classifiers")
        tables = {"examples": examples.select(EXAMPLE_SCHEMA.names).cast(EXAMPLE_SCHEMA)}
        return commit_record(store, "classifier", {**header, "number": number}, tables)


def read_classifier(store: Store, classifier_id: str) -> tuple[dict[str, Any], pa.Table]:
    """A classifier's header and its examples.

    Raises:
        NotInStore: there is no such classifier.
        StoreDamaged: the record is not whole.
    """
    folder = record_folder(store, "classifier", classifier_id)
    return read_record("classifiers", folder), read_items(folder / "examples.parquet", EXAMPLE_SCHEMA.names)
