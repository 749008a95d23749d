"""Which rows of the pool a recipe may draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from pipelines.errors import NothingYet
from pipelines.recipes.inputs import Mask
from pipelines.recipes.spec import IdList, SelectionSpec, digest_of_rows
from selection.types import Rows
from storage.errors import BadInput
from storage.ids import rows_of
from storage.pool.contamination import contaminated_ids
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet
from storage.vectors.segments import StoredVectors

# Why a row is kept out of a draw, in the order in which the rules are applied.
RULES = (
    *("without_vector", "outside_where", "not_allowed", "denied", "equal_to_a_target", "contaminated"),
    "without_probabilities",
)


def eligible_rows(
    snapshot: Snapshot,
    spec: SelectionSpec,
    vectors: StoredVectors | None,
    held_out: Iterable[TargetSet],
    exclusions: Mapping[str, Mask],
) -> tuple[Mask, dict[str, int]]:
    """(n,) which rows may be drawn; and counts: rows of the pool, how many each rule keeps out, how many are left.

    Args:
        held_out: target sets whose questions no chosen row may hold: training on such a row would leak the test.
        exclusions: rule -> (n,) further rows that it keeps out.
    """
    eligible = np.ones(len(snapshot), dtype=np.bool_)
    counts = {"pool": len(snapshot)}

    def exclude(rule: str, rows: Mask | Rows) -> None:
        before = int(eligible.sum())
        eligible[rows] = False
        counts[rule] = before - int(eligible.sum())

    if vectors is not None:
        exclude("without_vector", vectors.failed_rows)
    if spec.where is not None:
        exclude("outside_where", ~snapshot.where(spec.where))
    if spec.allow is not None:
        allowed, _ = snapshot.rows_named(Path(spec.allow.file))
        _require_digest(snapshot, spec.allow, allowed)
        exclude("not_allowed", np.setdiff1d(np.arange(len(snapshot)), allowed))
    if spec.deny is not None:
        # A list of what was used or labelled before outlives rows of the pool.
        denied, counts["deny_unknown"] = snapshot.rows_named(Path(spec.deny.file), strict=False)
        _require_digest(snapshot, spec.deny, denied)
        exclude("denied", denied)
    if spec.held_out:
        targets = [turns for target_set in held_out for turns in target_set.conversations]
        exclude("equal_to_a_target", snapshot.asked_in(targets))
    if spec.contamination is not None:
        if not snapshot.store.has("records", "contaminations", spec.contamination):
            raise NothingYet(
                "the pool was not searched yet for evaluation texts, as `decontamination` has it: run `winnow run`, or "
                "materialize the asset `decontamination`, first"
            )
        exclude("contaminated", rows_of(contaminated_ids(snapshot.store, spec.contamination), snapshot.ids))
    for rule, excluded in exclusions.items():
        exclude(rule, excluded)
    counts["eligible"] = int(eligible.sum())
    return eligible, counts


def _require_digest(snapshot: Snapshot, ids: IdList, rows: Rows) -> None:
    """Raise if a list names other rows than when the selection got its name."""
    if digest_of_rows(snapshot, rows) != ids.digest:
        raise BadInput(f"{ids.file}: the file changed while it was read; run again when it is complete")
