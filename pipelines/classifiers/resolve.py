"""The source of a recipe's probabilities: resolved from its configuration, opened from its record."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.classifiers.entry import ClassifierSource, configured_classifier
from pipelines.classifiers.own_file import OwnFile, file_record
from pipelines.classifiers.project import newest_model, open_project
from pipelines.classifiers.source import Source, SourceRecord
from pipelines.config.schema import LEARNED, Config, Keyed, Recipe
from pipelines.pool_view import PoolView
from selection.types import Input
from storage.pool.snapshot import Snapshot


def source_name(recipe: Recipe) -> str | None:
    """The classifier or labeling project that a recipe takes something from; None where it takes nothing of either."""
    name = recipe.probabilities
    return name if isinstance(name, str) and recipe.inputs & LEARNED else None


def source_names(config: Config, recipes: Iterable[str]) -> list[str]:
    """The classifiers and labeling projects that recipes take something from, each once."""
    names = [source_name(config.recipes[recipe]) for recipe in recipes]
    return list(dict.fromkeys(name for name in names if name is not None))


def source_encoder(config: Config, name: str) -> str | None:
    """The encoder on whose vectors a classifier or labeling project works."""
    return (config.classifiers[name] if name in config.classifiers else config.labeling[name]).encoder


def source_record(view: PoolView, recipe: Recipe) -> SourceRecord | None:
    """What the selection of a recipe depends on, as it is now; None where its steps take nothing from a source."""
    if recipe.probabilities is None or not recipe.inputs & LEARNED:
        return None
    if isinstance(recipe.probabilities, Keyed):
        return file_record(view.store, recipe.probabilities)
    name = recipe.probabilities
    classifier = view.config.classifiers.get(name)
    members = (classifier or view.config.labeling[name]).members
    more = {"members": members} if Input.COMMITTEE in recipe.inputs else {}
    if classifier is None:
        return {"project": name, "model": newest_model(view.store, name), **more}
    return {"name": name, "classifier": configured_classifier(view, name).classifier_id, **more}


def open_source(view: PoolView, record: SourceRecord, snapshot: Snapshot) -> Source:
    """The source that a record names."""
    if "classifier" in record:
        return ClassifierSource(view, record, snapshot)
    if "model" in record:
        return open_project(view, record, snapshot)
    return OwnFile(view.store, {**record, "digest": record["file"]}, snapshot)
