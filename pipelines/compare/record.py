"""The numbers of a comparison in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.catalog.publish import publish_catalog
from storage.records import commit_metrics, commit_record, digest_of
from storage.store import Store

_KEPT = ("mean_distance", "most_distance", "similarity_")


def record_comparison(store: Store, document: Mapping[str, Any]) -> str:
    """Commit a comparison, and publish the catalog; returns the comparison's id.

    What was measured of selections on record is committed as their metrics too. In `metrics` the names begin with
    `compare_`.
    """
    comparison = digest_of({key: value for key, value in document.items() if key != "created_at"})
    commit_record(store, "comparison", {**document, "comparison_id": comparison}, {})
    for entry in document["selections"]:
        for draw in entry["draws"]:
            values = {f"compare_{key}": value for key, value in draw.items() if key.startswith(_KEPT)}
            if values and draw["selection"] is not None:
                commit_metrics(store, draw["selection"], values)
    publish_catalog(store)
    return comparison
