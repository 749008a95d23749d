"""A comparison as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
# Sources in the terminal; page and JSON have more.
SOURCES = 6
_WORDS = {
    "rows": "rows",
    "tokens": "tokens",
    "mean_distance": "mean distance",
    "most_distance": "95 % within",
    "seconds": "seconds",
    "peak_memory_bytes": "peak memory",
}


def compare_tables(document: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """Titled tables: the numbers, the overlap and the mix by source."""
    selections = document["selections"]
    keys = shown_metrics(document)
    numbers = [
        {
            "": place,
            "selection": entry["name"],
            **{words_of(key): _cell(key, entry["metrics"].get(key)) for key in keys},
        }
        for place, entry in enumerate(selections, 1)
    ]
    overlap = [
        {"": place, **{str(other): _decimal(value) for other, value in enumerate(line, 1)}}
        for place, line in enumerate(document["overlap"], 1)
    ]
    mix = [
        {"source": line["source"], "pool": _share(line["pool"])}
        | {str(place): _share(share) for place, share in enumerate(line["shares"], 1)}
        for line in document["mix"][:SOURCES]
    ]
    drawn = "as they are on record" if document["seeds"] is None else f"with {document['seeds']} seeds each, not stored"
    by = f", measured by {document['encoder']}" if document["encoder"] else ""
    title = f"{len(selections)} selections of {document['pool_rows']:,} rows{by}; recipes {drawn}"
    return [
        (title, numbers),
        ("overlap (Jaccard); with itself over different seeds", overlap),
        ("share by source", mix),
        *((f"note: {note}", []) for note in document["notes"]),
    ]


def shown_metrics(document: Mapping[str, Any]) -> list[str]:
    """The metrics that any selection has, in the order of the table."""
    known = dict.fromkeys(key for entry in document["selections"] for key in entry["metrics"])
    similar = [key for key in known if key.startswith("similarity_")]
    order = ["rows", "tokens", "mean_distance", "most_distance", *similar, "seconds", "peak_memory_bytes"]
    return [key for key in order if key in known]


def words_of(key: str) -> str:
    """What a metric is called in a table."""
    return _WORDS.get(key) or key.replace("similarity_", "similarity ", 1)


def _cell(key: str, metric: Mapping[str, float | None] | None) -> str | None:
    if metric is None or metric["mean"] is None:
        return None
    if key == "peak_memory_bytes":
        return f"{metric['mean'] / 2**30:.1f} GiB"
    write = _count if key in ("rows", "tokens") else _decimal
    deviation = metric["std"]
    return write(metric["mean"]) + (f" ± {write(deviation)}" if deviation else "")


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float) -> str:
    return f"{value:.1%}"
