"""Draw a selection: assemble the pool, select, turn rows back into ids, commit."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.context import Context
from pipelines.pool_view import PoolView
from pipelines.recipes.eligible import eligible_rows
from pipelines.recipes.inputs import NO_INPUTS, DrawInputs, Mask
from pipelines.recipes.items import items_table, reports_table
from pipelines.recipes.spec import SelectionSpec, id_list
from pipelines.runs import code_version
from selection import Pool, Selection, Targets, TokenBudget, select
from selection.encoders import load_token_counter, tokenizer_fingerprint
from selection.errors import InvalidInput
from selection.metrics import coverage
from selection.types import Input, Reason, Rows
from selection.vectors import exact, on_gpu
from storage import ids as idlib
from storage.errors import BadInput
from storage.ids import Ids
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.pool.token_counts import MISSING, commit_counts, read_counts
from storage.records import commit_metrics, commit_selection, read_selection
from storage.vectors.segments import StoredVectors

Counts = dict[str, int | float]
# Multiply-adds of a coverage measurement that is worth its time: a few seconds.
COVERAGE_COST = 2e11


@dataclass(frozen=True)
class SelectionResult:
    """A committed selection.

    Attributes:
        ids: in pick order.
        metrics: rows of the pool, how many each rule kept out of the draw, kept and new rows, coverage.
        exhausted: the pool could not fill the budget.
        new: it was drawn now; False when the record was there.
    """

    spec: SelectionSpec
    ids: Ids
    metrics: Mapping[str, int | float]
    exhausted: bool
    new: bool

    @property
    def dropped(self) -> dict[str, int]:
        """Filter -> how many rows it dropped as copies or outliers, for the filters that report it."""
        keys = {step.name: _dropped_by(step.name) for step in self.spec.steps}
        return {name: int(self.metrics[key]) for name, key in keys.items() if key in self.metrics}


@dataclass(frozen=True)
class _Draw:
    """What a draw gives before it is committed: tables of a record, counts, and whether the pool was exhausted."""

    items: pa.Table
    dropped: pa.Table | None
    retrieved: pa.Table | None
    counts: Counts
    exhausted: bool


def draw(context: Context, spec: SelectionSpec, name: str, inputs: DrawInputs = NO_INPUTS) -> SelectionResult:
    """Draw and commit a selection, unless the same one is there.

    Args:
        name: what the record says that it was drawn for.

    Raises:
        NotInStore: vectors are missing.
        SelectionError: the steps cannot be run on this pool.
    """
    store = context.store
    if store.has("records", "selections", spec.selection_id):
        header, items = read_selection(store, spec.selection_id)
        return SelectionResult(spec, idlib.from_arrow(items["id"]), header["facts"], header["exhausted"], new=False)
    began = time.monotonic()
    if isinstance(spec.constraints.budget, TokenBudget) and spec.constraints.budget.tokenizer:
        count_tokens(context, spec.constraints.budget.tokenizer, context.pool.snapshot_of(spec.snapshot))
    drawn = _draw(context.pool, spec, inputs)
    metrics = _coverage(context.pool, spec, drawn.items) if spec.arm is None else {}
    header = spec.record() | {
        "selection_id": spec.selection_id,
        "recipe": name,
        "allow_file": spec.allow.file if spec.allow else None,
        "deny_file": spec.deny.file if spec.deny else None,
        **inputs.header(),
        "exhausted": drawn.exhausted,
        "facts": drawn.counts | metrics,
        "seconds": round(time.monotonic() - began, 3),
        "code_version": code_version(),
    }
    if metrics:  # before the selection: once that is there, nothing is measured again
        commit_metrics(store, spec.selection_id, metrics)
    commit_selection(store, header, drawn.items, dropped=drawn.dropped, found=drawn.retrieved)
    return SelectionResult(spec, idlib.from_arrow(drawn.items["id"]), header["facts"], drawn.exhausted, new=True)


def replay(context: Context, spec: SelectionSpec, inputs: DrawInputs = NO_INPUTS) -> pa.Table:
    """The items that a recorded spec gives now; nothing is committed.

    Raises:
        BadInput: its list of allowed or denied ids has changed since.
    """
    snapshot = context.pool.snapshot_of(spec.snapshot)
    for key, recorded in (("allow", spec.allow), ("deny", spec.deny)):
        if recorded is not None and id_list(recorded.file, snapshot, strict=key == "allow") != recorded:
            raise BadInput(f"the `{key}` list {recorded.file} is not the one of the record: it has changed since")
    return _draw(context.pool, spec, inputs).items


def count_tokens(context: Context, tokenizer: str, snapshot: Snapshot) -> None:
    """Count the tokens of the rows of which the store does not know them yet."""
    fingerprint = tokenizer_fingerprint(tokenizer)
    uncounted = snapshot.ids[read_counts(context.store, fingerprint, snapshot.ids) == MISSING]
    if not len(uncounted):
        return
    counter = load_token_counter(tokenizer)
    done = 0
    for ids, turns in snapshot.turns(uncounted):
        commit_counts(context.store, fingerprint, ids, counter.counts(turns))
        done += len(ids)
        context.report.progress(f"count tokens with {tokenizer}", done, len(uncounted))


def _draw(view: PoolView, spec: SelectionSpec, inputs: DrawInputs) -> _Draw:
    """Select; nothing is committed."""
    ids = view.snapshot_of(spec.snapshot).ids
    eligible, excluded = eligible_rows(view, spec, inputs)
    pool = _pool(view, spec, inputs, eligible)
    cost = spec.constraints.costs(pool)
    kept = _kept(view, spec, eligible, cost)
    pool = replace(pool, already_selected=kept.rows if inputs.labelled is None else inputs.labelled)
    left = max(spec.budget - math.ceil(cost[kept.rows].sum()), 0)
    budget = spec.constraints.budget
    with _named_by_id(ids):
        picked = select(
            spec.steps,
            pool,
            budget=replace(budget, tokens=left) if isinstance(budget, TokenBudget) else left,
            seed=spec.seed,
            round=spec.round,
            allow_short=spec.allow_short,
            quota=spec.constraints.quota,
            group_by=spec.constraints.group_by,
            max_per_group=spec.constraints.max_per_group,
        )
    picked = _first(picked, inputs.affordable(picked.rows))
    counts: Counts = {**excluded, "kept_from_last": len(kept.rows), "new_rows": len(picked.rows)}
    counts |= _counted(spec, pool, cost, np.concatenate([kept.rows, picked.rows]))
    counts |= {_dropped_by(report.step): len(report.rows) for report in picked.dropped}
    return _Draw(
        items=items_table([kept, picked], ids),
        dropped=reports_table(picked.dropped, ids),
        retrieved=reports_table(picked.found, ids),
        counts=counts,
        exhausted=picked.exhausted,
    )


def _pool(view: PoolView, spec: SelectionSpec, inputs: DrawInputs, eligible: Mask) -> Pool:
    """The candidates with all that steps and constraints read, and nothing else."""
    snapshot = view.snapshot_of(spec.snapshot)
    vectors = None
    if spec.encoder is not None:
        stored = view.vectors(spec.encoder, spec.snapshot, spec.index)
        vectors = on_gpu(stored if spec.index else exact(stored))
    return Pool(
        vectors=vectors,
        probabilities=inputs.probabilities if Input.PROBABILITIES in spec.inputs else None,
        committee=inputs.committee if Input.COMMITTEE in spec.inputs else None,
        labels=inputs.labels,
        targets=inputs.on_targets(_targets(view, spec)) if Input.TARGETS in spec.inputs else None,
        texts=snapshot.texts() if Input.TEXTS in spec.inputs else None,
        columns={name: _column(spec, snapshot, name) for name in sorted(spec.columns)},
        keys=idlib.keys(snapshot.ids),
        eligible=eligible,
    )


def _column(spec: SelectionSpec, snapshot: Snapshot, name: str) -> npt.NDArray[Any]:
    """A column of the pool; that of the tokens from the store where a tokenizer counted them."""
    budget = spec.constraints.budget
    if spec.tokenizer is not None and isinstance(budget, TokenBudget) and name == budget.counted_in:
        return read_counts(snapshot.store, spec.tokenizer, snapshot.ids)
    return snapshot.column(name)


def _targets(view: PoolView, spec: SelectionSpec) -> Targets:
    """The targets' vectors, set by set in the recipe's order."""
    assert spec.encoder is not None
    sets = [view.target_set_of(targets_id) for targets_id in spec.targets.values()]
    vectors = []
    for target_set in sets:
        encoder = spec.target_encoders.get(target_set.name, spec.encoder)
        stored = StoredVectors(view.store, encoder, target_set.ids)
        if len(stored.failed_rows):
            first = _target_names(target_set)[stored.failed_rows[0]]
            raise BadInput(
                f"target {first!r} of {target_set.name!r} has no vector: its text has nothing to encode, or the vector "
                "that you brought is zero or not finite"
            )
        vectors.append(stored.take(np.arange(len(target_set))))
    return Targets(
        vectors=np.concatenate(vectors),
        sets=np.repeat(np.arange(len(sets)), [len(target_set) for target_set in sets]).astype(np.int64),
        names=tuple(spec.targets),
        ids=tuple(name for target_set in sets for name in _target_names(target_set)),
    )


def _target_names(target_set: TargetSet) -> list[str]:
    """What a person calls the targets: the id in the file, else the place."""
    return [given_id or str(place) for place, given_id in enumerate(target_set.given_ids, start=1)]


def _kept(view: PoolView, spec: SelectionSpec, eligible: Mask, cost: npt.NDArray[np.float64]) -> Selection:
    """What a top-up keeps of the last selection, in its order: the rows still in the pool and eligible, to the budget."""
    if spec.previous is None:
        return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("kept", 0))
    _, items = read_selection(view.store, spec.previous)
    rows = idlib.rows_of(idlib.from_arrow(items["id"]), view.snapshot_of(spec.snapshot).ids)
    alive = (rows >= 0) & eligible[np.maximum(rows, 0)]
    rows, gain = rows[alive], items["gain"].to_numpy()[alive]
    fits = int(np.searchsorted(np.cumsum(cost[rows]), spec.budget, side="right"))
    return Selection(rows[:fits], gain[:fits], Reason.of("kept", fits))


def _first(selection: Selection, count: int) -> Selection:
    """The first picks of a selection."""
    if count == len(selection.rows):
        return selection
    rows = selection.rows[:count]
    return replace(
        selection,
        rows=rows,
        gain=selection.gain[:count],
        reason=selection.reason.take(np.arange(len(rows))),
        found=tuple(report.of(rows) for report in selection.found),
    )


def _counted(spec: SelectionSpec, pool: Pool, cost: npt.NDArray[np.float64], rows: Rows) -> Counts:
    """What a selection holds of what its budget counts and its quota names."""
    counts: Counts = {}
    if spec.constraints.in_tokens:
        counts["tokens"] = int(cost[rows].sum())
    quota = spec.constraints.quota
    if quota is not None and quota.named:
        # Predicted classes cost a pass of the model: only those of the rows chosen; a column tells which groups there are.
        group, names = quota.groups(pool.take(np.sort(rows)) if quota.predicts else pool)
        group = group if quota.predicts else group[rows]
        sizes = np.bincount(group[group >= 0], minlength=len(names))
        counts |= {f"quota_{name}": size for name, size in zip(names, sizes.tolist(), strict=True)}
    return counts


def _dropped_by(step: str) -> str:
    """How the metric is called that says how many rows a filter dropped."""
    return f"dropped_by_{step}"


def _coverage(view: PoolView, spec: SelectionSpec, items: pa.Table) -> dict[str, float]:
    """How well the pool is covered, where the recipe has vectors and measuring is quick."""
    if spec.encoder is None or not len(items):
        return {}
    snapshot = view.snapshot_of(spec.snapshot)
    vectors = exact(view.vectors(spec.encoder, snapshot.id, spec.index))
    if len(snapshot) * len(items) * vectors.shape[1] > COVERAGE_COST:
        return {}
    measured = coverage(vectors, idlib.rows_of(idlib.from_arrow(items["id"]), snapshot.ids))
    return {
        "coverage_radius": round(measured.radius, 6),
        "coverage_mean_distance": round(measured.mean_distance, 6),
        "coverage_mean_similarity": round(measured.mean_similarity, 6),
    }


@contextmanager
def _named_by_id(ids: Ids) -> Iterator[None]:
    """A row that a step blames is named by its id, which a person can look up."""
    try:
        yield
    except InvalidInput as error:
        if error.row is None:
            raise
        raise InvalidInput(error.template.replace("{row}", idlib.to_text(ids[[error.row]])[0])) from error
