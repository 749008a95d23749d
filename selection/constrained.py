"""Select within constraints: shares and balance by a draw in each group, all else by a capped selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from selection.capped import GroupCapacity, Stream, capped_selection
from selection.constraints import BoundConstraints, Constraints
from selection.errors import InvalidBudget, rows_of_parent
from selection.groups import listed
from selection.pool import Pool
from selection.run_selector import in_parent, interleaved, run_selector, subpool
from selection.step import Selector
from selection.types import Selection


def constrained_selection(
    bound: BoundConstraints, step: Selector, pool: Pool, stream: Stream, *, allow_short: bool
) -> Selection:
    """What `step` takes of a pool within constraints.

    Args:
        bound: the constraints, bound to this pool.
        pool: what the steps before have left.
        stream: the selector's generator, fresh at each call.
        allow_short: give what there is, with `exhausted=True`, where the constraints cannot be met.

    Returns:
        Shares and balance: the groups' picks interleaved, so that the beginning of a selection is nearly divided as the
        whole. Else the picks in their order, without those that had no room.

    Raises:
        InvalidBudget: the constraints cannot be met; names what lacks.

    Cost: shares and balance, one draw in each group; else see `capped_selection`.
    """
    constraints = bound.constraints
    capacities = []
    if bound.value_group is not None:
        capacities.append(GroupCapacity.of(bound.value_group, np.ones(len(pool)), bound.per_value(pool)))
    if constraints.quota is not None and constraints.quota.divides:
        return _divided(bound, step, pool, capacities, stream, allow_short=allow_short)
    if bound.quota_group is not None:
        capacities.append(GroupCapacity.of(bound.quota_group, bound.cost, bound.caps(pool)))
    capacities.append(GroupCapacity.whole(bound.cost, constraints.amount))
    first = min(bound.rows(pool), int(pool.candidates.sum()))
    picked, missing = capped_selection(step, pool, capacities, stream, first=first)
    if missing > 0 and not allow_short:
        raise _too_few(constraints, step, f"{constraints.amount - missing:,.0f} of {constraints.amount:,}")
    return replace(picked, exhausted=missing > 0)


def _divided(
    bound: BoundConstraints,
    step: Selector,
    pool: Pool,
    capacities: Sequence[GroupCapacity],
    stream: Stream,
    *,
    allow_short: bool,
) -> Selection:
    """One draw in each group of the quota, in order of the names."""
    constraints, candidates = bound.constraints, pool.candidates
    wanted = bound.shares(pool, allow_short=allow_short)
    parts: list[Selection] = []
    lacking: list[str] = []
    for i, name in enumerate(bound.quota_names):
        members = candidates & (bound.quota_group == i)
        count = int(members.sum())
        if not wanted[i] or not count:
            if wanted[i]:
                lacking.append(f"{name} 0 of {wanted[i]:,}")
            continue
        # What earlier groups gave is already selected for this one.
        taken = np.concatenate([pool.get_already_selected(), *(part.rows for part in parts)])
        rows, frame = subpool(replace(pool, already_selected=taken), members)
        with rows_of_parent(rows):
            if constraints.needs_nested is None:
                picked = run_selector(step, frame, min(wanted[i], count), rng=stream())
                missing = float(wanted[i] - len(picked.rows))
            else:
                inside = [capacity.take(rows) for capacity in capacities]
                inside.append(GroupCapacity.whole(bound.cost[rows], wanted[i]))
                first = min(bound.take(rows).rows(frame, wanted[i]), count)
                picked, missing = capped_selection(step, frame, inside, stream, first=first)
        if missing > 0:
            lacking.append(f"{name} {wanted[i] - missing:,.0f} of {wanted[i]:,}")
        parts.append(in_parent(picked, rows))
    if lacking and not allow_short:
        raise _too_few(constraints, step, listed(lacking))
    return replace(interleaved(parts), exhausted=bool(lacking) or sum(wanted) < constraints.amount)


def _too_few(constraints: Constraints, step: Selector, amounts: str) -> InvalidBudget:
    within = []
    if constraints.quota is not None:
        within.append(f"the quota by {constraints.quota.by}")
    if constraints.group_by is not None:
        within.append(f"max_per_group {constraints.max_per_group} of {constraints.group_by}")
    where = f" within {' and '.join(within)}" if within else ""
    return InvalidBudget(f"{step.name}{where} found only {amounts} {constraints.unit}; allow_short takes these")
