"""Run a selector and check what it gives, on a pool, on a subpool or in each of several groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, chain

import numpy as np

from selection.errors import BrokenStep, rows_of_parent
from selection.pool import Pool
from selection.step import Selector, Step
from selection.types import Array, Reason, Rows, Selection


def run_selector(step: Selector, pool: Pool, budget: int, *, rng: np.random.Generator) -> Selection:
    """Run one selector and check what it gives; also for a selector inside another.

    Args:
        budget: 0 .. the number of candidates; a selector is not called for 0.
        rng: the selector's.

    Raises:
        BrokenStep: rows out of range, twice, not candidates; gains or reasons of another length.
    """
    if budget == 0:
        return empty_selection()
    selection = checked_selection(step, step.select(pool, budget, rng=rng), pool)
    if len(selection.rows) > budget:
        raise BrokenStep(f"{step.name}: gave {len(selection.rows)} rows for a budget of {budget}")
    return selection


def checked_selection(step: Selector, selection: Selection, pool: Pool) -> Selection:
    """What a selector gave, with rows as int64 and gains as float32.

    Raises:
        BrokenStep: see `run_selector`.
    """
    rows = checked_rows(step, selection.rows, len(pool))
    refused = rows[~pool.candidates[rows]]
    if len(refused):
        raise BrokenStep(f"{step.name}: gave row {refused[0]}, which is already selected or not a candidate")
    gain = np.asarray(selection.gain, np.float32)
    if gain.shape != rows.shape or not np.isfinite(gain).all():
        raise BrokenStep(f"{step.name}: needs one finite gain for each of {len(rows)} rows, got {gain.shape}")
    reason = selection.reason
    if any(len(getattr(reason, name)) != len(rows) for name in Reason.COLUMNS):
        raise BrokenStep(f"{step.name}: needs one reason for each of {len(rows)} rows")
    return replace(selection, rows=rows, gain=gain)


def checked_rows(step: Step, rows: Array, n: int) -> Rows:
    """The rows that a step gave, as int64.

    Raises:
        BrokenStep: they are no flat array of unique integers in 0 .. n - 1.
    """
    rows = np.asarray(rows)
    if rows.ndim != 1 or (len(rows) and rows.dtype.kind not in "iu"):
        raise BrokenStep(f"{step.name}: rows must be a flat array of integers, got {rows.dtype} {rows.shape}")
    rows = rows.astype(np.int64)
    ordered = np.sort(rows)
    if len(ordered) and (ordered[0] < 0 or ordered[-1] >= n):
        raise BrokenStep(f"{step.name}: rows must be in 0..{n - 1}, got {ordered[0]}..{ordered[-1]}")
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        raise BrokenStep(f"{step.name}: gave row {twice[0]} more than once")
    return rows


def empty_selection(*, exhausted: bool = False) -> Selection:
    """A selection of no rows."""
    return Selection(np.empty(0, np.int64), np.empty(0, np.float32), Reason.of("none", 0), exhausted=exhausted)


def subpool(pool: Pool, eligible: Array) -> tuple[Rows, Pool]:
    """The rows that a step sees when only `eligible` (n,) may be taken, ascending, and the subpool of them.

    The already selected rows stay, as centres. So do the labelled rows of a partly labelled pool, since later steps
    compare with them; those that are not eligible are then no candidates. (Where every row has a label, labels are
    classes and mark nothing to compare with.)
    """
    stays = eligible.copy()
    stays[pool.get_already_selected()] = True
    if pool.labels is not None and (pool.labels < 0).any():
        stays |= pool.labels >= 0
    rows = np.flatnonzero(stays).astype(np.int64)
    return rows, replace(pool.take(rows), eligible=eligible[rows])


def in_parent(selection: Selection, rows: Rows) -> Selection:
    """A selection from the subpool of `rows` as one from its parent."""
    return replace(selection, rows=rows[selection.rows], reason=selection.reason.translated(rows))


def at_places(selection: Selection, places: Array) -> Selection:
    """The picks at some places, in that order."""
    return replace(
        selection, rows=selection.rows[places], gain=selection.gain[places], reason=selection.reason.take(places)
    )


def select_in_strata(
    step: Selector, pool: Pool, strata: Iterable[tuple[int, Rows, int, np.random.Generator]], names: Sequence[str]
) -> Selection:
    """One draw in each stratum, interleaved.

    Args:
        strata: (stratum, the rows that the selector sees, ascending, its budget, its generator), in order.
        names: of all strata.

    Returns:
        `ref` of a reason is the stratum, `rank` the place in it; its value and the gain are those of the selector.
    """
    parts = []
    for stratum, rows, budget, rng in strata:
        with rows_of_parent(rows):
            picked = run_selector(step, pool.take(rows), budget, rng=rng)
        count = len(picked.rows)
        reason = Reason.of(
            "stratum", count, ref=np.full(count, stratum), rank=np.arange(count), value=picked.reason.value, names=names
        )
        parts.append(Selection(rows[picked.rows], picked.gain, reason))
    return interleaved(parts)


def interleaved(parts: Sequence[Selection]) -> Selection:
    """The picks of several draws as one, by (i + 0.5) / b for pick i of the b of a draw; ties to the earlier draw.

    So each draw is spread evenly over the whole and in its own order.
    """
    if not parts:
        return empty_selection()
    part = np.concatenate([np.full(len(picked.rows), i) for i, picked in enumerate(parts)])
    place = np.concatenate([(np.arange(len(picked.rows)) + 0.5) / max(len(picked.rows), 1) for picked in parts])
    together = Selection(
        np.concatenate([picked.rows for picked in parts]),
        np.concatenate([picked.gain for picked in parts]),
        joined([picked.reason for picked in parts]),
    )
    return at_places(together, np.lexsort((part, place)))


def joined(reasons: Sequence[Reason]) -> Reason:
    """The reasons one after the other; `ref` moves to where its names are among all names."""
    distinct = list(dict.fromkeys(reason.names for reason in reasons))
    offsets = dict(zip(distinct, accumulate(map(len, distinct), initial=0), strict=False))
    columns = {name: np.concatenate([getattr(reason, name) for reason in reasons]) for name in Reason.COLUMNS}
    offset = np.repeat([offsets[reason.names] for reason in reasons], [len(reason.ref) for reason in reasons])
    named = ~np.isin(columns["kind"], list(Reason.ROW_KINDS)) & (columns["ref"] >= 0)
    return Reason(**columns | {"ref": columns["ref"] + offset * named}, names=tuple(chain(*distinct)))
