"""Labeling projects: labels, agreement, learning curve, batches, cost; from the published catalog and the log of labels."""

from __future__ import annotations

from typing import Any

from pipelines.context import Context
from pipelines.errors import USER_ERRORS
from pipelines.labeling.project import project_state
from storage.catalog.query import query_catalog
from storage.errors import StorageError
from storage.store import Store

_PROJECTS = """
SELECT project, count(*) FILTER (kind = 'class') AS labels, count(DISTINCT id) FILTER (kind = 'class') AS labelled_rows,
    count(DISTINCT annotator) FILTER (kind <> 'gold') AS annotators
FROM labels GROUP BY project ORDER BY project"""
_AGREEMENT = """
SELECT project, (sum(agreement * n_shared) / nullif(sum(n_shared), 0))::DOUBLE AS agreement, sum(n_shared)::BIGINT AS shared
FROM annotators WHERE NOT adjudicates GROUP BY project"""
_TIED = "SELECT project, count(*) AS tied FROM adjudication GROUP BY project"
_ROUNDS = """
SELECT project, "round", phase, n_items::BIGINT AS "rows", labelled::BIGINT AS labelled, cost::DOUBLE AS cost, stop,
    lease_until > now()::TIMESTAMP AND labelled < n_items AS open
FROM rounds ORDER BY project, "round" """
_MODELS = """
SELECT project, n_labelled::BIGINT AS labelled, (metrics->>'accuracy')::DOUBLE AS accuracy, (metrics->>'held_out')::BIGINT AS held_out
FROM models ORDER BY project, number"""


def labels(context: Context) -> list[dict[str, Any]]:
    """Each labeling project that has labels; none where there is no catalog yet."""
    store = context.store
    try:
        projects = _rows(store, _PROJECTS)
        if not projects:
            return []
        agreement = {row["project"]: row for row in _rows(store, _AGREEMENT)}
        tied = {row["project"]: row["tied"] for row in _rows(store, _TIED)}
        rounds, models = _rows(store, _ROUNDS), _rows(store, _MODELS)
    except StorageError:
        return []
    return [
        project
        | {
            "agreement": agreement.get(project["project"], {}).get("agreement"),
            "shared_labels": agreement.get(project["project"], {}).get("shared"),
            "tied_rows": tied.get(project["project"], 0),
            "budget": _budget(context, project["project"]),
            "rounds": _of(project, rounds),
            "curve": [point for point in _of(project, models) if point["accuracy"] is not None],
        }
        for project in projects
    ]


def _budget(context: Context, name: str) -> str | None:
    """What was spent and what is left, in words; None for a project that the configuration has no more."""
    if name not in context.config.labeling:
        return None
    try:
        return project_state(context, name).budget_line()
    except (*USER_ERRORS, OSError):
        return None


def _of(project: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "project"}
        for row in rows
        if row["project"] == project["project"]
    ]


def _rows(store: Store, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query_catalog(store, sql).to_pylist()
    return rows
