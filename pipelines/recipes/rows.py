"""Select the rows of a spec from the pool; nothing is committed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.recipes.candidates import assemble
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.items import items_table, reports_table
from pipelines.recipes.measure import Counts, counted
from pipelines.recipes.top_up import kept_rows, sticky_counts, sticky_rows
from selection import Selection, TokenBudget, select
from selection.errors import InvalidInput, InvalidOption
from selection.step import Step
from selection.sticky import NAME as STICKY
from selection.trace import Trace
from selection.types import Rows, Vectors
from storage.ids import Ids, to_text
from storage.pool.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """A selection before it is committed.

    Attributes:
        rows: of the snapshot, in pick order.
        vectors: of the snapshot, where the recipe has some.
        items, dropped, retrieved: the tables of its record.
        counts: rows of the pool, how many each rule kept out, `drawn` now; of a top-up `kept_by_top_up`, of a sticky
            draw what `top_up.FACTS` names.
        exhausted: the pool could not fill the budget.
    """

    rows: Rows
    vectors: Vectors | None
    items: pa.Table
    dropped: pa.Table | None
    retrieved: pa.Table | None
    counts: Counts
    exhausted: bool


def select_rows(inputs: DrawInputs, trace: Trace | None = None) -> DrawnRows:
    """Assemble the candidates and run the steps on them.

    Args:
        trace: filled with what became of the rows that are not taken, in the frame of the snapshot.

    Raises:
        NotInStore: vectors are missing.
        SelectionError: the steps cannot be run on this pool.
    """
    spec, ids = inputs.spec, inputs.snapshot.ids
    constraints = spec.constraints
    steps = [_with_rows(step, inputs.snapshot) for step in spec.steps]
    pool, excluded = assemble(inputs)
    cost = constraints.costs(pool)
    kept = kept_rows(inputs, pool.candidates, cost)
    pool = replace(pool, already_selected=kept.rows if inputs.labelled is None else inputs.labelled)
    left = max(spec.budget - math.ceil(cost[kept.rows].sum()), 0)
    with _rows_named_by_id(ids):
        picked = select(
            steps,
            pool,
            budget=replace(constraints.budget, tokens=left) if isinstance(constraints.budget, TokenBudget) else left,
            seed=spec.seed,
            round=spec.round,
            allow_short=spec.allow_short,
            quota=constraints.quota,
            group_by=constraints.group_by,
            max_per_group=constraints.max_per_group,
            trace=trace,
            sticky=sticky_rows(inputs),
        )
    picked = _first(picked, inputs.affordable(picked.rows))
    rows = np.concatenate([kept.rows, picked.rows])
    stuck = sticky_counts(inputs, (*picked.retrieved, *picked.dropped))
    counts: Counts = {
        **excluded,
        **({"kept_by_top_up": len(kept.rows)} if spec.previous and spec.max_churn is None else {}),
        **stuck,
        "drawn": len(picked.rows) - stuck.get("sticky_held", 0),
    }
    counts |= counted(constraints, pool, cost, rows)
    counts |= {dropped_by(report.step): len(report.rows) for report in picked.dropped if report.step != STICKY}
    return DrawnRows(
        rows=rows,
        vectors=None if pool.vectors is None else pool.get_vectors(),
        items=items_table([kept, picked], ids),
        dropped=reports_table(picked.dropped, ids),
        retrieved=reports_table(picked.retrieved, ids),
        counts=counts,
        exhausted=picked.exhausted,
    )


def _with_rows(step: Step, snapshot: Snapshot) -> Step:
    """The step with the number of each row that it names by id.

    Raises:
        InvalidOption: an id names no row of the pool, or several.
    """
    for option in step.row_options:
        value = getattr(step, option)
        if isinstance(value, Mapping):
            name = value["id"]
            match = snapshot.match([name])
            if match.rows[0] < 0:
                count = f"{match.counts[0]} rows" if match.counts[0] else "no row"
                raise InvalidOption(
                    f"{option}: {name!r} names {count} of the pool; an id names exactly one",
                    step=step.name,
                    option=option,
                )
            step = replace(step, **{option: int(match.rows[0])})  # type: ignore[type-var]
    return step


def dropped_by(step: str) -> str:
    """How the metric is called that says how many rows a filter dropped."""
    return f"dropped_by_{step}"


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
        retrieved=tuple(report.of(rows) for report in selection.retrieved),
    )


@contextmanager
def _rows_named_by_id(ids: Ids) -> Iterator[None]:
    """A row that a step blames is named by its id, which a person can look up."""
    try:
        yield
    except InvalidInput as error:
        if error.row is None:
            raise
        raise InvalidInput(error.template.replace("{row}", to_text(ids[[error.row]])[0])) from error
