"""Where labeling projects stand, from the published catalog."""

from __future__ import annotations

from typing import Any

from storage.catalog.query import query_catalog
from storage.errors import StorageError
from storage.store import Store

_PROJECTS = """
SELECT project, count(*) FILTER (kind = 'class') AS labels, count(DISTINCT id) FILTER (kind = 'class') AS labelled_rows,
    count(DISTINCT annotator) AS annotators, sum(cost) AS cost
FROM labels GROUP BY project ORDER BY project"""
_AGREEMENT = """
SELECT project, sum(agreement * n_shared) / nullif(sum(n_shared), 0) AS agreement, sum(n_shared) AS shared
FROM annotators GROUP BY project"""
_TIED = "SELECT project, count(*) AS tied FROM adjudication GROUP BY project"
_ROUNDS = """
SELECT project, "round", phase, n_items AS "rows", labelled, cost, metrics->>'accuracy' AS accuracy, metrics->>'held_out' AS held_out,
    stop, lease_until > now()::TIMESTAMP AS open
FROM rounds ORDER BY project, "round" """
_MODELS = """
SELECT project, n_labelled AS labelled, (metrics->>'accuracy')::DOUBLE AS accuracy, (metrics->>'held_out')::DOUBLE AS held_out
FROM models ORDER BY project, number"""


def labels(store: Store) -> list[dict[str, Any]]:
    """Each labeling project: labels, agreement, learning curve, rounds, cost; none where there is no catalog yet."""
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
            "rounds": _of(project, rounds),
            "curve": [point for point in _of(project, models) if point["accuracy"] is not None],
        }
        for project in projects
    ]


def _of(project: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if key != "project"}
        for row in rows
        if row["project"] == project["project"]
    ]


def _rows(store: Store, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = query_catalog(store, sql).to_pylist()
    return rows
