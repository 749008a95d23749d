"""The difference between two selections."""

from __future__ import annotations

from typing import Any

from pipelines.messages import nearest
from pipelines.runs import runs
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.store import Store


def diff_tables(store: Store, a: str, b: str | None) -> list[tuple[str, list[dict[str, Any]]]]:
    """Titled tables of the changes from selection `a` to `b`, or between the last two selections of the recipe `a`.

    Raises:
        NotInStore: the published catalog lacks one of them.
    """
    if b is None:
        a, b = _last_two(store, a)
    for selection in (a, b):
        if not query_catalog(store, "SELECT 1 FROM selections WHERE selection_id = ?", [selection]).num_rows:
            raise NotInStore(f"no selection {selection!r} in the published catalog; its `selections` lists them")
    counts = query_catalog(
        store, "SELECT change, count(*) AS n FROM selection_diff(?, ?) GROUP BY change ORDER BY change", [a, b]
    )
    changed = query_catalog(
        store,
        "SELECT change, rank_a, rank_b, source, prompt FROM selection_diff(?, ?) WHERE change <> 'kept' "
        "ORDER BY coalesce(rank_b, rank_a) LIMIT 20",
        [a, b],
    )
    return [(f"from {a} to {b}", counts.to_pylist()), ("first changes by rank", changed.to_pylist())]


def _last_two(store: Store, recipe: str) -> tuple[str, str]:
    subjects: dict[str, None] = {}
    recipes: set[str] = set()
    for run in runs(store):
        if run["stage"] == "select" and run["status"] == "ok":
            recipes.add(run["target"])
            if run["target"] == recipe:
                subjects[run["subject"]] = None
        if len(subjects) == 2:
            newest, before = subjects
            return before, newest
    if recipe not in recipes:
        drawn = f"; drawn were: {', '.join(sorted(recipes))}" if recipes else ", and nothing was drawn yet"
        raise NotInStore(f"no recipe {recipe!r}{nearest(recipe, recipes)} was drawn{drawn}; two ids can be given too")
    raise NotInStore(f"the recipe {recipe!r} has one selection so far; a diff needs two")
