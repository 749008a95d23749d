"""The numbers of a comparison in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.catalog.publish import publish_catalog
from storage.records import commit_metrics
from storage.store import Store

_KEPT = ("mean_distance", "most_distance", "similarity_")


def record_metrics(store: Store, document: Mapping[str, Any]) -> int:
    """Commit what was measured of each selection on record and publish the catalog; returns of how many selections.

    In `metrics` the names begin with `compare_`.
    """
    draws = [draw for entry in document["selections"] for draw in entry["draws"] if draw["selection"] is not None]
    for draw in draws:
        values = {f"compare_{key}": value for key, value in draw.items() if key.startswith(_KEPT)}
        if values:
            commit_metrics(store, draw["selection"], values)
    publish_catalog(store)
    return len({draw["selection"] for draw in draws})
