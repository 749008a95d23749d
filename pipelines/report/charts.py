"""The plots of a report as Vega-Lite specifications, made by Altair from the report's document.

A specification names its colours by `style` (`selected`, `pool`, `before`, `target`, ...); `page.js` gives each its colour, in
light and in dark. Data is added after Altair has checked the chart, so thousands of points cost it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Values = Sequence[Mapping[str, Any]]


def charts(document: Mapping[str, Any]) -> dict[str, Spec]:
    """The id of its place in the page -> its specification, for what the document has something to plot of."""
    specs: dict[str, Spec] = {}
    for number, recipe in enumerate(document["recipes"]):
        if recipe["mix"] is not None:
            specs[f"mix-{number}"] = mix_chart(recipe["mix"]["source"])
            specs[f"length-{number}"] = length_chart(recipe["mix"]["length"])
            if recipe["mix"]["quota"] is not None:
                specs[f"quota-{number}"] = mix_chart(recipe["mix"]["quota"]["lines"])
        if recipe["map"] is not None:
            specs[f"map-{number}"] = map_chart(document["maps"][recipe["map"]["encoder"]], recipe["map"])
    for number, project in enumerate(document["labels"]):
        if len(project["curve"]) > 1:
            specs[f"curve-{number}"] = curve_chart(project["curve"])
    return specs


def mix_chart(lines: Values) -> Spec:
    """A bar for each group's share of the selection, and a tick for its share of the pool."""
    import altair as alt

    groups = [line["group"] for line in lines]
    y = alt.Y("group:N", sort=groups, title=None)
    shown = [
        alt.Tooltip("group:N"),
        alt.Tooltip("selected:Q", format=","),
        alt.Tooltip("share:Q", title="share of the selection", format=".1%"),
        alt.Tooltip("share_of_pool:Q", title="share of the pool", format=".1%"),
    ]
    axis = alt.Axis(format="%", tickCount=5, title=None)
    bars = (
        alt.Chart()
        .mark_bar(style="selected", height={"band": 0.6})
        .encode(x=alt.X("share:Q", axis=axis), y=y, tooltip=shown)
    )
    ticks = (
        alt.Chart()
        .mark_tick(style="pool", thickness=2, height={"band": 0.9})
        .encode(x="share_of_pool:Q", y=y, tooltip=shown)
    )
    return _finished(alt.layer(bars, ticks), {"lines": lines}, height=18 * len(groups) + 4)


def length_chart(lines: Values) -> Spec:
    """For the pool and the selections the range of 90 of 100 rows, the middle half and the median."""
    import altair as alt

    names = ("q05", "q25", "q50", "q75", "q95")
    values = [{"group": line["group"]} | dict(zip(names, line["quantiles"], strict=True)) for line in lines]
    y = alt.Y("group:N", sort=[line["group"] for line in lines], title=None)
    shown = [alt.Tooltip("group:N"), *(alt.Tooltip(f"{name}:Q", format=",") for name in names)]
    x = alt.X("q05:Q", scale=alt.Scale(type="symlog"), axis=alt.Axis(title=None, tickCount=6, format="~s"))
    whole = alt.Chart().mark_rule(style="range").encode(x=x, x2="q95:Q", y=y, tooltip=shown)
    half = (
        alt.Chart().mark_bar(style="selected", height={"band": 0.5}).encode(x="q25:Q", x2="q75:Q", y=y, tooltip=shown)
    )
    median = (
        alt.Chart().mark_tick(style="median", thickness=2, height={"band": 0.7}).encode(x="q50:Q", y=y, tooltip=shown)
    )
    return _finished(alt.layer(whole, half, median), {"lines": values}, height=24 * len(values) + 4)


def map_chart(pool: Mapping[str, Any], points: Mapping[str, Any]) -> Spec:
    """The pool as a density picture; the selected rows and the targets as points whose text shows."""
    import altair as alt

    left, right, bottom, top = pool["frame"]
    wide, high = (right - left) / pool["cells"], (top - bottom) / pool["cells"]
    density = [
        {
            "x": left + i * wide,
            "x2": left + (i + 1) * wide,
            "y": bottom + j * high,
            "y2": bottom + (j + 1) * high,
            "rows": n,
        }
        for i, j, n in pool["density"]
    ]
    selected = [{"x": x, "y": y, "rank": rank, "text": text} for x, y, rank, text in points["selected"]]
    targets = [{"x": x, "y": y, "target": name, "text": text} for x, y, name, text in points["targets"]]
    axis = alt.Axis(labels=False, ticks=False, grid=False, title=None, domain=False)
    x = alt.X("x:Q", scale=alt.Scale(domain=[left, right], nice=False), axis=axis)
    y = alt.Y("y:Q", scale=alt.Scale(domain=[bottom, top], nice=False), axis=axis)
    colour = alt.Color("rows:Q", scale=alt.Scale(type="symlog"), legend=None)
    picture = (
        alt.Chart(alt.Data(name="density")).mark_rect(tooltip=None).encode(x=x, x2="x2:Q", y=y, y2="y2:Q", color=colour)
    )
    rows = (
        alt.Chart(alt.Data(name="selected"))
        .mark_point(style="selected_point", size=14)
        .encode(x=x, y=y, tooltip=[alt.Tooltip("rank:Q", format=","), alt.Tooltip("text:N")])
    )
    asked = (
        alt.Chart(alt.Data(name="targets"))
        .mark_point(style="target", shape="cross", size=36)
        .encode(x=x, y=y, tooltip=[alt.Tooltip("target:N"), alt.Tooltip("text:N")])
    )
    return _finished(
        alt.layer(picture, rows, asked), {"density": density, "selected": selected, "targets": targets}, height=380
    )


def curve_chart(points: Values) -> Spec:
    """Accuracy on the random arm by the number of labels."""
    import altair as alt

    line = (
        alt.Chart()
        .mark_line(style="curve", point=True)
        .encode(
            x=alt.X("labelled:Q", title="labelled rows"),
            y=alt.Y("accuracy:Q", title="accuracy on the random arm", axis=alt.Axis(format="%", tickCount=4)),
            tooltip=["labelled:Q", alt.Tooltip("accuracy:Q", format=".1%"), "held_out:Q"],
        )
    )
    return _finished(line, {"lines": points}, height=180)


def _finished(chart: Any, datasets: Mapping[str, Values], *, height: int) -> Spec:
    if "lines" in datasets:
        import altair as alt

        chart = chart.properties(data=alt.Data(name="lines"))
    spec: Spec = chart.properties(width="container", height=height).to_dict()
    spec.pop("config", None)  # of Altair's theme; the page has its own
    return spec | {
        "datasets": {name: list(values) for name, values in datasets.items()},
        "autosize": {"type": "fit-x", "contains": "padding"},
    }
