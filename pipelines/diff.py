"""The difference between two selections."""

from __future__ import annotations

from typing import Any

from pipelines.named import selection_of
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.store import Store

FIRST = 20
_BY_SOURCE = """
SELECT source, count(rank_a) AS before, count(rank_b) AS after, count(rank_b) - count(rank_a) AS difference,
    count(*) FILTER (change = 'kept') AS kept, count(*) FILTER (change = 'added') AS added,
    count(*) FILTER (change = 'dropped') AS dropped
FROM selection_diff(?, ?) GROUP BY source ORDER BY after DESC, before DESC, source"""
_FIRST = f"""
SELECT change, rank_a, rank_b, source, prompt FROM selection_diff(?, ?) WHERE change <> 'kept'
ORDER BY coalesce(rank_b, rank_a) LIMIT {FIRST}"""  # noqa: S608 - a number of ours
_HEADER = (
    "SELECT recipe, n_items AS rows, CAST(created_at AS VARCHAR) AS created_at FROM selections WHERE selection_id = ?"
)


def diff(store: Store, a: str, b: str | None) -> dict[str, Any]:
    """What changes from selection `a` to `b`, or from the last but one selection of the recipe `a` to its last.

    Args:
        a, b: as `pipelines.named.selection_of` takes them.

    Returns:
        `a` and `b` (selection, recipe, rows, created_at), `kept`, `added`, `dropped`, `jaccard`, `sources` (a line each with
        the same counts) and `first` (at most 20 changes by rank).

    Raises:
        NotInStore: there is no such selection, or the published catalog lacks it.
    """
    names = (a, b) if b is not None else (f"{a}~1", a)
    ids = [selection_of(store, name) for name in names]
    headers = [_header(store, each) for each in ids]
    sources = query_catalog(store, _BY_SOURCE, ids).to_pylist()
    counts = {change: sum(line[change] for line in sources) for change in ("kept", "added", "dropped")}
    return {
        "a": {"selection": ids[0], **headers[0]},
        "b": {"selection": ids[1], **headers[1]},
        **counts,
        "jaccard": round(counts["kept"] / max(sum(counts.values()), 1), 4),
        "sources": sources,
        "first": query_catalog(store, _FIRST, ids).to_pylist(),
    }


def diff_tables(difference: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A difference as titled tables."""
    a, b = difference["a"], difference["b"]
    changes = [{"change": change, "rows": difference[change]} for change in ("kept", "added", "dropped")]
    return [
        (
            f"from {a['selection']} ({a['recipe']}, {a['rows']:,} rows)\nto   {b['selection']} ({b['recipe']}, {b['rows']:,} rows)",
            [],
        ),
        (f"overlap (Jaccard) {difference['jaccard']:.1%}", changes),
        ("by source", difference["sources"]),
        *([("first changes by rank", difference["first"])] if difference["first"] else []),
    ]


def _header(store: Store, selection: str) -> dict[str, Any]:
    header = query_catalog(store, _HEADER, [selection]).to_pylist()
    if not header:
        raise NotInStore(f"no selection {selection!r} in the published catalog; its `selections` lists them")
    recipe: dict[str, Any] = header[0]
    return recipe
