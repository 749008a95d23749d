"""The plots of a report as Vega-Lite specifications, made by Altair from the report's document.

A specification names its colours by `style` (`selected`, `pool`, `before`, `target`, ...); `page.js` gives each its
colour, in light and in dark. What Altair makes and checks is the same in each report, so it is kept (`kept_text`);
data, height and the frame of a map are filled in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.report.kept import kept_text

Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]
_LENGTHS = ("q05", "q25", "q50", "q75", "q95")


def charts(document: Mapping[str, Any]) -> dict[str, Spec]:
    """The id of its place in the page -> its specification, for what the document has something to plot of."""
    specs: dict[str, Spec] = {}
    for number, recipe in enumerate(document["recipes"]):
        if recipe["mix"] is not None:
            specs[f"mix-{number}"] = mix_chart(recipe["mix"]["source"])
            specs[f"language-{number}"] = mix_chart(recipe["mix"]["language"]["lines"])
            specs[f"length-{number}"] = length_chart(recipe["mix"]["length"])
            if recipe["mix"]["quota"] is not None:
                specs[f"quota-{number}"] = quota_chart(recipe["mix"]["quota"])
        if recipe["map"] is not None:
            specs[f"map-{number}"] = map_chart(document["maps"][recipe["map"]["encoder"]], recipe["map"])
    for number, project in enumerate(document["labels"]):
        if len(project["curve"]) > 1:
            specs[f"curve-{number}"] = curve_chart(project["curve"])
    return specs


def mix_chart(lines: Values) -> Spec:
    """A bar for each group's share of the selection, and a tick for its share of the pool."""
    return _filled("mix", {"lines": lines}, height=18 * len(lines) + 4)


def quota_chart(quota: Mapping[str, Any]) -> Spec:
    """A bar for each group's share of what was taken, and a tick for what it was to get, or else its share of the pool."""
    lines = quota["lines"]
    if any(line["wanted"] is not None for line in lines):
        lines = [line | {"wanted_share": _part(line["wanted"], quota["total"])} for line in lines]
        return _filled("quota", {"lines": lines}, height=18 * len(lines) + 4)
    return mix_chart(lines)


def _part(wanted: float | None, total: float) -> float | None:
    """Of a whole budget; one that is as large as that, or larger, limits nothing."""
    return None if wanted is None or wanted >= total else round(wanted / total, 4)


def _mix(tick: str = "share_of_pool", title: str = "share of the pool") -> Spec:
    import altair as alt

    y = alt.Y("group:N", sort=None, title=None)
    shown = [
        alt.Tooltip("group:N"),
        alt.Tooltip("selected:Q", format=","),
        alt.Tooltip("share:Q", title="share of the selection", format=".1%"),
        alt.Tooltip(f"{tick}:Q", title=title, format=".1%"),
    ]
    axis = alt.Axis(format="%", tickCount=5, title=None)
    data = alt.NamedData(name="lines")
    bars = alt.Chart(data).mark_bar(style="selected", height={"band": 0.6})
    ticks = alt.Chart(data).mark_tick(style="pool", thickness=2, height={"band": 0.9})
    return _specified(
        bars.encode(x=alt.X("share:Q", axis=axis), y=y, tooltip=shown),
        ticks.encode(x=f"{tick}:Q", y=y, tooltip=shown),
    )


def length_chart(lines: Values) -> Spec:
    """For the pool and the selections the range of 90 of 100 rows, the middle half and the median."""
    values = [
        {"group": _name(line["group"])}
        | {name: max(length, 1) for name, length in zip(_LENGTHS, line["quantiles"], strict=True)}  # no logarithm of 0
        for line in lines
    ]
    return _filled("length", {"lines": values}, height=24 * len(values) + 4)


def _name(group: str) -> str:
    return "last run" if group == "before" else group


def _length() -> Spec:
    import altair as alt

    y = alt.Y("group:N", sort=None, title=None)
    words = ("5 of 100 rows have at most", "25", "half", "75", "95")
    shown = [alt.Tooltip("group:N")]
    shown += [alt.Tooltip(f"{name}:Q", title=title, format=",") for name, title in zip(_LENGTHS, words, strict=True)]
    axis = alt.Axis(title=None, tickCount=6, format="~s", grid=False)
    x = alt.X("q05:Q", scale=alt.Scale(type="log"), axis=axis)
    data = alt.NamedData(name="lines")
    whole, half = (
        alt.Chart(data).mark_rule(style="range"),
        alt.Chart(data).mark_bar(style="selected", height={"band": 0.5}),
    )
    median = alt.Chart(data).mark_tick(style="median", thickness=2, height={"band": 0.7})
    return _specified(
        whole.encode(x=x, x2="q95:Q", y=y, tooltip=shown),
        half.encode(x="q25:Q", x2="q75:Q", y=y, tooltip=shown),
        median.encode(x="q50:Q", y=y, tooltip=shown),
    )


def map_chart(pool: Mapping[str, Any], points: Mapping[str, Any]) -> Spec:
    """The pool as a density picture; the selected rows and the targets as points whose text shows."""
    left, right, bottom, top = pool["frame"]
    wide, high = (right - left) / pool["cells"], (top - bottom) / pool["cells"]
    density = [
        {
            "x": round(left + i * wide, 5),
            "x2": round(left + (i + 1) * wide, 5),
            "y": round(bottom + j * high, 5),
            "y2": round(bottom + (j + 1) * high, 5),
            "rows": n,
        }
        for i, j, n in pool["density"]
    ]
    selected = [{"x": x, "y": y, "rank": rank, "text": text} for x, y, rank, text in points["selected"]]
    targets = [{"x": x, "y": y, "target": name, "text": text} for x, y, name, text in points["targets"]]
    spec = _filled("map", {"density": density, "selected": selected, "targets": targets}, height=400)
    frame = {"x": [left, right], "y": [bottom, top]}
    return spec | {"layer": [_in_frame(layer, frame) for layer in spec["layer"]]}


def _in_frame(layer: Spec, frame: Mapping[str, list[float]]) -> Spec:
    encoding = layer["encoding"]
    placed = {axis: encoding[axis] | {"scale": encoding[axis]["scale"] | {"domain": frame[axis]}} for axis in frame}
    return layer | {"encoding": encoding | placed}


def _map() -> Spec:
    import altair as alt

    axis = alt.Axis(labels=False, ticks=False, grid=False, title=None, domain=False)
    x = alt.X("x:Q", scale=alt.Scale(nice=False, zero=False), axis=axis)
    y = alt.Y("y:Q", scale=alt.Scale(nice=False, zero=False), axis=axis)
    colour = alt.Color("rows:Q", scale=alt.Scale(type="symlog"), legend=None)
    picture = alt.Chart(alt.NamedData(name="density")).mark_rect(tooltip=None)
    rows = alt.Chart(alt.NamedData(name="selected")).mark_point(style="selected_point", size=14)
    asked = alt.Chart(alt.NamedData(name="targets")).mark_point(style="target", shape="cross", size=36)
    return _specified(
        picture.encode(x=x, y=y, x2="x2:Q", y2="y2:Q", color=colour),
        rows.encode(x=x, y=y, tooltip=[alt.Tooltip("rank:Q", format=","), alt.Tooltip("text:N")]),
        asked.encode(x=x, y=y, tooltip=[alt.Tooltip("target:N"), alt.Tooltip("text:N")]),
    )


def curve_chart(points: Values) -> Spec:
    """Accuracy on the random arm by the number of labels."""
    return _filled("curve", {"lines": points}, height=180)


def _curve() -> Spec:
    import altair as alt

    line = alt.Chart(alt.NamedData(name="lines")).mark_line(style="curve", point=True)
    return _specified(
        line.encode(
            x=alt.X("labelled:Q", title="labelled rows"),
            y=alt.Y("accuracy:Q", title="accuracy on the random arm", axis=alt.Axis(format="%", tickCount=4)),
            tooltip=["labelled:Q", alt.Tooltip("accuracy:Q", format=".1%"), "held_out:Q"],
        )
    )


def _specified(*layers: Any) -> Spec:
    """Layers as one specification, as wide as its place in the page, without data."""
    import altair as alt

    spec: Spec = alt.layer(*layers).properties(width="container").to_dict()
    del spec["config"]  # of Altair's theme; the page has its own
    return spec | {"autosize": {"type": "fit-x", "contains": "padding"}}


def _filled(kind: str, datasets: Mapping[str, Values], *, height: int) -> Spec:
    data = {name: list(values) for name, values in datasets.items()}
    return _specifications()[kind] | {"height": height, "datasets": data}


@cache
def _specifications() -> dict[str, Spec]:
    """Kind of plot -> its specification without data; to import Altair and make them takes half a second."""
    source = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=8).hexdigest()
    specs: dict[str, Spec] = json.loads(kept_text(f"charts-{version('altair')}-{source}.json", _made))
    return specs


def _made() -> str:
    quota = partial(_mix, "wanted_share", "wanted, or at most")
    kinds: dict[str, Callable[[], Spec]] = {
        "mix": _mix,
        "quota": quota,
        "length": _length,
        "map": _map,
        "curve": _curve,
    }
    return json.dumps({kind: make() for kind, make in kinds.items()})
