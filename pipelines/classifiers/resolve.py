"""The source of a recipe's probabilities, resolved from its configuration or opened from its record."""

from __future__ import annotations

from pipelines.classifiers.own_file import OwnFile, file_record
from pipelines.classifiers.source import Source, SourceRecord
from pipelines.config.schema import Keyed, Recipe
from pipelines.pool_view import PoolView
from storage.pool.snapshot import Snapshot


def source_record(view: PoolView, recipe: Recipe) -> SourceRecord:
    """What a recipe's selection depends on."""
    assert isinstance(recipe.probabilities, Keyed)
    return file_record(view.store, recipe.probabilities)


def open_source(view: PoolView, record: SourceRecord, snapshot: Snapshot) -> Source:
    """The source that a record names."""
    return OwnFile(view.store, {**record, "digest": record["file"]}, snapshot)
