"""Draw a selection: assemble the candidates, select, turn rows back into ids, measure, commit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from pipelines.context import Context
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.measure import measured
from pipelines.recipes.rows import dropped_by, select_rows
from pipelines.recipes.spec import SelectionSpec, id_list
from pipelines.recipes.tokens import count_for_budget
from pipelines.runs import code_version
from selection.trace import Trace
from storage.errors import BadInput
from storage.ids import Ids, from_arrow
from storage.records import commit_metrics, commit_selection, known_selection


@dataclass(frozen=True)
class SelectionResult:
    """A committed selection.

    Attributes:
        ids: in pick order.
        metrics: rows of the pool, how many each rule kept out of the draw, `drawn` now; of a top-up `kept_by_top_up`,
            of a sticky draw what `top_up.FACTS` names; coverage.
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
        """Step -> how many rows it dropped: copies, outliers, rows without a score; for the steps that report it."""
        keys = {step.name: dropped_by(step.name) for step in self.spec.steps}
        return {name: int(self.metrics[key]) for name, key in keys.items() if key in self.metrics}


def draw(context: Context, inputs: DrawInputs, name: str) -> SelectionResult:
    """Draw and commit a selection, unless the same one is there.

    Args:
        name: what the record says that it was drawn for.

    Raises:
        NotInStore: vectors are missing.
        SelectionError: the steps cannot be run on this pool.
    """
    store, spec = context.store, inputs.spec
    selection_id = spec.selection_id
    if known := known_selection(store, selection_id, ("recipe", "facts", "exhausted", "snapshot")):
        header, items = known
        return SelectionResult(
            spec, from_arrow(items["id"]), named_as_now(header["facts"]), header["exhausted"], new=False
        )
    began = time.monotonic()
    count_for_budget(context, spec.constraints.budget, inputs.snapshot)
    drawn = select_rows(inputs)
    metrics = measured(inputs, drawn.vectors, drawn.rows) if spec.arm is None else {}
    header = spec.record() | {
        "selection_id": selection_id,
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
        commit_metrics(store, selection_id, metrics)
    commit_selection(store, header, drawn.items, dropped=drawn.dropped, retrieved=drawn.retrieved)
    return SelectionResult(spec, from_arrow(drawn.items["id"]), header["facts"], drawn.exhausted, new=True)


def named_as_now(facts: Mapping[str, int | float]) -> dict[str, int | float]:
    """The counts of a record under their present names.

    Earlier versions said `kept_from_last` for what a top-up kept, 0 for a recipe that is drawn afresh, and `new_rows`
    for what was drawn, whether or not the last selection had it.

    >>> named_as_now({"pool": 9, "kept_from_last": 0, "new_rows": 5}), named_as_now({"kept_from_last": 2, "new_rows": 1})
    ({'pool': 9, 'drawn': 5}, {'kept_by_top_up': 2, 'drawn': 1})
    """
    names = {"kept_from_last": "kept_by_top_up", "new_rows": "drawn"}
    return {names.get(key, key): value for key, value in facts.items() if key != "kept_from_last" or value}


def replay(inputs: DrawInputs, trace: Trace | None = None) -> pa.Table:
    """The items that a recorded spec gives now; nothing is committed.

    Args:
        trace: as in `select_rows`.

    Raises:
        BadInput: its list of allowed or denied ids has changed since.
    """
    spec = inputs.spec
    for key, recorded in (("allow", spec.allow), ("deny", spec.deny)):
        if recorded is not None and id_list(recorded.file, inputs.snapshot, strict=key == "allow") != recorded:
            raise BadInput(f"the `{key}` list {recorded.file} is not the one of the record: it has changed since")
    return select_rows(inputs, trace).items
