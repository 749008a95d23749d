"""Which rows of the pool a recipe may draw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipelines.pool_view import PoolView
from pipelines.recipes.inputs import DrawInputs, Mask
from pipelines.recipes.spec import SelectionSpec
from selection.types import Rows
from storage.ids import Ids, rows_of
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet

# Why a row is kept out of a draw, in the order in which the rules are applied.
RULES = ("without_vector", "outside_where", "not_allowed", "denied", "equal_to_a_target")


def eligible_rows(view: PoolView, spec: SelectionSpec, inputs: DrawInputs) -> tuple[Mask, dict[str, int]]:
    """(n,) which rows may be drawn; and counts: rows of the pool, how many each rule keeps out, how many are left."""
    snapshot = view.snapshot_of(spec.snapshot)
    eligible = np.ones(len(snapshot), dtype=np.bool_)
    counts = {"pool": len(snapshot)}

    def exclude(rule: str, rows: Mask) -> None:
        counts[rule] = int((eligible & rows).sum())
        eligible[rows] = False

    if spec.encoder is not None:
        exclude("without_vector", mask(view.vectors(spec.encoder, snapshot.id, spec.index).failed_rows, len(snapshot)))
    if spec.where is not None:
        exclude("outside_where", ~snapshot.where(spec.where))
    if spec.allow is not None:
        exclude("not_allowed", ~mask(spec.allow.rows(snapshot, strict=True)[0], len(snapshot)))
    if spec.deny is not None:
        # A list of what was used or labelled before outlives rows of the pool.
        denied, counts["deny_unknown"] = spec.deny.rows(snapshot, strict=False)
        exclude("denied", mask(denied, len(snapshot)))
    if spec.held_out:
        exclude("equal_to_a_target", equal_to_a_target(snapshot, map(view.target_set_of, spec.held_out)))
    for rule, rows in inputs.exclusions.items():
        exclude(rule, rows)
    counts["eligible"] = int(eligible.sum())
    return eligible, counts


def equal_to_a_target(snapshot: Snapshot, targets: Iterable[TargetSet]) -> Mask:
    """(n,) the rows whose prompt is word for word the prompt of a target: training on them would leak the test."""
    prompts = sorted({prompt for target in targets for prompt in target.prompts})
    return snapshot.prompts_in(prompts) if prompts else np.zeros(len(snapshot), np.bool_)


def mask(rows: Rows, n: int) -> Mask:
    """(n,) true at `rows`."""
    flags = np.zeros(n, np.bool_)
    flags[rows] = True
    return flags


def rows_in(ids: Ids, snapshot: Snapshot) -> Rows:
    """Those of the ids that the snapshot has, as rows, ascending."""
    rows = rows_of(ids, snapshot.ids)
    return np.sort(rows[rows >= 0])
