"""`winnow gc`: what of the store may go, and its removal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.config.schema import Config
from pipelines.context import Context
from pipelines.costs import as_bytes
from pipelines.messages import counted
from pipelines.recipes.spec import encoders_of, models_of, models_of_project
from pipelines.runs import exports, runs
from pipelines.upkeep.pins import PIN, UNPIN, pinned
from storage.errors import StoreDamaged
from storage.upkeep.garbage import NEEDED, YOUNG, Sorted, remove, sort_out

DAY_S = 24 * 3600
# Stages whose target is an encoder.
_OF_ENCODERS = ("embed", "embed_targets", "health", "index")


@dataclass(frozen=True)
class Cleaning:
    """What `winnow gc` would remove, or has removed.

    Attributes:
        removed: an entry for each kind: `kind`, `things`, `size`.
        kept: an entry for each kind and reason: `kind`, `why`, `things`, `size`.
        summary: a sentence for the user.
    """

    removed: list[dict[str, Any]]
    kept: list[dict[str, Any]]
    summary: str


def collect(context: Context, keep_nights: int, *, delete: bool = False) -> Cleaning:
    """Say what of the store may go, and remove it if asked to.

    Args:
        keep_nights: what was made, or was the result of a run, in so many days stays.
        delete: remove it; else nothing is changed.

    Raises:
        StoreBusy: something is to be removed, and a run is under way.
        StoreDamaged: a record that stays, or one of a run, cannot be read, so that it is not known what must stay.
    """
    store = context.store
    if not delete:
        return _described(_sorted_out(context, keep_nights), keep_nights, delete=False)
    with store.alone("winnow gc"):
        plan = _sorted_out(context, keep_nights)
        described = _described(plan, keep_nights, delete=True)  # sizes, before they are gone
        if plan.removable:
            remove(store, plan.removable)
        store.sweep()  # also what one had moved away that was killed at its very end
    return described


def _sorted_out(context: Context, keep_nights: int) -> Sorted:
    since = time.time() - keep_nights * DAY_S
    return sort_out(context.store, _roots(context, since), since)


def _roots(context: Context, since: float) -> dict[str, str]:
    """Names of what stays -> why; the first reason counts."""
    store = context.store
    roots = dict.fromkeys(pinned(store), "pinned")
    history = list(runs(store))
    damaged = [damage for folder, damage in store.damaged.items() if folder.parent.name == "runs"]
    if damaged:
        raise StoreDamaged(
            f"{damaged[0]}; it may say what has to stay, so nothing is removed. `winnow run` puts it aside"
        )
    for out, selection in exports(store).items():
        roots.setdefault(selection or "", f"exported to {out}")
    used = _targets_in_use(context.config)
    seen: set[tuple[str, str | None]] = set()
    for run in history:
        stage, target = run["stage"], run["target"]
        if run["status"] != "ok" or (stage, target) in seen or target not in used.get(stage, {target}):
            continue
        seen.add((stage, target))
        roots.setdefault(run["subject"], "latest of " + (f"{stage} {target}" if target else stage))
    oldest = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(since))
    for run in history:
        if (run["started_at"] or "") > oldest and run["stage"] not in (PIN, UNPIN):
            roots.setdefault(run["subject"], YOUNG)
            roots.setdefault(run.get("config_digest") or "", YOUNG)
    roots.setdefault(context.config.digest, "the configuration now")
    return {name: why for name, why in roots.items() if name}


def _targets_in_use(config: Config) -> dict[str, set[str]]:
    """Stage -> the targets of which the last result is still in use."""
    recipes, projects = list(config.recipes), config.labeling
    encoders = {*encoders_of(config, recipes), *(project.encoder for project in projects.values())}
    encoders |= {config.searched_encoder, *(each.encoder for each in config.classifiers.values())}
    models = {*models_of(config, recipes), *(model for name in projects for model in models_of_project(config, name))}
    used: dict[str, Any] = {
        **dict.fromkeys(_OF_ENCODERS, encoders),
        **dict.fromkeys(("pull", "fit", "push"), projects),
        "select": recipes,
        "export": config.exports,
        "token_scores": models,
        "fit_classifier": config.classifiers,
        PIN: (),
        UNPIN: (),
    }
    return {stage: {*targets} - {None} for stage, targets in used.items()}


def _described(plan: Sorted, keep_nights: int, *, delete: bool) -> Cleaning:
    removed, sizes = Counter[str](), Counter[str]()
    for item in plan.removable:
        removed[item.kind] += 1
        sizes[item.kind] += item.size_bytes
    total, count = sum(sizes.values()), sum(removed.values())
    done = "removed" if delete else "would be removed"
    summary = f"{counted(count, 'thing')} of {as_bytes(total)} {done}"
    if count and not delete:
        summary += "; nothing was changed. To remove them: winnow gc --delete"
    young = f"not older than {counted(keep_nights, 'night')}"
    return Cleaning(
        [{"kind": kind, "things": removed[kind], "size": as_bytes(sizes[kind])} for kind in removed],
        list(_kept(plan, young)),
        summary,
    )


def _kept(plan: Sorted, young: str) -> Iterator[dict[str, Any]]:
    counts, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for item, why in plan.kept:
        key = item.kind, young if why == YOUNG else why
        counts[key] += 1
        # What lies within an encoder is counted as its segments.
        sizes[key] += item.size_bytes if item.kind != "encoders" else 0
    for (kind, why), things in sorted(counts.items(), key=lambda entry: (entry[0][0], entry[0][1] == NEEDED)):
        yield {"kind": kind, "why": why, "things": things, "size": as_bytes(sizes[kind, why])}
