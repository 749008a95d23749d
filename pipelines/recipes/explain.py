"""Explain a selection: its sources and its first rows with their reasons, for the terminal and the Dagster UI."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.context import Context
from storage.ids import Ids, from_arrow, rows_of
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.records import read_selection

FIRST_ROWS = 10
SOURCES = 12
EXCERPT = 100
# Kinds of reason whose value a user can read: a similarity or distance to what `ref` names.
SIMILAR = frozenset({"target", "target_set", "anchor", "neighbour", "centre"})


@dataclass(frozen=True)
class Explanation:
    """An explained selection: two small tables.

    Attributes:
        header: the selection's record.
        by_source: source, selected, share, share_of_pool; the most selected first.
        first_rows: rank, source, prompt (an excerpt), why.
    """

    header: dict[str, Any]
    by_source: list[dict[str, Any]]
    first_rows: list[dict[str, Any]]


def explain(context: Context, selection_id: str) -> Explanation:
    """Look up the texts and sources of a selection; works before the catalog is published.

    Cost: one pass over the snapshot's `source` column, plus the text of the first rows.
    """
    header, items = read_selection(context.store, selection_id)
    snapshot = open_snapshot(context.store, header["snapshot"])
    ids = from_arrow(items["id"])
    rows = rows_of(ids, snapshot.ids)
    sources = snapshot.column("source")
    selected, pool = Counter(sources[rows].tolist()), Counter(sources.tolist())
    by_source = [
        {
            "source": source,
            "selected": count,
            "share": round(count / max(len(rows), 1), 4),
            "share_of_pool": round(pool[source] / len(sources), 4),
        }
        for source, count in selected.most_common(SOURCES)
    ]
    first = items.slice(0, FIRST_ROWS).to_pylist()
    first_rows = [
        {"rank": item["rank"], "source": sources[row], "prompt": prompt, "why": why(item)}
        for item, row, prompt in zip(first, rows[:FIRST_ROWS], prompts(snapshot, ids[:FIRST_ROWS]), strict=True)
    ]
    return Explanation(header, by_source, first_rows)


def prompts(snapshot: Snapshot, ids: Ids) -> list[str]:
    """An excerpt of the first turn of each row, in the order of `ids`."""
    texts: dict[bytes, str] = {}
    for block, turns in snapshot.turns(np.sort(ids)):
        texts |= {row_id: conversation[0][1] for row_id, conversation in zip(block.tolist(), turns, strict=True)}
    return [excerpt(texts[row_id]) for row_id in ids.tolist()]


def why(item: dict[str, Any]) -> str:
    """The reason of a selected row in words.

    >>> why({"kind": "target", "ref": "gsm8k/17", "ref_rank": 1, "value": 0.8123})
    'target gsm8k/17, 1st in its list, 0.812'
    >>> why({"kind": "score", "ref": None, "ref_rank": None, "value": 4.5})
    'score 4.500'
    >>> why({"kind": "draw", "ref": None, "ref_rank": None, "value": 0.3})
    'draw'
    """
    if item["ref"] is None:
        has_value = item["kind"] == "score" and item["value"] is not None
        return f"{item['kind']} {item['value']:.3f}" if has_value else str(item["kind"])
    parts = [f"{item['kind']} {item['ref']}"]
    if item["ref_rank"] is not None:
        parts.append(f"{ordinal(item['ref_rank'])} in its list")
    if item["value"] is not None and item["kind"] in SIMILAR:
        parts.append(f"{item['value']:.3f}")
    return ", ".join(parts)


def ordinal(number: int) -> str:
    """An ordinal number.

    >>> [ordinal(n) for n in (1, 2, 3, 4, 11, 22, 113)]
    ['1st', '2nd', '3rd', '4th', '11th', '22nd', '113th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def excerpt(text: str, width: int = EXCERPT) -> str:
    r"""The beginning of a text, on one line.

    >>> excerpt("a  long\n text", 8)
    'a long …'
    """
    line = " ".join(text[: 4 * width].split())
    return line if len(line) <= width else line[: width - 1] + "…"


def ready_sql(selection_id: str) -> str:
    """A query to paste: the selected rows in pick order."""
    return (
        "SELECT rank, source, prompt, response, kind, ref, value\n"
        f"FROM selected_examples WHERE selection_id = '{selection_id}' ORDER BY rank LIMIT 20;"
    )
