"""The document of a report: every number and text that its page shows.

    format        1
    run           the run's `invocation`
    created_at    when the report was made, UTC
    store         its folder
    verdict       state (published, partly, held_back), line, problems [stage, status, cause], setup (a sentence), changed (keys
                  of the configuration, code), recipes, passed, rows, tokens, started_at, finished_at, seconds, seconds_before,
                  config_digest, code_version
    previous_run  the run before that chose something, or null
    pool          snapshot and funnel: stops [key, words, total, rows, before, delta]
    recipes       a list, see below
    maps          encoder -> its map, see `maps.Map.document`
    decontamination   null, or status, facts, recall [target_set, kind, promised, planted, found, recall]
    labels        projects: project, labels, labelled_rows, annotators, agreement, tied_rows, cost, rounds, curve
    stages        stage, target, status, seconds, seconds_before, summary
    commands      what, command

A recipe:

    name, status, summary, error, selection_id, steps, rows, budget, unit, tokens, same_selection
    checks        name, passed, detail, blocking
    funnel        stops, as the pool's
    changes       null on the first selection, or counts: see `changes.changes`
    quality       null without vectors, or see `quality.quality`
    mix           source [group, selected, before, share, share_of_pool]; quota null, or by, rule, unit, groups, lines; length
                  [group, rows, quantiles 5, 25, 50, 75, 95 of 100]
    rows_to_read  note, rank, rank_before, id, source, step, why, gain, value, cause, text, ref, ref_text
    map           null, or encoder, selected [x, y, rank, text], targets [x, y, target set, text]

`before` and `random` are null, or missing, where there is nothing to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.context import Context
from pipelines.pool_view import PoolView
from pipelines.report import maps
from pipelines.report.changes import Causes, changes
from pipelines.report.drawn import Drawn, column_codes
from pipelines.report.funnel import pool_funnel, recipe_funnel
from pipelines.report.history import LATEST, History, Run, read_history
from pipelines.report.labels import labels
from pipelines.report.mix import mix
from pipelines.report.quality import quality
from pipelines.report.rows import Pick, described, picks, wanted_ids
from pipelines.report.verdict import verdict
from storage.errors import StorageError
from storage.ids import Ids, rows_of, to_arrow
from storage.pool.contamination import read_recall
from storage.pool.content import text_of
from storage.pool.snapshot import Snapshot
from storage.store import Store, utc_now

FORMAT = 1
CHANGES_SCHEMA = pa.schema(
    [("recipe", pa.string()), ("id", pa.uuid()), ("change", pa.string()), ("cause", pa.string())]
)


@dataclass
class _Recipe:
    """A recipe of a run, while its part of the document is gathered."""

    run: Run
    run_before: Run | None
    now: Drawn | None
    before: Drawn | None
    shown: list[Pick]
    causes: dict[str, Causes]
    part: dict[str, Any]


def gather(context: Context, name: str = LATEST) -> tuple[dict[str, Any], pa.Table]:
    """The document of a run's report; and a row for each added or dropped candidate with its cause, as `CHANGES_SCHEMA`.

    Args:
        name: the run's `invocation`, or `latest`.

    Raises:
        NothingYet: nothing was run yet.
        NotInStore: no run has this name.
    """
    store, view = context.store, context.pool
    history = read_history(store, name)
    recipes = [_recipe(view, history, run) for run in history.stages if run["stage"] == "select"]
    encoder = next((each.now.spec.encoder for each in recipes if each.now and each.now.spec.encoder), None)
    document = {
        "format": FORMAT,
        "run": history.invocation,
        "created_at": utc_now(),
        "store": str(store.root),
        "verdict": verdict(store, history),
        "previous_run": history.previous,
        "pool": {"snapshot": _subject(history, "ingest"), "funnel": pool_funnel(history)},
        "recipes": [each.part for each in recipes],
        "maps": {},
        "decontamination": _decontamination(store, history),
        "labels": labels(store),
        "stages": _stages(history),
        "commands": _commands(history, recipes),
    }
    drawn = [each for each in recipes if each.now is not None and len(each.now.ids)]
    for each in drawn:
        assert each.now is not None
        each.part["quality"] = quality(each.now, each.before, encoder)
        each.part["mix"] = mix(view, each.now, each.before)
    _add_texts(document, drawn, encoder)
    return document, _changes_table(recipes)


def _recipe(view: PoolView, history: History, run: Run) -> _Recipe:
    run_before = history.before("select", run["target"])
    now = _opened(view, run)
    before = _opened(view, run_before) if now is not None else None
    counted, causes = (None, {}) if now is None or before is None else changes(view, now, before)
    part = {
        "name": run["target"],
        "status": run["status"],
        "summary": run["summary"],
        "error": run["error"],
        "checks": run["checks"],
        "selection_id": run["subject"],
        "same_selection": before is not None and run["subject"] == before.selection_id,
        "funnel": recipe_funnel(run, run_before) if run["facts"] else [],
        "changes": counted,
        **dict.fromkeys(("steps", "rows", "budget", "unit", "tokens", "quality", "mix", "map")),
        "rows_to_read": [],
    }
    if now is not None:
        part |= {
            "steps": [step.name for step in now.spec.steps],
            "rows": len(now.ids),
            "budget": now.spec.budget,
            "unit": now.spec.constraints.unit,
            "tokens": run["facts"].get("tokens"),
        }
    shown = [] if now is None else picks(now, before, causes or {"added": np.empty(0), "dropped": np.empty(0)})
    return _Recipe(run, run_before, now, before, shown, causes, part)


def _opened(view: PoolView, run: Run | None) -> Drawn | None:
    """The selection of a run; None where there is none or it is damaged."""
    if run is None or not run["subject"]:
        return None
    try:
        drawn = Drawn(view, run["subject"])
        drawn.snapshot, drawn.spec  # noqa: B018 - opened while a failure can be caught
    except (StorageError, KeyError):
        return None
    return drawn


def _add_texts(document: dict[str, Any], recipes: list[_Recipe], encoder: str | None) -> None:
    """Add what shows texts: the rows to read and the maps. The texts of a snapshot are read in one pass."""
    points = maps.POINTS // max(len(recipes), 1)
    for_targets = int(points * maps.TARGETS_SHARE)
    wanted: dict[str, list[Ids]] = {}
    snapshots: dict[str, Snapshot] = {}
    places = {}
    for each in recipes:
        assert each.now is not None
        places[id(each)] = maps.shown_places(each.now, points - for_targets)
        own, last = wanted_ids(each.shown)
        _want(wanted, snapshots, each.now, np.concatenate([own, each.now.ids[places[id(each)]]]))
        if each.before is not None and len(last):
            _want(wanted, snapshots, each.before, last)
    texts: dict[bytes, str] = {}
    sources: dict[bytes, str] = {}
    for name, ids in wanted.items():
        _read(snapshots[name], np.unique(np.concatenate(ids)), texts)
    short = {id_: maps.shortened(text) for id_, text in texts.items()}
    pool_maps: dict[str, maps.Map | None] = {}
    for each in recipes:
        assert each.now is not None
        _read_sources(each, sources)
        each.part["rows_to_read"] = [described(pick, texts, sources) for pick in each.shown]
        name = each.now.spec.encoder or encoder
        if name is None:
            continue
        if name not in pool_maps:
            pool_maps[name] = maps.pool_map(each.now, name)
        pool = pool_maps[name]
        if pool is not None:
            document["maps"][name] = pool.document
            each.part["map"] = {
                "encoder": name,
                "selected": maps.selected_points(pool, each.now, places[id(each)], short),
                "targets": maps.target_points(pool, each.now, for_targets),
            }


def _want(wanted: dict[str, list[Ids]], snapshots: dict[str, Snapshot], drawn: Drawn, ids: Ids) -> None:
    inside = rows_of(ids, drawn.snapshot.ids) >= 0
    wanted.setdefault(drawn.snapshot.id, []).append(ids[inside])
    snapshots[drawn.snapshot.id] = drawn.snapshot


def _read(snapshot: Snapshot, ids: Ids, texts: dict[bytes, str]) -> None:
    for batch, conversations in snapshot.turns(ids):
        texts |= {
            id_: text_of([turn for turn in turns if turn[1]])[:2000]
            for id_, turns in zip(batch.tolist(), conversations, strict=True)
        }


def _read_sources(recipe: _Recipe, sources: dict[bytes, str]) -> None:
    for pick in recipe.shown:
        snapshot = pick.drawn.snapshot
        codes, names = column_codes(pick.drawn.view, snapshot, "source")
        row = int(pick.drawn.rows[pick.place])
        if row >= 0:
            sources[pick.id] = str(names[codes[row]])


def _decontamination(store: Store, history: History) -> dict[str, Any] | None:
    run = history.of("decontaminate")
    if run is None or not run["subject"]:
        return None
    try:
        recall = read_recall(store, run["subject"])
    except StorageError:
        recall = []
    return {"status": run["status"], "facts": run["facts"], "recall": recall, "summary": run["summary"]}


def _stages(history: History) -> list[dict[str, Any]]:
    stages = []
    for run in history.stages:
        before = history.before(run["stage"], run["target"])
        keys = ("stage", "target", "status", "seconds", "summary")
        peak = run["facts"].get("peak_memory_bytes")
        stages.append(
            {key: run[key] for key in keys}
            | {"seconds_before": None if before is None else before["seconds"], "peak_memory_bytes": peak}
        )
    return stages


def _commands(history: History, recipes: list[_Recipe]) -> list[dict[str, str]]:
    commands = []
    for each in recipes:
        if each.now is None:
            continue
        name, selection_id = each.run["target"], each.now.selection_id
        commands.append({"what": f"draw {name} again and compare", "command": f"winnow reproduce {selection_id}"})
        if each.before is not None and not each.part["same_selection"]:
            diff = f"winnow diff {each.before.selection_id} {selection_id}"
            commands.append({"what": f"what changed in {name}", "command": diff})
        sql = f"SELECT rank, source, prompt, response, kind, ref, value FROM selection('{selection_id}') LIMIT 20"  # noqa: S608 - to paste
        commands.append({"what": f"the rows of {name}", "command": f'winnow sql "{sql}"'})
        commands.append(
            {
                "what": f"{name} as Parquet",
                "command": f"winnow sql \"FROM selection('{selection_id}')\" --parquet {name}.parquet",
            }
        )
    commands.append({"what": "this report again", "command": f"winnow report {history.invocation}"})
    return commands


def _subject(history: History, stage: str) -> str | None:
    run = history.of(stage) or history.before(stage)
    return None if run is None else run["subject"]


def _changes_table(recipes: list[_Recipe]) -> pa.Table:
    tables = [CHANGES_SCHEMA.empty_table()]
    for each in recipes:
        if each.now is None or each.before is None:
            continue
        added = each.now.ids[~np.isin(each.now.ids, each.before.ids)]
        dropped = each.before.ids[~np.isin(each.before.ids, each.now.ids)]
        for change, ids in (("added", added), ("dropped", dropped)):
            columns = {
                "recipe": pa.array([each.run["target"]] * len(ids), pa.string()),
                "id": to_arrow(ids),
                "change": pa.array([change] * len(ids), pa.string()),
                "cause": pa.array(each.causes[change].tolist(), pa.string()),
            }
            tables.append(pa.table(columns, schema=CHANGES_SCHEMA))
    return pa.concat_tables(tables)
