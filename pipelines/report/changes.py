"""What changed between two selections of a recipe, and why: one cause for each row added or dropped.

A row that is in one of the two selections is explained from the other one: why is it not in there? The first of these
that holds is the cause:

1. it is not in that selection's pool: its own id is there with another text (`changed_text`), or not (`new_row`,
   `gone`);
2. a rule keeps it out there (`outside_where`, `denied`, `contaminated`, ...; see `eligible.RULES`);
3. a filter of that recipe dropped it there (`dropped_by_<step>`),
   or that selection's `max_churn` held it back (`held_by_max_churn`);
4. the row that pulled it is not there (`its_anchor`), or the example, of a target set that both have (`its_target`);
   or something that the scores depend on is not the same in both: the encoder (`encoder`), the targets, classifier,
   model or columns (`score`);
5. the recipe is not the same: its quota (`quota`), budget (`budget`), steps or other keys (`recipe`), only its seed or
   round (`seed`), or only the version of a step's algorithm (`code`);
6. its group of the quota got more or fewer rows (`quota`), the highest ranked as many as it gained or lost;
7. it had to make room: a sticky draw has no place for it within a constraint (`no_place`);
8. nothing of this: other rows of the pool are new or gone, and the steps took it, or another one, by their result
   (`moved_up`, `pushed_out`).

So a row has one cause even where several would do, and 4 and 5 say what changed, not that the row would have stayed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.pool_view import PoolView
from pipelines.recipes.draw import named_as_now
from pipelines.recipes.drawn import Drawn, quota_groups
from pipelines.recipes.eligible import RULES
from pipelines.recipes.spec import IdList, SelectionSpec
from pipelines.recipes.top_up import FACTS
from selection.constraints import Quota
from selection.registry import recorded_spec
from selection.sticky import HELD_BACK, NO_PLACE, REPLACED
from selection.types import Rows
from storage.errors import StorageError
from storage.ids import Ids, from_text, rows_of, to_text
from storage.pool.contamination import contaminated_ids
from storage.pool.leaks import Questions
from storage.pool.snapshot import Snapshot
from storage.vectors.segments import failed_ids

Causes = npt.NDArray[np.object_]
Mask = npt.NDArray[np.bool_]
# Cause -> in words, of a row added and of a row dropped.
WORDS = {
    "new_row": ("new in the pool", ""),
    "gone": ("", "left the pool"),
    "changed_text": ("its text changed", "its text changed"),
    "without_vector": ("had no vector", "has no vector now"),
    "outside_where": ("was outside of the where condition", "outside of the where condition now"),
    "not_allowed": ("was not in the allow list", "not in the allow list now"),
    "denied": ("was in the deny list", "in the deny list now"),
    "equal_to_a_target": ("counted as holding what a target asks", "holds what a target asks"),
    "contaminated": ("counted as holding an evaluation text", "holds an evaluation text"),
    "held_by_max_churn": ("was held back by max_churn", "held back by max_churn"),
    "encoder": ("the encoder changed", "the encoder changed"),
    "its_target": ("the target that pulls it is new or changed", "the target that pulled it is gone or changed"),
    "its_anchor": ("the row that pulls it is new", "the row that pulled it left the pool"),
    "score": ("scores changed: targets, classifier, model or columns",) * 2,
    "quota": ("its group of the quota got more", "its group of the quota got less"),
    "budget": ("the budget changed", "the budget changed"),
    "recipe": ("the recipe's steps or keys changed",) * 2,
    "seed": ("the seed or round changed",) * 2,
    "code": ("another version of a step's algorithm",) * 2,
    "no_place": ("", "no place for it within a constraint"),
    "moved_up": ("taken now: the rows around it changed", ""),
    "pushed_out": ("", "pushed out by other rows"),
}
ADDED, DROPPED = 0, 1
# The keys of a spec that scores depend on, beside the snapshot's columns.
_OF_SCORES = ("targets", "target_encoders", "probabilities", "scores")
_OF_RECIPE = ("steps", "allow_short", "tokenizer", "group_by", "max_per_group", "max_churn")
_OF_SEED = ("seed", "round")


def words_of(cause: str, change: int) -> str:
    """A cause in words.

    >>> words_of("gone", DROPPED), words_of("dropped_by_semdedup", ADDED)
    ('left the pool', 'semdedup dropped it')
    """
    if cause.startswith("dropped_by_"):
        return f"{cause.removeprefix('dropped_by_')} {'dropped it' if change == ADDED else 'drops it now'}"
    return WORDS[cause][change]


def changes(view: PoolView, now: Drawn, before: Drawn) -> tuple[dict[str, Any], dict[str, Causes]]:
    """What changed from `before` to `now`: counts for the document, and the causes of `added` and `dropped` in their order."""
    place = _places(now.ids, before.ids)
    kept = place >= 0
    added, dropped = now.ids[~kept], before.ids[~np.isin(before.ids, now.ids)]
    causes = {
        "added": explained(view, added, now, before, ADDED),
        "dropped": explained(view, dropped, before, now, DROPPED),
    }
    moves = place[kept] - np.flatnonzero(kept)
    union = len(now.ids) + len(dropped)
    return {
        "previous": before.selection_id,
        "same_selection": now.selection_id == before.selection_id,
        "kept": int(kept.sum()),
        "added": len(added),
        "dropped": len(dropped),
        "jaccard": round(int(kept.sum()) / union, 4) if union else 1.0,
        "kept_by_top_up": _kept_by_top_up(now),
        "sticky": _sticky(now),
        "kept_at_same_rank": int((moves == 0).sum()),
        "median_rank_move": int(np.median(np.abs(moves))) if len(moves) else None,
        "inputs_changed": inputs_changed(now.spec, before.spec),
        "added_causes": _counted(causes["added"], ADDED),
        "dropped_causes": _counted(causes["dropped"], DROPPED),
    }, causes


def explained(view: PoolView, ids: Ids, mine: Drawn, other: Drawn, change: int) -> Causes:
    """(n,) the cause for each of some ids of `mine` that `other` does not have; in the order of the module's list."""
    causes: Causes = np.full(len(ids), "", object)
    if not len(ids):
        return causes

    def explain(mask: Mask, cause: str) -> None:
        causes[mask & (causes == "")] = cause

    inside = rows_of(ids, other.snapshot.ids) >= 0
    explain(~inside & (_by_own_id(ids, mine, other) >= 0), "changed_text")
    explain(~inside, "new_row" if change == ADDED else "gone")
    for rule, mask in _kept_out(view, ids, inside, mine, other):
        explain(mask, rule)
    for step, dropped in other.dropped.items():
        explain(rows_of(ids, dropped) >= 0, f"dropped_by_{step}")
    explain(_with_line(ids, other, HELD_BACK), "held_by_max_churn")
    for cause, mask in _pulled_by_others(ids, mine, other):
        explain(mask, cause)
    different = _difference(mine, other)
    if different is None:
        explain(_of_groups(view, ids, mine, other, causes), "quota")
        explain(_with_line(ids, other, NO_PLACE), "no_place")
        different = "moved_up" if change == ADDED else "pushed_out"
    explain(np.ones(len(ids), bool), different)
    return causes


def details(ids: Ids, causes: Causes, mine: Drawn, other: Drawn) -> list[str | None]:
    """What more there is to say of the cause of each row: the key that changed, the condition, the other row.

    Args:
        ids, causes: as `explained` takes and gives them.
    """
    detail_of: dict[str, str | None] = {}
    for cause in dict.fromkeys(causes.tolist()):
        detail_of[cause] = _detail(cause, mine.spec, other.spec)
    own = _texts(other.snapshot, _by_own_id(ids, mine, other)) if "changed_text" in detail_of else [None] * len(ids)
    pulled = _refs(ids, mine)
    lines: list[str | None] = []
    for place, (id_, cause) in enumerate(zip(ids.tolist(), causes.tolist(), strict=True)):
        line = other.sticky.get(id_)
        if cause == "changed_text":
            lines.append(own[place])
        elif cause in ("its_target", "its_anchor"):
            lines.append(pulled[place][1])
        elif line is not None and line.kind == REPLACED and line.ref is not None:
            lines.append(", ".join(filter(None, [detail_of[cause], f"replaced by {line.ref}"])))
        elif line is not None and cause == "no_place":
            lines.append(line.ref)
        else:
            lines.append(detail_of[cause])
    return lines


def _detail(cause: str, mine: SelectionSpec, other: SelectionSpec) -> str | None:
    """What changed, of a cause that is the same for all its rows."""
    if cause == "outside_where":
        return other.where
    if cause in ("not_allowed", "denied"):
        listed = other.allow if cause == "not_allowed" else other.deny
        return None if listed is None else listed.file
    keys = {
        "score": _OF_SCORES,
        "quota": ("quota",),
        "budget": ("budget", "tokens"),
        "recipe": _OF_RECIPE,
        "seed": _OF_SEED,
    }
    ours, theirs = mine.record(), other.record()
    changed = [key for key in keys.get(cause, ()) if ours.get(key) != theirs.get(key)]
    return ", ".join(changed) or None


def _by_own_id(ids: Ids, mine: Drawn, other: Drawn) -> Rows:
    """(n,) the row of `other`'s snapshot with the own id, in its file, of each of some ids of `mine`; -1 for none."""
    rows = np.full(len(ids), -1, np.int64)
    away = np.flatnonzero(rows_of(ids, other.snapshot.ids) < 0)
    own = mine.snapshot.given_ids(ids[away]) if len(away) else []
    named = [(place, name) for place, name in zip(away.tolist(), own, strict=True) if name is not None]
    if named:
        match = other.snapshot.match([name for _, name in named])
        rows[[place for place, _ in named]] = match.rows
    return rows


def _texts(snapshot: Snapshot, rows: Rows) -> list[str | None]:
    """The ids of some rows as texts; None for -1."""
    names = iter(to_text(snapshot.ids[rows[rows >= 0]]))
    return [next(names) if row >= 0 else None for row in rows.tolist()]


def _refs(ids: Ids, drawn: Drawn) -> list[tuple[str, str | None]]:
    """The kind and `ref` of the items of some ids that a selection has."""
    places = _places(ids, drawn.ids)
    kinds, refs = (drawn.items[column].to_pylist() for column in ("kind", "ref"))
    return [(kinds[place], refs[place]) for place in places.tolist()]


def _pulled_by_others(ids: Ids, mine: Drawn, other: Drawn) -> Iterator[tuple[str, Mask]]:
    """Cause -> (n,) which rows of `mine` were pulled by a target, or by a row, that `other` does not have."""
    pulled = _refs(ids, mine)
    if mine.spec.targets != other.spec.targets:
        ours, theirs = mine.target_texts, other.target_texts
        shared = tuple(f"{name}/" for name in mine.spec.targets if name in other.spec.targets)
        gone = {ref for ref, text in ours.items() if ref.startswith(shared) and theirs.get(ref) != text}
        yield "its_target", np.array([kind == "target" and ref in gone for kind, ref in pulled], bool)
    refs = [ref if kind == "anchor" else None for kind, ref in pulled]
    anchors = sorted({ref for ref in refs if ref is not None})
    if anchors:
        inside = rows_of(from_text(anchors), other.snapshot.ids) >= 0
        gone = {anchor for anchor, is_there in zip(anchors, inside.tolist(), strict=True) if not is_there}
        yield "its_anchor", np.array([ref in gone for ref in refs], bool)


def _with_line(ids: Ids, drawn: Drawn, kind: str) -> Mask:
    """(n,) of which rows a sticky draw says so."""
    lines = [drawn.sticky.get(id_) for id_ in ids.tolist()] if drawn.sticky else [None] * len(ids)
    return np.array([line is not None and line.kind == kind for line in lines], bool)


def inputs_changed(now: SelectionSpec, before: SelectionSpec) -> list[str]:
    """The keys of the specs that differ: `snapshot`, `where`, `steps`, ..."""
    ours, theirs = _settings(now, before), _settings(before, now)
    return sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key) and key != "previous")


def _settings(spec: SelectionSpec, other: SelectionSpec) -> dict[str, Any]:
    """The record of a spec to compare with another's; the first draw of a sticky recipe has nothing to stick to."""
    record = spec.record()
    if spec.previous is None or other.previous is None:
        record.pop("max_churn", None)
    return record


def _kept_out(view: PoolView, ids: Ids, inside: Mask, mine: Drawn, other: Drawn) -> Iterator[tuple[str, Mask]]:
    """Rule -> (n,) which of some ids it keeps out of a selection; `RULES` in their order, as far as they can be told.

    A rule on the row alone that both selections have is not asked: it let the row into one of them.
    """
    spec, snapshot = other.spec, other.snapshot
    rows = rows_of(ids, snapshot.ids)
    same_columns = mine.snapshot.columns == snapshot.columns and mine.spec.scores == spec.scores
    same_where = mine.spec.where == spec.where and same_columns

    def masked(kept_out: Rows | Mask) -> Mask:
        of_row = np.zeros(len(snapshot), bool)
        of_row[kept_out] = True
        return np.asarray(inside & of_row[np.maximum(rows, 0)])

    for rule in RULES:
        if rule == "without_vector" and spec.encoder is not None:
            yield rule, inside & np.isin(ids, failed_ids(view.store, spec.encoder, ids))
        elif rule == "outside_where" and spec.where is not None and not same_where:
            yield rule, masked(~_satisfied(view, other))
        elif rule == "not_allowed" and (allowed := _named(snapshot, spec.allow)) is not None:
            yield rule, masked(np.setdiff1d(np.arange(len(snapshot)), allowed))
        elif rule == "denied" and (denied := _named(snapshot, spec.deny)) is not None:
            yield rule, masked(denied)
        elif rule == "equal_to_a_target" and spec.held_out != mine.spec.held_out and inside.any():
            yield rule, np.isin(ids, _askers(view, ids[inside], other))
        elif rule == "contaminated" and spec.contamination is not None:
            yield rule, inside & np.isin(ids, contaminated_ids(view.store, spec.contamination))


def _satisfied(view: PoolView, other: Drawn) -> Mask:
    where = other.spec.where
    assert where is not None
    snapshot = view.with_scores(other.snapshot, other.spec.scores)
    return view.once("where", f"{snapshot.id} {where}", lambda: snapshot.where(where))


def _named(snapshot: Snapshot, ids: IdList | None) -> Rows | None:
    """The rows that a list of ids names; None without a list, and where its file is not what it was."""
    try:
        rows = None if ids is None else snapshot.rows_named(Path(ids.file), strict=False)[0]
    except (StorageError, OSError):
        return None
    return rows if rows is not None and ids is not None and snapshot.digest_of(rows) == ids.digest else None


def _askers(view: PoolView, ids: Ids, other: Drawn) -> Ids:
    """Those of some ids that hold what a target asks."""
    targets = [turns for name in other.spec.held_out for turns in view.target_set_of(name).conversations]
    questions = Questions(targets)
    holds = [
        ids_of_batch[[questions.asked_in(turns) for turns in batch]]
        for ids_of_batch, batch in other.snapshot.turns(ids)
    ]
    return np.concatenate([np.empty(0, "S16"), *holds])


def _difference(mine: Drawn, other: Drawn) -> str | None:
    """What of two specs is not the same, the first of the module's list; None if nothing but the pool and its rules is."""
    ours, theirs = _parts(mine, other), _parts(other, mine)
    different = next((part for part in ours if ours[part] != theirs[part]), None)
    is_code = different == "recipe" and {**ours["recipe"], "steps": None} == {**theirs["recipe"], "steps": None}
    if is_code and _without_version(mine.spec) == _without_version(other.spec):
        return "code"
    return different


def _parts(drawn: Drawn, other: Drawn) -> dict[str, Any]:
    """Cause -> what of a selection it stands for, the most telling first."""
    spec, snapshot = drawn.spec, drawn.snapshot
    imported = set(snapshot.columns) if spec.columns & set(snapshot.known_columns()) else set()
    record = _settings(spec, other.spec)
    return {
        "encoder": spec.encoder,
        "score": [*(record.get(key) for key in _OF_SCORES), imported],
        "quota": record["quota"],
        "budget": [record["budget"], record["tokens"]],
        "recipe": {key: record.get(key) for key in _OF_RECIPE},
        "seed": [record[key] for key in _OF_SEED],
    }


def _without_version(spec: SelectionSpec) -> list[Any]:
    steps = [item for step in spec.steps for item in recorded_spec(step).items()]
    return [(name, {key: value for key, value in options.items() if key != "version"}) for name, options in steps]


def _of_groups(view: PoolView, ids: Ids, mine: Drawn, other: Drawn, causes: Causes) -> Mask:
    """(n,) the highest ranked rows without a cause of each group of the quota, as many as the group has more than in `other`."""
    mask = np.zeros(len(ids), bool)
    quota = mine.spec.constraints.quota
    if quota is None or quota.predicts:
        return mask
    groups = _groups(view, mine, quota)
    left = Counter(groups) - Counter(_groups(view, other, quota))
    of_id = dict(zip(mine.ids.tolist(), groups, strict=True))
    left.subtract(of_id[id_] for id_ in ids[causes != ""].tolist())
    for place in np.flatnonzero(causes == "").tolist():
        group = of_id[ids[place]]
        if left[group] > 0:
            mask[place] = True
            left[group] -= 1
    return mask


def _groups(view: PoolView, drawn: Drawn, quota: Quota) -> list[str]:
    """The name of each selected row's group, in pick order."""
    group, names = quota_groups(view, drawn, quota)
    return [names[place] if place >= 0 else "" for place in group[drawn.rows].tolist()]


def _kept_by_top_up(now: Drawn) -> int | None:
    """The rows that a top-up kept; None in other modes."""
    if now.spec.previous is None or now.spec.max_churn is not None:
        return None
    return int(named_as_now(now.header["facts"]).get("kept_by_top_up", 0))


def _sticky(now: Drawn) -> dict[str, Any] | None:
    """What a sticky draw counted, and its `max_churn`; None in other modes."""
    if now.spec.previous is None or now.spec.max_churn is None:
        return None
    facts = now.header["facts"]
    counts = {key.removeprefix("sticky_"): facts[key] for key in (*FACTS, "sticky_could_not_stay")}
    return {"max_churn": now.spec.max_churn, **counts}


def _places(ids: Ids, of: Ids) -> npt.NDArray[np.int64]:
    """(n,) the place of each id among others, -1 where it is not there."""
    order = np.argsort(of, kind="stable")
    rows = rows_of(ids, of[order])
    return np.where(rows >= 0, order[np.maximum(rows, 0)] if len(order) else -1, -1)


def _counted(causes: Causes, change: int) -> list[dict[str, Any]]:
    counts = Counter(causes.tolist())
    return [{"cause": cause, "words": words_of(cause, change), "rows": rows} for cause, rows in counts.most_common()]
