"""The page of a comparison: one HTML file without script that opens from disk, and the document beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from pipelines.compare.tables import shown_metrics, words_of
from pipelines.report.page import render_plain

PAGE, DOCUMENT = "compare.html", "compare.json"
TEMPLATE = Path(__file__).parent / "compare.html"
# Metrics that are shown as points, each with the direction that is better.
_PLOTTED = {"mean_distance": "lower", "most_distance": "lower"}


def write_comparison(document: Mapping[str, Any], folder: Path) -> Path:
    """Write page and document into a folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DOCUMENT).write_bytes(orjson.dumps(document) + b"\n")
    page = folder / PAGE
    page.write_text(render(document), "utf-8")
    return page.absolute()


def render(document: Mapping[str, Any]) -> str:
    """The HTML of a comparison."""
    keys = shown_metrics(document)
    similar = {key: "higher" for key in keys if key.startswith("similarity_")}
    plots = [_plot(document, key, better) for key, better in (_PLOTTED | similar).items() if key in keys]
    return render_plain(TEMPLATE, comparison=document, columns=[(key, words_of(key)) for key in keys], plots=plots)


def _plot(document: Mapping[str, Any], key: str, better: str) -> dict[str, Any]:
    """For each selection where its draws lie between the least and the largest value of all, in 0..100."""
    values = [draw[key] for entry in document["selections"] for draw in entry["draws"] if key in draw]
    low, high = min(values), max(values)
    width = (high - low) or 1
    lines = [
        {
            "name": entry["name"],
            "random": entry["random"],
            "mean": entry["metrics"][key]["mean"],
            "std": entry["metrics"][key]["std"],
            "points": [round(2 + 96 * (draw[key] - low) / width, 2) for draw in entry["draws"]],
            "place": round(2 + 96 * (entry["metrics"][key]["mean"] - low) / width, 2),
        }
        for entry in document["selections"]
        if key in entry["metrics"]
    ]
    return {"title": words_of(key), "better": better, "low": low, "high": high, "lines": lines}
