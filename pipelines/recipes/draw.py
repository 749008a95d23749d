"""Carry out a drawing: assemble the pool, select, turn rows back into ids, commit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.config.schema import Recipe, TokenBudget
from pipelines.context import Context
from pipelines.labeling.annotations import Annotations, read_annotations
from pipelines.labeling.costs import payable
from pipelines.labeling.inputs import RULES as LEARNED_RULES
from pipelines.labeling.inputs import bring
from pipelines.recipes.spec import SelectionSpec, digest, recorded, resolve
from pipelines.runs import code_version
from selection import Constraints, Pool, Selection, Targets, select
from selection.encoders import load_token_counter, tokenizer_fingerprint
from selection.errors import InvalidInput
from selection.metrics import coverage
from selection.registry import parse_steps, required
from selection.types import FilterReport, Input, Reason
from selection.vectors import exact, on_gpu
from storage import ids as idlib
from storage.errors import BadInput
from storage.ids import Ids
from storage.pool.snapshot import Snapshot, open_snapshot
from storage.pool.targets import TargetSet, open_targets
from storage.pool.token_counts import MISSING, commit_counts, read_counts
from storage.records import commit_metrics, commit_selection, read_selection
from storage.vectors.segments import StoredVectors

# Why a row is kept out of a draw, in the order in which the rules are applied.
RULES = ("without_vector", "outside_where", "not_allowed", "denied", "equal_to_a_target", *LEARNED_RULES)
# How the fact is called that tells how many rows a filter dropped as copies or outliers.
DROPPED_BY = "dropped_by_"

Mask = npt.NDArray[np.bool_]
Facts = dict[str, int | float]
# Multiply-adds of a coverage measurement that is worth its time: a few seconds.
COVERAGE_COST = 2e11


@dataclass(frozen=True)
class SelectionResult:
    """A committed selection.

    Attributes:
        facts: rows of the pool, how many each rule kept out of the draw, kept and new rows.
        new: it was drawn now; False when the record was there.
    """

    drawing: SelectionSpec
    ids: Ids
    facts: Facts
    exhausted: bool
    new: bool


def draw(context: Context, name: str) -> SelectionResult:
    """Draw the recipe `name` on the pool as it is and commit the selection, unless the same one is there.

    Raises:
        NothingYet: nothing was ingested.
        NotInStore: vectors are missing.
        SelectionError: the steps cannot be run on this pool.
    """
    return run_selection(context, resolve(context, name), context.config.recipes[name], name)


def run_selection(
    context: Context, drawing: SelectionSpec, recipe: Recipe, name: str, answers: Annotations | None = None
) -> SelectionResult:
    """Draw and commit the selection, unless the same one is there.

    Args:
        name: what the record says that it was drawn for.
        answers: what the drawing's arm of a round of labeling knows.
    """
    if context.store.has("records", "selections", drawing.selection_id):
        header, items = read_selection(context.store, drawing.selection_id)
        return SelectionResult(drawing, idlib.from_arrow(items["id"]), header["facts"], header["exhausted"], new=False)
    began = time.monotonic()
    if isinstance(recipe.budget, TokenBudget) and recipe.budget.tokenizer:
        count_tokens(context, recipe.budget.tokenizer, open_snapshot(context.store, drawing.snapshot))
    items, told, facts, exhausted = _drawn(context, drawing, recipe.allow, recipe.deny, answers)
    metrics = _coverage(context, drawing, items)
    facts |= metrics
    header = asdict(drawing) | {
        "selection_id": drawing.selection_id,
        "recipe": name,
        "allow_file": recipe.allow,
        "deny_file": recipe.deny,
        "label_imports": answers.imports if answers is not None else None,
        "exhausted": exhausted,
        "facts": facts,
        "seconds": round(time.monotonic() - began, 3),
        "code_version": code_version(),
    }
    if metrics:  # before the selection: once that is there, nothing is measured again
        commit_metrics(context.store, drawing.selection_id, metrics)
    commit_selection(context.store, header, items, **told)
    return SelectionResult(drawing, idlib.from_arrow(items["id"]), facts, exhausted, new=True)


def _coverage(context: Context, drawing: SelectionSpec, items: pa.Table) -> dict[str, float]:
    """How well the pool is covered, where the recipe has vectors and measuring is quick."""
    if drawing.encoder is None or drawing.arm is not None or not len(items):
        return {}
    snapshot = open_snapshot(context.store, drawing.snapshot)
    vectors = StoredVectors(context.store, drawing.encoder, snapshot.ids, snapshot=snapshot.id)
    if len(snapshot) * len(items) * vectors.shape[1] > COVERAGE_COST:
        return {}
    measured = coverage(vectors, idlib.rows_of(idlib.from_arrow(items["id"]), snapshot.ids))
    return {
        "coverage_radius": round(measured.radius, 6),
        "coverage_mean_distance": round(measured.mean_distance, 6),
        "coverage_mean_similarity": round(measured.mean_similarity, 6),
    }


def replay(context: Context, header: dict[str, Any]) -> pa.Table:
    """Draw again what a record describes; gives the items, commits nothing.

    Raises:
        BadInput: its list of allowed or denied ids, or its labels, have changed since.
    """
    drawing = recorded(header)
    snapshot = open_snapshot(context.store, drawing.snapshot)
    for key, file in (("allow", header["allow_file"]), ("deny", header["deny_file"])):
        if digest(file, snapshot, strict=key == "allow") != getattr(drawing, key):
            raise BadInput(f"the `{key}` list {file} is not the one of the record: it has changed since")
    answers = None
    if drawing.arm is not None:
        arm = drawing.arm
        answers = read_annotations(context.store, arm.project, arm.classes, arm.aggregate, header["label_imports"])
        if answers.digest != arm.labels:
            raise BadInput(f"the labels of {arm.project} up to import {answers.imports} are not those of the record")
    return _drawn(context, drawing, header["allow_file"], header["deny_file"], answers)[0]


def contaminated(snapshot: Snapshot, targets: Iterable[TargetSet]) -> Mask:
    """(n,) the rows whose prompt is word for word the prompt of a target: training on them would leak the test."""
    prompts = sorted({prompt for target in targets for prompt in target.prompts})
    return snapshot.prompts_in(prompts) if prompts else np.zeros(len(snapshot), np.bool_)


def _drawn(
    context: Context, drawing: SelectionSpec, allow: str | None, deny: str | None, answers: Annotations | None
) -> tuple[pa.Table, dict[str, pa.Table | None], Facts, bool]:
    """Select; the items, what filters dropped and found, what was counted on the way, and whether the pool was exhausted."""
    store = context.store
    snapshot = open_snapshot(store, drawing.snapshot)
    wanted, columns = required(parse_steps(drawing.steps))
    constraints = drawing.constraints
    vectors = None
    if drawing.encoder is not None:
        vectors = StoredVectors(store, drawing.encoder, snapshot.ids, snapshot=snapshot.id, index=drawing.index)
    brought = None if answers is None else bring(store, drawing, answers, snapshot, wanted | constraints.needs)
    eligible, facts = _eligible(context, drawing, snapshot, vectors, allow, deny, brought.rules if brought else {})
    targets = _targets(context, drawing) if Input.TARGETS in wanted else None
    pool = Pool(
        vectors=None if vectors is None else on_gpu(vectors if drawing.index else exact(vectors)),
        probabilities=brought.probabilities if brought else None,
        committee=brought.committee if brought else None,
        labels=brought.labels if brought else None,
        targets=brought.on_targets(targets) if brought and targets else targets,
        texts=snapshot.texts() if Input.TEXTS in wanted else None,
        columns=_columns(drawing, snapshot, columns | constraints.columns),
        keys=idlib.keys(snapshot.ids),
        eligible=eligible,
    )
    cost = constraints.costs(pool)
    kept = _kept(context, drawing, snapshot, eligible, cost)
    pool = replace(pool, already_selected=kept.rows if brought is None else brought.labelled)
    left = max(drawing.budget - math.ceil(cost[kept.rows].sum()), 0)
    with _named_by_id(snapshot.ids):
        fresh = select(
            drawing.steps,
            pool,
            budget=left if drawing.tokens is None else {"tokens": left, "column": drawing.tokens},
            seed=drawing.seed,
            round=drawing.round,
            allow_short=drawing.allow_short,
            quota=drawing.quota,
            group_by=drawing.group_by,
            max_per_group=drawing.max_per_group,
        )
    if drawing.arm is not None and drawing.arm.purse is not None:
        fresh = _first(fresh, payable(drawing.arm.purse, fresh.rows, snapshot))
    facts |= {"kept_from_last": len(kept.rows), "new_rows": len(fresh.rows)}
    facts |= _counted(constraints, pool, cost, np.concatenate([kept.rows, fresh.rows]))
    facts |= {f"{DROPPED_BY}{one.step}": len(one.rows) for one in fresh.dropped}
    items = pa.concat_tables([_items(kept, snapshot.ids), _items(fresh, snapshot.ids)])
    ranks = pa.array(np.arange(1, len(items) + 1, dtype=np.uint32))
    told = {"dropped": _told(fresh.dropped, snapshot.ids), "found": _told(fresh.found, snapshot.ids)}
    return items.add_column(0, "rank", ranks), told, facts, fresh.exhausted


@contextmanager
def _named_by_id(ids: Ids) -> Iterator[None]:
    """A row that a step blames is named by its id, which a person can look up."""
    try:
        yield
    except InvalidInput as error:
        if error.row is None:
            raise
        raise InvalidInput(error.template.replace("{row}", idlib.to_text(ids[[error.row]])[0])) from error


def _eligible(
    context: Context,
    drawing: SelectionSpec,
    snapshot: Snapshot,
    vectors: StoredVectors | None,
    allow: str | None,
    deny: str | None,
    more: Mapping[str, Mask],
) -> tuple[Mask, Facts]:
    """Which rows may be drawn, and how many each rule keeps out of the draw; `more` rules come last."""
    eligible = np.ones(len(snapshot), dtype=np.bool_)
    facts: Facts = {"pool": len(snapshot)}

    def restrict(name: str, rule: Mask) -> None:
        before = int(eligible.sum())
        eligible[~rule] = False
        facts[name] = before - int(eligible.sum())

    if vectors is not None:
        restrict("without_vector", ~_at(vectors.failed_rows, snapshot))
    if drawing.where is not None:
        restrict("outside_where", snapshot.where(drawing.where))
    if allow is not None:
        restrict("not_allowed", _at(snapshot.rows_named(Path(allow))[0], snapshot))
    if deny is not None:
        # A list of what was used or labelled before outlives rows of the pool.
        denied, facts["deny_unknown"] = snapshot.rows_named(Path(deny), strict=False)
        restrict("denied", ~_at(denied, snapshot))
    if drawing.held_out:
        held_out = [open_targets(context.store, one) for one in drawing.held_out]
        restrict("equal_to_a_target", ~contaminated(snapshot, held_out))
    for name, rule in more.items():
        restrict(name, rule)
    facts["eligible"] = int(eligible.sum())
    return eligible, facts


def _first(drawn: Selection, count: int) -> Selection:
    """The first picks of a selection."""
    rows = drawn.rows[:count]
    return replace(
        drawn,
        rows=rows,
        gain=drawn.gain[:count],
        reason=drawn.reason.take(np.arange(len(rows))),
        found=tuple(one.of(rows) for one in drawn.found),
    )


def _at(rows: npt.NDArray[np.int64], snapshot: Snapshot) -> Mask:
    mask = np.zeros(len(snapshot), np.bool_)
    mask[rows] = True
    return mask


def count_tokens(context: Context, tokenizer: str, snapshot: Snapshot) -> None:
    """Count the tokens of the rows of which the store does not know them yet."""
    fingerprint = tokenizer_fingerprint(tokenizer)
    lacking = snapshot.ids[read_counts(context.store, fingerprint, snapshot.ids) == MISSING]
    if not len(lacking):
        return
    counter = load_token_counter(tokenizer)
    done = 0
    for ids, turns in snapshot.turns(lacking):
        commit_counts(context.store, fingerprint, ids, counter.counts(turns))
        done += len(ids)
        context.report.progress(f"count tokens with {tokenizer}", done, len(lacking))


def _columns(drawing: SelectionSpec, snapshot: Snapshot, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """The columns by name; that of the tokens from the store where a tokenizer counted them."""
    return {
        name: read_counts(snapshot.store, drawing.tokenizer, snapshot.ids)
        if drawing.tokenizer is not None and name == drawing.tokens
        else snapshot.column(name)
        for name in sorted(names)
    }


def _counted(constraints: Constraints, pool: Pool, cost: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> Facts:
    """What a selection holds of what its budget counts and its quota names."""
    facts: Facts = {}
    if constraints.in_tokens:
        facts["tokens"] = int(cost[rows].sum())
    if constraints.quota is not None and constraints.quota.named:
        # Predicted classes cost a pass of the model: only those of the rows chosen; a column tells which groups there are.
        group, names = constraints.quota.groups(pool.take(np.sort(rows)) if constraints.quota.predicts else pool)
        group = group if constraints.quota.predicts else group[rows]
        counts = np.bincount(group[group >= 0], minlength=len(names))
        facts |= {f"quota_{name}": count for name, count in zip(names, counts.tolist(), strict=True)}
    return facts


def _kept(
    context: Context, drawing: SelectionSpec, snapshot: Snapshot, eligible: Mask, cost: npt.NDArray[np.float64]
) -> Selection:
    """What a top-up keeps of the last selection, in its order: the rows still in the pool and eligible, to the budget."""
    if drawing.previous is None:
        return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("kept", 0))
    _, items = read_selection(context.store, drawing.previous)
    rows = idlib.rows_of(idlib.from_arrow(items["id"]), snapshot.ids)
    alive = (rows >= 0) & eligible[np.maximum(rows, 0)]
    rows, gain = rows[alive], items["gain"].to_numpy()[alive]
    fits = int(np.searchsorted(np.cumsum(cost[rows]), drawing.budget, side="right"))
    rows, gain = rows[:fits], gain[:fits]
    return Selection(rows, gain, Reason.of("kept", len(rows)))


def _items(drawn: Selection, ids: Ids) -> pa.Table:
    rank = drawn.reason.rank
    return (
        _why(drawn.rows, drawn.reason, ids)
        .append_column("gain", pa.array(drawn.gain, pa.float32()))
        # Places are counted from 1 for people, as ranks are.
        .append_column("ref_rank", pa.array(rank + 1, pa.int32(), mask=rank < 0))
    )


def _told(told: Sequence[FilterReport], ids: Ids) -> pa.Table | None:
    """What filters tell, with the step's name."""
    tables = [
        _why(one.rows, one.reason, ids).append_column("step", pa.repeat(pa.scalar(one.step), len(one.rows)))
        for one in told
    ]
    return pa.concat_tables(tables) if tables else None


def _why(rows: npt.NDArray[np.int64], reason: Reason, ids: Ids) -> pa.Table:
    """Rows with their reasons, as ids and names."""
    refs = reason.text()
    is_row = np.flatnonzero(np.isin(reason.kind, list(reason.ROW_KINDS)) & (reason.ref >= 0))
    for position, text in zip(is_row, idlib.to_text(ids[reason.ref[is_row]]), strict=True):
        refs[position] = text
    return pa.table(
        {
            "id": idlib.to_arrow(ids[rows]),
            "kind": pa.array(reason.kind.tolist(), pa.string()),
            "ref": pa.array(refs, pa.string()),
            "value": pa.array(reason.value, pa.float32(), from_pandas=True),
        }
    )


def _targets(context: Context, drawing: SelectionSpec) -> Targets:
    """The targets' vectors, set by set in the recipe's order."""
    assert drawing.encoder is not None
    sets = [open_targets(context.store, one) for one in drawing.targets.values()]
    vectors = []
    for target in sets:
        encoder = drawing.target_encoders.get(target.name, drawing.encoder)
        stored = StoredVectors(context.store, encoder, target.ids)
        if len(stored.failed_rows):
            first = _target_names(target)[stored.failed_rows[0]]
            raise BadInput(
                f"target {first!r} of {target.name!r} has no vector: its text has nothing to encode, or the vector that "
                "you brought is zero or not finite"
            )
        vectors.append(stored.take(np.arange(len(target))))
    return Targets(
        vectors=np.concatenate(vectors),
        sets=np.repeat(np.arange(len(sets)), [len(target) for target in sets]).astype(np.int64),
        names=tuple(drawing.targets),
        ids=tuple(name for target in sets for name in _target_names(target)),
    )


def _target_names(target: TargetSet) -> list[str]:
    """What a person calls the targets: the id in the file, else the place."""
    return [given or str(place) for place, given in enumerate(target.given_ids, start=1)]
