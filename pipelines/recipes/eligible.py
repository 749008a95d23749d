"""Which rows of the pool a recipe may draw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipelines.errors import NothingYet
from pipelines.recipes.inputs import DrawInputs, Mask
from pipelines.recipes.spec import IdList
from selection.types import Rows
from storage.errors import BadInput
from storage.ids import rows_of
from storage.pool.contamination import contaminated_ids
from storage.pool.snapshot import Snapshot

# Why a row is kept out of a draw, in the order in which the rules are applied.
RULES = (
    *("without_vector", "outside_where", "not_allowed", "denied", "equal_to_a_target", "contaminated"),
    "without_probabilities",
)


def eligible_rows(inputs: DrawInputs) -> tuple[Mask, dict[str, int]]:
    """(n,) which rows may be drawn; and counts: rows of the pool, how many each rule keeps out, how many are left."""
    eligible = np.ones(len(inputs.snapshot), dtype=np.bool_)
    counts = {"pool": len(eligible)}
    for rule, rows in _excluded(inputs, counts):
        before = int(eligible.sum())
        eligible[rows] = False
        counts[rule] = before - int(eligible.sum())
    counts["eligible"] = int(eligible.sum())
    return eligible, counts


def first_rule(inputs: DrawInputs, row: int) -> str | None:
    """The first rule that keeps a row out of the draw; None for a row that may be drawn.

    Cost: that of the rules up to this one; no step is run.
    """
    for rule, rows in _excluded(inputs, {}):
        if rows[row] if rows.dtype == np.bool_ else bool((rows == row).any()):
            return rule
    return None


def _excluded(inputs: DrawInputs, counts: dict[str, int]) -> Iterator[tuple[str, Mask | Rows]]:
    """Each rule of the recipe, in the order in which they apply, and the rows that it keeps out, whatever others do.

    Args:
        counts: gets `deny_unknown`.
    """
    spec, snapshot = inputs.spec, inputs.snapshot
    if inputs.vectors is not None:
        yield "without_vector", inputs.vectors.failed_rows
    if spec.where is not None:
        yield "outside_where", inputs.outside_where
    if spec.allow is not None:
        allowed, _ = _listed(snapshot, spec.allow, strict=True)
        yield "not_allowed", np.setdiff1d(np.arange(len(snapshot)), allowed)
    if spec.deny is not None:
        # A list of what was used or labelled before outlives rows of the pool.
        denied, counts["deny_unknown"] = _listed(snapshot, spec.deny, strict=False)
        yield "denied", denied
    if spec.held_out:  # training on a row that asks what a target asks would leak the test
        targets = [turns for target_set in inputs.held_out for turns in target_set.conversations]
        yield "equal_to_a_target", snapshot.asked_in(targets)
    if spec.contamination is not None:
        if not snapshot.store.has("records", "contaminations", spec.contamination):
            raise NothingYet(
                "the pool was not searched yet for evaluation texts, as `decontamination` has it: run `winnow run`, or "
                "materialize the asset `decontamination`, first"
            )
        yield "contaminated", rows_of(contaminated_ids(snapshot.store, spec.contamination), snapshot.ids)
    yield from inputs.exclusions.items()


def _listed(snapshot: Snapshot, ids: IdList, *, strict: bool) -> tuple[Rows, int]:
    """The rows that a list names, and how many of its lines name none.

    Raises:
        BadInput: it names other rows than when the selection got its name.
    """
    rows, unknown = snapshot.rows_named(Path(ids.file), strict=strict)
    if snapshot.digest_of(rows) != ids.digest:
        raise BadInput(f"{ids.file}: the file changed while it was read; run again when it is complete")
    return rows, unknown
