"""`winnow compare`: the document that tables and page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.compare.draws import Draw, drawn, random_rows, recorded
from pipelines.compare.overlap import jaccard, mean_over_draws, rank_biased
from pipelines.compare.yardstick import Yardstick, yardstick
from pipelines.context import Context
from pipelines.recipes.drawn import column_codes
from pipelines.runs import code_version, runs
from storage.store import utc_now

# Sources that are shown; the others are one line.
SOURCES = 12
# Draws of random rows where selections on record are compared.
RANDOM_DRAWS = 5
# Draws of an entry whose ranks are compared: each two of all draws are, one by one.
RANKED_DRAWS = 5


def compare(context: Context, names: Sequence[str], *, seeds: int | None, encoder: str | None = None) -> dict[str, Any]:
    """Compare selections on the present pool, by the same vectors, beside as many random rows.

    Args:
        names: recipes, sweeps, or selections as `pipelines.named.selection_of` takes them.
        seeds: draw each recipe now with so many seeds; None compares the selections on record.
        encoder: the name of the encoder to measure with; that of the first recipe with one if left out.

    Returns:
        A JSON-plain document. `selections` has an entry for each name and each size of random rows: `name`, `random`,
        `metrics` (name -> `mean`, and `std` where there are several draws) and `draws` (`seed`, `selection` where it is
        on record, and the metrics). Metrics are `rows`, `tokens`, `seconds`, `peak_memory_bytes`, `mean_distance` and
        `most_distance` (of the pool's rows to the nearest chosen one: the mean, and what 95 of 100 are below), and
        `similarity_<target set>` (the mean of its examples' highest cosine to a chosen row). `targets` says which half
        of each set judges; `overlap` is Jaccard and `rank_biased_overlap` RBO (of at most 5 draws each), an entry with
        itself over different seeds; `mix` has the share of each source; `notes` what a reader should know.

    Raises:
        NothingYet, NotInStore, UnknownRecipe, RecipesFailed: there is nothing to compare.

    Cost: the draws, if `seeds`; 6e8 multiply-adds a draw, more for large ones (300 rows of the pool are measured at
    least).
    """
    draws = list(recorded(context, names) if seeds is None else drawn(context, names, seeds))
    entries = list(dict.fromkeys(draw.name for draw in draws))
    sizes = sorted({len(draw.ids) for draw in draws if len(draw.ids)})
    baselines = [draw for size in sizes for draw in random_rows(context, size, seeds or RANDOM_DRAWS)]
    shown = [*entries, *dict.fromkeys(draw.name for draw in baselines)]
    draws += baselines
    measure = yardstick(context, draws, encoder)
    peaks = _peaks(context, [draw for draw in draws if not draw.random])
    measured = [_metrics(draw, measure, peaks.get(draw.name)) for draw in draws]
    owners, ids = [shown.index(draw.name) for draw in draws], [draw.ids for draw in draws]
    ranked = [place for place, owner in enumerate(owners) if owners[:place].count(owner) < RANKED_DRAWS]
    return {
        "created_at": utc_now(),
        "code_version": code_version(),
        "snapshot": context.pool.snapshot.id,
        "pool_rows": len(context.pool.snapshot.ids),
        "seeds": seeds,
        "encoder": None if measure is None else measure.title,
        "sample_rows": None if measure is None else len(measure.sample),
        "targets": [] if measure is None else measure.described,
        "selections": [
            _entry(name, [(draw, values) for draw, values in zip(draws, measured, strict=True) if draw.name == name])
            for name in shown
        ],
        "overlap": mean_over_draws(jaccard(ids), owners, len(shown)),
        "rank_biased_overlap": mean_over_draws(
            rank_biased([ids[place] for place in ranked]), [owners[place] for place in ranked], len(shown)
        ),
        "mix": _mix(context, draws, owners, len(shown)),
        "notes": _notes(context, draws, measure, seeds),
    }


def _metrics(draw: Draw, measure: Yardstick | None, peak: int | None) -> dict[str, float]:
    values = {"rows": len(draw.ids), "tokens": draw.tokens, "seconds": draw.seconds, "peak_memory_bytes": peak}
    known: dict[str, float] = {name: value for name, value in values.items() if value is not None}
    return known | (measure.of(draw.rows) if measure is not None and len(draw.rows) else {})


def _entry(name: str, draws: list[tuple[Draw, dict[str, float]]]) -> dict[str, Any]:
    metrics = {}
    for key in dict.fromkeys(key for _, values in draws for key in values):
        numbers = [values[key] for _, values in draws if key in values]
        metrics[key] = {
            "mean": round(float(np.mean(numbers)), 4),
            "std": round(float(np.std(numbers, ddof=1)), 4) if len(numbers) > 1 else None,
        }
    return {
        "name": name,
        "random": draws[0][0].random,
        "metrics": metrics,
        "draws": [{"seed": draw.seed, "selection": draw.selection, **values} for draw, values in draws],
    }


def _peaks(context: Context, draws: Sequence[Draw]) -> dict[str, int]:
    """Name -> the peak memory of the process that last drew it, by the records of runs."""
    by_target = {draw.name: draw.name for draw in draws}
    by_selection = {draw.selection: draw.name for draw in draws if draw.selection is not None}
    peaks: dict[str, int] = {}
    for run in runs(context.store):
        name = by_target.get(run["target"]) or by_selection.get(run["subject"])
        if name is not None and run["stage"] == "select" and run["status"] == "ok" and run.get("peak_memory_bytes"):
            peaks.setdefault(name, run["peak_memory_bytes"])
    return peaks


def _mix(context: Context, draws: Sequence[Draw], owners: Sequence[int], count: int) -> list[dict[str, Any]]:
    """The share of each source in the pool and in each entry (the mean over its draws), the commonest in the entries first."""
    codes, values = column_codes(context.pool, context.pool.snapshot, "source")
    names = ["null" if value is None else str(value) for value in values.tolist()]
    pool = np.bincount(codes, minlength=len(names)) / max(len(codes), 1)
    shares = np.zeros((count, len(names)))
    for draw, owner in zip(draws, owners, strict=True):
        shares[owner] += np.bincount(codes[draw.rows], minlength=len(names)) / max(len(draw.rows), 1)
    shares /= np.bincount(owners, minlength=count)[:, None]
    order = np.lexsort((-pool, -shares.max(axis=0)))
    groups = [[place] for place in order.tolist()]
    if len(groups) > SOURCES:
        groups = [*groups[: SOURCES - 1], [place for group in groups[SOURCES - 1 :] for place in group]]
    return [
        {
            "source": names[group[0]] if len(group) == 1 else f"{len(group)} others",
            "pool": round(float(pool[group].sum()), 4),
            "shares": [round(float(line[group].sum()), 4) for line in shares],
        }
        for group in groups
    ]


def _notes(context: Context, draws: Sequence[Draw], measure: Yardstick | None, seeds: int | None) -> list[str]:
    notes = []
    if measure is None:
        notes.append("no vectors of the whole pool are in the store, so neither coverage nor similarity was measured")
    else:
        notes += measure.notes
    lost = {draw.name: len(draw.ids) - len(draw.rows) for draw in draws if len(draw.ids) > len(draw.rows)}
    notes += [
        f"{name}: {rows:,} rows are not in the pool any more; they count for overlap alone"
        for name, rows in lost.items()
    ]
    earlier = dict.fromkeys(draw.name for draw in draws if draw.snapshot != context.pool.snapshot.id)
    notes += [f"{name} was drawn from an earlier state of the pool" for name in earlier]
    if seeds is None:
        notes.append("seconds are those of the record, measuring included; `--seeds 5` draws again and times all alike")
    elif seeds > 1:
        notes.append("seconds are those of the draws after the first, which opens files and may compile")
    return notes
