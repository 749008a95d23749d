"""The difference between two selections."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipelines.context import Context
from pipelines.labeling.inputs import recorded_inputs
from pipelines.named import selection_of
from pipelines.recipes.drawn import Drawn
from pipelines.recipes.noise import ANOTHER_SEED, noise_floor, with_another_seed
from pipelines.recipes.spec import SelectionSpec
from pipelines.report.changes import ADDED, DROPPED, details, explained, words_of
from storage.catalog.publish import publish_catalog
from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.ids import from_arrow, to_text
from storage.records import commit_metrics, read_selection
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
_ROWS = """
SELECT change, rank_a, rank_b, id, source, prompt FROM selection_diff(?, ?) WHERE change <> 'kept'
ORDER BY coalesce(rank_b, rank_a), change, id"""
_FLOOR = "SELECT value FROM metrics WHERE selection_id = ? AND name = ? ORDER BY created_at DESC LIMIT 1"
_HEADER = (
    "SELECT recipe, n_items AS rows, CAST(created_at AS VARCHAR) AS created_at FROM selections WHERE selection_id = ?"
)


def diff(store: Store, a: str, b: str | None) -> dict[str, Any]:
    """What changes from selection `a` to `b`, or from the last but one selection of the recipe `a` to its last.

    Args:
        a, b: as `pipelines.named.selection_of` takes them.

    Returns:
        `a` and `b` (selection, recipe, rows, created_at), `kept`, `added`, `dropped`, `jaccard`, `sources` (a line each
        with the same counts) and `first` (at most 20 changes by rank).

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


def row_changes(context: Context, difference: dict[str, Any]) -> list[dict[str, Any]]:
    """Each row that comes or leaves, by rank, and why.

    Args:
        difference: as `diff` gives it.

    Returns:
        change, cause, words, detail, rank_a, rank_b, id, source, prompt.

    Cost: reads both selections, and asks the rules of each of them about the rows of the other.
    """
    a, b = (Drawn(context.pool, difference[side]["selection"]) for side in ("a", "b"))
    causes_of: dict[str, dict[str, str | None]] = {}
    for change, mine, other in ((ADDED, b, a), (DROPPED, a, b)):
        ids = mine.ids[~np.isin(mine.ids, other.ids)]
        causes = explained(context.pool, ids, mine, other, change)
        lines = zip(to_text(ids), causes.tolist(), details(ids, causes, mine, other), strict=True)
        causes_of |= {
            id_: {"cause": cause, "words": words_of(cause, change), "detail": detail} for id_, cause, detail in lines
        }
    rows = query_catalog(context.store, _ROWS, [a.selection_id, b.selection_id]).to_pylist()
    return [{"change": row.pop("change"), **causes_of[str(row["id"])], **row, "id": str(row["id"])} for row in rows]


def noise_of(context: Context, difference: dict[str, Any]) -> float:
    """What two seeds of the recipe of selection `b` share on its pool. It is kept as a metric of the selection.

    Args:
        difference: as `diff` gives it.

    Cost: nothing where it is known, else a draw and a publication of the catalog.
    """
    selection = difference["b"]["selection"]
    known = query_catalog(context.store, _FLOOR, [selection, ANOTHER_SEED])["value"].to_pylist()
    if known:
        return float(known[0])
    header, items = read_selection(context.store, selection)
    spec = with_another_seed(SelectionSpec.from_record(header))
    floor = noise_floor(from_arrow(items["id"]), recorded_inputs(context.pool, spec, header))
    commit_metrics(context.store, selection, {ANOTHER_SEED: floor})
    publish_catalog(context.store)
    return floor


def diff_tables(difference: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A difference as titled tables."""
    a, b = difference["a"], difference["b"]
    changes = [{"change": change, "rows": difference[change]} for change in ("kept", "added", "dropped")]
    overlap = f"overlap (Jaccard) {difference['jaccard']:.1%}"
    floor = difference.get("noise_floor")
    if floor is not None:
        more = "more than" if difference["jaccard"] < floor else "no more than"
        overlap += f"; of two seeds on the same pool {floor:.1%}: the change is {more} chance"
    rows = difference.get("rows")
    last = ("each change by rank", rows) if rows is not None else ("first changes by rank", difference["first"])
    return [
        (
            f"from {a['selection']} ({a['recipe']}, {a['rows']:,} rows)\nto   {b['selection']} ({b['recipe']}, {b['rows']:,} rows)",
            [],
        ),
        (overlap, changes),
        ("by source", difference["sources"]),
        *([last] if last[1] else []),
    ]


def _header(store: Store, selection: str) -> dict[str, Any]:
    header = query_catalog(store, _HEADER, [selection]).to_pylist()
    if not header:
        raise NotInStore(f"no selection {selection!r} in the published catalog; its `selections` lists them")
    recipe: dict[str, Any] = header[0]
    return recipe
