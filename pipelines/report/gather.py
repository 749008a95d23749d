"""The document of a report: every number and text that its page shows.

    format        1
    run           the run's `invocation`
    created_at    when the report was made, UTC
    store         its folder
    verdict       state (published, partly, held_back), line, problems [stage, status, cause], warnings [the same],
                  setup (a sentence), changed (keys of the configuration, code), recipes, passed, rows, tokens,
                  started_at, finished_at, seconds, seconds_before, config_digest, code_version
    previous_run  the run before that chose something, or null
    pool          snapshot and funnel: stops [key, words, total, rows, before, delta]
    recipes       a list, see below
    maps          encoder -> its map, see `maps.Map.document`
    health        a list: encoder (its name), summary, status, measures [check, passed, detail], groups [group_by, group, rows, cell,
                  share, share_of_sample], largest share first
    decontamination   null, or status, facts, recall [target_set, kind, promised, planted, found, recall]
    labels        projects: project, labels, labelled_rows, annotators, agreement, shared_labels, tied_rows, budget (in
                  words), rounds [round, phase, rows, labelled, cost, stop, open], curve [labelled, accuracy, held_out]
    stages        stage, target, status, seconds, seconds_before, summary
    commands      what, command

A recipe:

    name, status, summary, error, selection_id, steps, rows, budget, unit, tokens, same_selection
    noise_floor   null, or what the selection shares (Jaccard) with one that another seed draws (`noise_floor: true`)
    checks        name, passed, detail, blocking
    funnel        stops, as the pool's
    changes       null on the first selection, or counts: see `changes.changes`
    quality       null without vectors, or see `quality.quality`
    trial         line (the verdict of the newest trial, or `not tried`), effects [target_set, against, verdict, mean, low, high,
                  detectable, examples]
    mix           source [group, selected, before, share, share_of_pool]; language column (null: told by the
                  words of a sample), rows, pool_rows (that were looked at), lines [as source]; quota null, or by, rule,
                  unit, total (the budget), groups, lines [group, selected, wanted, share, share_of_pool]; length
                  [group, rows, quantiles 5, 25, 50, 75, 95 of 100]
    rows_to_read  note, rank, rank_before, id, source, step, why, gain, value, cause, text, ref, ref_text,
                  nearest_target, similarity, target_text
    map           null, or encoder, selected [x, y, rank, text], targets [x, y, target set, text]

`before` and `random` are null, or missing, where there is nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.context import Context
from pipelines.pool_view import PoolView
from pipelines.recipes.drawn import Drawn, column_codes
from pipelines.recipes.explain import excerpt
from pipelines.recipes.noise import ANOTHER_SEED
from pipelines.report import maps
from pipelines.report.changes import Causes, changes, details
from pipelines.report.funnel import pool_funnel, recipe_funnel
from pipelines.report.history import LATEST, History, Run, history_of
from pipelines.report.labels import labels
from pipelines.report.mix import LANGUAGE_ROWS, language_sample, mix
from pipelines.report.quality import quality
from pipelines.report.rows import Pick, described, picks, wanted_ids
from pipelines.report.verdict import verdict
from pipelines.trials.records import trial_part
from selection.types import Rows
from storage.errors import StorageError
from storage.ids import Ids, to_arrow
from storage.pool.contamination import read_recall
from storage.pool.content import Turns, text_of
from storage.pool.snapshot import Snapshot
from storage.reports import CHANGES_SCHEMA
from storage.store import Store, utc_now
from storage.vectors.health import read_health

FORMAT = 1
# Of a row's text that is read to be shortened.
MOST_TEXT = 2000


@dataclass(frozen=True, eq=False)
class _Recipe:
    """A recipe with a selection, while its part of the document is gathered.

    Attributes:
        now, before: this selection and the last one.
        causes: of the rows added and dropped.
        shown: the rows to read.
        part: of the document.
    """

    name: str
    now: Drawn
    before: Drawn | None
    causes: dict[str, Causes]
    shown: list[Pick]
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
    history = history_of(context, name)
    parts = [_part(history, run) for run in history.stages if run["stage"] == "select"]
    recipes = [recipe for part in parts if (recipe := _recipe(view, history, part)) is not None]
    encoder = next((each.now.spec.encoder for each in recipes if each.now.spec.encoder), None)
    document = {
        "format": FORMAT,
        "run": history.invocation,
        "created_at": utc_now(),
        "store": str(store.root),
        "verdict": verdict(store, history),
        "previous_run": history.previous,
        "pool": {"snapshot": _subject(history, "ingest"), "funnel": pool_funnel(history)},
        "recipes": parts,
        "maps": {},
        "health": _health(store, history),
        "decontamination": _decontamination(store, history),
        "labels": labels(context),
        "stages": _stages(history),
        "commands": _commands(history, recipes),
    }
    for each in recipes:
        each.part["trial"] = trial_part(store, each.now.selection_id)
        each.part["quality"] = quality(each.now, each.before, encoder)
    _add_texts(view, document, recipes, encoder)
    return document, _changes_table(recipes)


def _part(history: History, run: Run) -> dict[str, Any]:
    """What the record of a recipe's run says."""
    return {
        "name": run["target"],
        "status": run["status"],
        "summary": run["summary"],
        "error": run["error"],
        "checks": run["checks"],
        "selection_id": run["subject"],
        "same_selection": False,
        "tokens": run["facts"].get("tokens"),
        "noise_floor": run["facts"].get(ANOTHER_SEED),
        "funnel": recipe_funnel(run, history.before("select", run["target"])) if run["facts"] else [],
        **dict.fromkeys(("steps", "rows", "budget", "unit", "changes", "quality", "mix", "map", "trial")),
        "rows_to_read": [],
    }


def _recipe(view: PoolView, history: History, part: dict[str, Any]) -> _Recipe | None:
    """The recipe of a part of the document, which gets what its selection and the last one say; None without a selection."""
    now = _opened(view, part["selection_id"])
    if now is None:
        return None
    last = history.before("select", part["name"])
    before = _opened(view, last["subject"]) if last is not None else None
    part |= {
        "steps": [step.name for step in now.spec.steps],
        "rows": len(now.ids),
        "budget": now.spec.budget,
        "unit": now.spec.constraints.unit,
    }
    causes: dict[str, Causes] = {}
    if before is not None:
        part["same_selection"] = now.selection_id == before.selection_id
        part["changes"], causes = changes(view, now, before)
    return _Recipe(part["name"], now, before, causes, picks(now, before, causes), part)


def _opened(view: PoolView, selection_id: str | None) -> Drawn | None:
    """A selection; None where there is none, or it or its pool is damaged."""
    if selection_id is None:
        return None
    try:
        return Drawn(view, selection_id)
    except (StorageError, KeyError):
        return None


def _add_texts(view: PoolView, document: dict[str, Any], recipes: list[_Recipe], encoder: str | None) -> None:
    """Add what shows texts or their lengths: the mix, the rows to read and the maps. Texts are read in one pass."""
    points = maps.POINTS // max(len(recipes), 1)
    for_targets = int(points * maps.TARGETS_SHARE)
    places = [maps.shown_places(each.now, points - for_targets) for each in recipes]
    samples = [language_sample(each.now, LANGUAGE_ROWS // len(recipes)) for each in recipes]
    texts: dict[bytes, str] = {}
    lengths = _read_texts(recipes, places, samples, texts)
    short = {id_: excerpt(text, maps.TEXT) for id_, text in texts.items()}
    sources: dict[bytes, str] = {}
    pool_maps: dict[str, maps.Map | None] = {}
    for each, shown, sample in zip(recipes, places, samples, strict=True):
        now = each.now
        each.part["mix"] = mix(view, now, each.before, lengths[now.snapshot.id], sample, texts)
        _read_sources(each, sources)
        each.part["rows_to_read"] = [described(pick, texts, sources) for pick in each.shown]
        name = now.spec.encoder or encoder
        if name is None:
            continue
        if name not in pool_maps:
            pool_maps[name] = maps.pool_map(now, name)
        pool = pool_maps[name]
        if pool is not None:
            document["maps"][name] = pool.document
            each.part["map"] = {
                "encoder": name,
                "selected": maps.selected_points(pool, now, shown, short),
                "targets": maps.target_points(pool, now, for_targets),
            }


def _read_texts(
    recipes: list[_Recipe], places: list[Rows], samples: list[tuple[Ids, Ids]], texts: dict[bytes, str]
) -> dict[str, Rows]:
    """Read the texts of all rows that are shown; gives the lengths of all rows of each snapshot that something was drawn from."""
    wanted: dict[str, list[Ids]] = {}
    dropped: dict[str, list[Ids]] = {}
    snapshots: dict[str, Snapshot] = {}
    for each, shown, sample in zip(recipes, places, samples, strict=True):
        own, last = wanted_ids(each.shown)
        wanted.setdefault(each.now.snapshot.id, []).extend([own, each.now.ids[shown], *sample])
        snapshots[each.now.snapshot.id] = each.now.snapshot
        if each.before is not None and len(last):
            dropped.setdefault(each.before.snapshot.id, []).append(last)
            snapshots[each.before.snapshot.id] = each.before.snapshot
    lengths = {}
    for name, ids in wanted.items():
        asked = np.unique(np.concatenate([*ids, *(each for parts in dropped.values() for each in parts)]))
        lengths[name], batches = snapshots[name].lengths_and_turns(asked)
        _keep(batches, texts)
    for name, ids in dropped.items():
        left = np.array([id_ for id_ in np.concatenate(ids).tolist() if id_ not in texts], "S16")
        _keep(snapshots[name].turns(left), texts)
    return lengths


def _keep(batches: Iterable[tuple[Ids, list[Turns]]], texts: dict[bytes, str]) -> None:
    for ids, conversations in batches:
        texts |= {
            id_: text_of([turn for turn in turns if turn[1]])[:MOST_TEXT]
            for id_, turns in zip(ids.tolist(), conversations, strict=True)
        }


def _read_sources(recipe: _Recipe, sources: dict[bytes, str]) -> None:
    for pick in recipe.shown:
        snapshot = pick.drawn.snapshot
        codes, names = column_codes(pick.drawn.view, snapshot, "source")
        row = int(pick.drawn.rows[pick.place])
        if row >= 0:
            sources[pick.id] = str(names[codes[row]])


def _health(store: Store, history: History) -> list[dict[str, Any]]:
    """What the last measurement of each encoder's vectors in this run says."""
    last = {run["target"]: run for run in history.stages if run["stage"] == "health" and run["subject"]}
    return [
        {
            "encoder": encoder,
            "status": run["status"],
            "summary": run["summary"],
            "measures": [
                {"check": check["name"], "passed": check["passed"], "detail": check["detail"]}
                for check in run["checks"]
            ],
            "groups": _groups_of(store, run["subject"]),
        }
        for encoder, run in last.items()
    ]


def _groups_of(store: Store, measurement: str) -> list[dict[str, Any]]:
    try:
        groups = read_health(store, measurement)["groups"]
    except StorageError:
        return []
    return sorted(groups, key=lambda group: -group["share"])


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
    """The last record of each stage; Dagster publishes more than once in a run."""
    last = {(run["stage"], run["target"]): run for run in history.stages}
    stages = []
    for run in last.values():
        before = history.before(run["stage"], run["target"])
        stages.append(
            {key: run[key] for key in ("stage", "target", "status", "seconds", "summary")}
            | {
                "seconds_before": None if before is None else before["seconds"],
                "peak_memory_bytes": run.get("peak_memory_bytes"),
            }
        )
    return stages


def _commands(history: History, recipes: list[_Recipe]) -> list[dict[str, str]]:
    commands = []
    for each in recipes:
        selection = each.now.selection_id
        columns = "rank, source, prompt, response, kind, ref, value"
        sql = f"SELECT {columns} FROM selection('{selection}') LIMIT 20"  # noqa: S608 - to paste
        lines = {
            f"the rows of {each.name}": f'winnow sql "{sql}"',
            f"{each.name} for a trainer": f"winnow export {selection} --to messages --out {each.name}",
            f"draw {each.name} again and compare": f"winnow reproduce {selection}",
        }
        if each.before is not None and not each.part["same_selection"]:
            lines[f"what changed in {each.name}"] = f"winnow diff {each.before.selection_id} {selection}"
        commands += [{"what": what, "command": command} for what, command in lines.items()]
    return [*commands, {"what": "this report again", "command": f"winnow report {history.invocation} --out report"}]


def _subject(history: History, stage: str) -> str | None:
    run = history.of(stage) or history.before(stage)
    return None if run is None else run["subject"]


def _changes_table(recipes: list[_Recipe]) -> pa.Table:
    tables = [CHANGES_SCHEMA.empty_table()]
    for each in recipes:
        if each.before is None:
            continue
        added = each.now.ids[~np.isin(each.now.ids, each.before.ids)]
        dropped = each.before.ids[~np.isin(each.before.ids, each.now.ids)]
        sides = (("added", added, each.now, each.before), ("dropped", dropped, each.before, each.now))
        for change, ids, mine, other in sides:
            columns = {
                "recipe": pa.repeat(pa.scalar(each.name), len(ids)),
                "id": to_arrow(ids),
                "change": pa.repeat(pa.scalar(change), len(ids)),
                "cause": pa.array(each.causes[change].tolist(), pa.string()),
                "detail": pa.array(details(ids, each.causes[change], mine, other), pa.string()),
            }
            tables.append(pa.table(columns, schema=CHANGES_SCHEMA))
    return pa.concat_tables(tables)
