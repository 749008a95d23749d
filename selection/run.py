"""The runner: checks what the steps need, gives each its generator and its frame of rows, checks what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from selection.constrained import Stream, constrained_selection
from selection.constraints import BoundConstraints, Constraints, Quota, TokenBudget
from selection.errors import BrokenStep, InvalidBudget, InvalidInput, InvalidOption, MissingInput, rows_of_parent
from selection.pool import Pool, available
from selection.registry import Spec, parse_steps, required
from selection.run_selector import checked_rows, empty_selection, in_parent, run_selector, subpool
from selection.step import Filter, Scorer, Selector, Step
from selection.sticky import Sticky, stick
from selection.streams import step_stream
from selection.trace import Trace
from selection.types import Array, DroppedRows, FilterReport, Input, Reason, RetrievedRows, Rows, Selection
from selection.vectors import exact

NO_ROWS: Rows = np.empty(0, np.int64)


def select(
    steps: Spec | Step | Sequence[Spec | Step],
    pool: Pool,
    *,
    budget: int | TokenBudget | Mapping[str, Any],
    seed: int = 0,
    round: int = 0,  # noqa: A002  # the domain's word
    allow_short: bool = False,
    quota: Quota | Mapping[str, Any] | None = None,
    group_by: str | None = None,
    max_per_group: int = 1,
    trace: Trace | None = None,
    sticky: Sticky | None = None,
) -> Selection:
    """Choose `budget` rows of a pool.

    Args:
        steps: names, `{name: options}` or steps, in order; one of them may stand alone. See
            `selection.registry.parse_steps`.
        pool: the candidates and what is known of them.
        budget: how many rows to take, 0 gives none; or `{"tokens": ..., "column": ...}`, see `TokenBudget`. Filters
            that go by the budget take one in tokens for the rows that it holds on average.
        seed: >= 0. The same inputs and seed give the same rows.
        round: >= 0, which draw-and-label step this is; random steps draw anew each round.
        allow_short: give what there is, with `exhausted=True`, where the pool cannot fill the budget.
        quota: how the budget is divided among groups, `{"by": "source", "shares": {"a": 0.5, "rest": 0.5}}`; see
            `Quota`.
        group_by: a column; at most `max_per_group` rows of each of its values are taken.
        trace: filled with what became of the rows that are not taken; changes nothing of the draw.
        sticky: an earlier selection, of which at most a part is given up; see `selection.sticky`.

    Raises:
        UnknownStep, InvalidOption, InvalidRecipe: the steps are not a recipe, or do not go with quota or budget.
        MissingInput: names every input and column that is missing, before any work.
        InvalidBudget: the pool cannot give that many rows.
        InvalidInput: an input is malformed; names the row in the frame of `pool`.

    >>> pool = Pool(scores=[0.1, 0.9, 0.5], already_selected=[1])
    >>> select(["top"], pool, budget=2).rows
    array([2, 0])
    """
    plan = parse_steps(steps)
    for name, number in (("seed", seed), ("round", round)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 0:
            raise InvalidOption(f"{name} must be an integer >= 0, got {number!r}", option=name)
    constraints = Constraints.of(budget, quota, group_by, max_per_group)
    constraints.check_selector(plan[-1])
    _check_inputs(plan, pool, constraints)
    bound = constraints.on(pool, predict=False)  # classes are predicted only for the rows that the filters leave
    budget = bound.rows(pool)
    _check_budget(pool, budget, allow_short=allow_short)
    _check_constraints(bound, pool, allow_short=allow_short)
    if budget == 0 or not pool.candidates.any():
        return empty_selection(exhausted=constraints.amount > 0)

    # What is in the frame is eligible or already selected, so steps need not look at `eligible`.
    seen = pool.candidates
    seen[pool.get_already_selected()] = True
    rows = np.flatnonzero(seen).astype(np.int64)
    frame = replace(pool, source_rows=np.arange(len(pool)))  # also if the pool is itself a part of one
    frame = frame if len(rows) == len(pool) else frame.take(rows)
    frame = replace(frame, eligible=None)
    if not any(step.searches for step in plan):
        frame = _exact(frame)
    draw = (int(seed), int(round))
    if sticky is None:
        return _run_steps(plan, frame, rows, bound, budget, draw, allow_short=allow_short, trace=trace)[0]
    fresh, wanted, barred = _run_steps(
        plan, frame, rows, bound, budget, draw, allow_short=allow_short, trace=trace, then=sticky.rows
    )
    return stick(sticky, fresh, wanted, barred, bound, pool)


def _run_steps(
    plan: Sequence[Step],
    frame: Pool,
    rows: Rows,
    bound: BoundConstraints,
    budget: int,
    draw: tuple[int, int],
    *,
    allow_short: bool,
    trace: Trace | None,
    then: Rows = NO_ROWS,
) -> tuple[Selection, Rows, Rows]:
    """Run the steps, each on what those before have left.

    Args:
        rows: of the whole pool, which the frame's are.
        bound: on the whole pool.
        budget: in rows.
        draw: seed and round.
        then: rows of the whole pool.

    Returns:
        the selection; those of `then` that it does not take, as the selector would take them beside it; and the rows
        that may not be in any selection.
    """
    filters = [step.name for step in plan if step.drops]
    reports: list[FilterReport] = []
    barred = [NO_ROWS]
    scorer = None
    for position, step in enumerate(plan):
        stream = partial(step_stream, *draw, position, step.name)
        visible = frame if step.searches else _exact(frame)
        with rows_of_parent(rows):
            if isinstance(step, Filter):
                kept, report = _kept(step, visible, min(budget, int(frame.candidates.sum())), stream())
                if report is not None:
                    reports.append(replace(report, rows=rows[report.rows], reason=report.reason.translated(rows)))
                if trace is not None:
                    trace.dropped.append((step.name, rows[frame.candidates & ~kept]))
                if step.bars:
                    barred.append(rows[frame.candidates & ~kept])
                remaining, frame = subpool(frame, kept)
                rows = rows[remaining]
            elif isinstance(step, Scorer):
                scores = _scored(step, visible, stream())
                scorer = step.name
                if not step.drops:
                    frame = replace(frame, scores=scores)
                    continue
                if trace is not None:
                    trace.dropped.append((step.name, rows[frame.candidates & np.isneginf(scores)]))
                remaining, frame, dropped = _with_scores(frame, scores)
                reports += [DroppedRows(step.name, rows[lost], Reason.of("score", len(lost))) for lost in dropped]
                rows = rows[remaining]
            else:
                assert isinstance(step, Selector)
                if trace is not None:
                    _note_pool(trace, scorer, rows, frame)
                picked = _picked(step, visible, bound.take(rows), filters, stream, allow_short=allow_short, trace=trace)
                wanted = rows[_taken_next(step, visible, picked, np.isin(rows, then), stream)]
                picked = in_parent(picked, rows)
                selection = replace(
                    picked,
                    dropped=tuple(report for report in reports if isinstance(report, DroppedRows)),
                    retrieved=tuple(report.of(picked.rows) for report in reports if isinstance(report, RetrievedRows)),
                )
                return selection, wanted, np.concatenate(barred)
    raise AssertionError("parse_steps ends every recipe in a selector")


def _taken_next(step: Selector, pool: Pool, picked: Selection, among: Array, stream: Stream) -> Rows:
    """The rows of `among` (n,) that a selector has not picked, in the order in which it takes them beside its picks."""
    rest = pool.candidates & among
    rest[picked.rows] = False
    if not rest.any():
        return NO_ROWS
    taken = np.concatenate([pool.get_already_selected(), picked.rows])
    rows, part = subpool(replace(pool, already_selected=taken), rest)
    with rows_of_parent(rows):
        return rows[run_selector(step, part, int(rest.sum()), rng=stream()).rows]


def _note_pool(trace: Trace, scorer: str | None, rows: Rows, frame: Pool) -> None:
    """What the selector sees, in the frame of the whole pool."""
    trace.rows, trace.candidates = rows, frame.candidates
    if scorer is not None and frame.scores is not None:
        trace.scorer, trace.scores = scorer, frame.scores


def _note_groups(trace: Trace, bound: BoundConstraints) -> None:
    groups = {"max_per_group": bound.value_group, "quota": bound.quota_group}
    trace.groups = {rule: group for rule, group in groups.items() if group is not None}
    trace.quota_names = bound.quota_names


def _picked(
    step: Selector,
    pool: Pool,
    bound: BoundConstraints,
    filters: Sequence[str],
    stream: Stream,
    *,
    allow_short: bool,
    trace: Trace | None,
) -> Selection:
    """What the selector takes of what the filters left."""
    if bound.constraints.needs:
        bound = bound.constraints.on(pool)
    if trace is not None:
        _note_groups(trace, bound)
    if bound.constraints.needs_nested is not None or bound.constraints.quota is not None:
        _check_constraints(bound, pool, filters, allow_short=allow_short)
        closed = None if trace is None else trace.closed
        return constrained_selection(bound, step, pool, stream, allow_short=allow_short, closed=closed)
    budget, left = bound.constraints.amount, int(pool.candidates.sum())
    if left < budget and not allow_short:
        names = ", ".join(filters)
        raise InvalidBudget(
            f"budget must be in 0..{left} (candidates left after {names}), got {budget}; allow_short takes what there is"
        )
    picked = run_selector(step, pool, min(budget, left), rng=stream())
    count = len(picked.rows)
    if count < budget and not allow_short:
        raise InvalidBudget(f"{step.name} found only {count} rows for a budget of {budget}; allow_short takes these")
    if trace is not None:
        trace.closed["budget"] = [0 if count < budget else 1 + len(pool.get_already_selected()) + count]
    return replace(picked, exhausted=count < budget)


def _exact(pool: Pool) -> Pool:
    """The same pool, whose vectors are searched exactly."""
    if pool.vectors is None:
        return pool
    vectors = exact(pool.get_vectors())
    return pool if vectors is pool.vectors else replace(pool, vectors=vectors)


def _kept(step: Filter, pool: Pool, budget: int, rng: np.random.Generator) -> tuple[Array, FilterReport | None]:
    """(n,) bool, the candidates that a filter keeps; and its report."""
    rows, report = step.apply(pool, budget, rng=rng)
    kept = np.zeros(len(pool), bool)
    kept[checked_rows(step, rows, len(pool))] = True
    return kept & pool.candidates, report


def _scored(step: Scorer, pool: Pool, rng: np.random.Generator) -> Array:
    with np.errstate(over="ignore"):
        scores = np.asarray(step.score(pool, rng=rng)).astype(np.float32)
    if scores.shape != (len(pool),):
        raise BrokenStep(f"{step.name}: needs one score for each of {len(pool)} rows, got shape {scores.shape}")
    is_bad = ~np.isfinite(scores)
    if step.drops:
        is_bad &= ~np.isneginf(scores)
    bad = np.flatnonzero(is_bad)
    if len(bad):
        raise InvalidInput(f"{step.name}: the score of row {{row}} is {scores[bad[0]]}", row=int(bad[0]))
    return scores


def _with_scores(pool: Pool, scores: Array) -> tuple[Rows, Pool, list[Rows]]:
    """The pool with scores, without the rows of -inf: its rows, itself, and the candidates that it lost, if there are any."""
    dropped = np.isneginf(scores)
    pool = replace(pool, scores=np.where(dropped, 0, scores))
    if not dropped.any():
        return np.arange(len(pool)), pool, []
    lost = np.flatnonzero(dropped & pool.candidates)
    rows, left = subpool(pool, pool.candidates & ~dropped)
    return rows, left, [lost]


def _check_inputs(plan: Sequence[Step], pool: Pool, constraints: Constraints) -> None:
    missing = [
        f"quota, group_by or budget needs column {name!r}" for name in sorted(constraints.columns - set(pool.columns))
    ]
    missing += [f"the quota needs {name}" for name in sorted(constraints.needs - pool.given)]
    for i, step in enumerate(plan):
        before, columns_before = required(plan[:i])
        inputs, columns = required(plan[: i + 1])
        missing += [f"{step.name} needs {name}" for name in sorted(inputs - before - pool.given - {Input.COLUMNS})]
        missing += [
            f"{step.name} needs column {name!r}" for name in sorted(columns - columns_before - set(pool.columns))
        ]
    if missing:
        raise MissingInput(f"{'; '.join(missing)}. The pool has {available(pool)}")


def _check_budget(pool: Pool, budget: int, *, allow_short: bool) -> None:
    n, taken = len(pool), len(pool.get_already_selected())
    candidates = int(pool.candidates.sum())
    closed = n - taken - candidates
    counts = f"pool {n} rows, already selected {taken}" + (f", not eligible {closed}" if closed else "")
    if isinstance(budget, bool) or not isinstance(budget, int | np.integer):
        raise InvalidBudget(f"budget must be an integer in 0..{candidates} ({counts}), got {budget!r}")
    if budget < 0 or (budget > candidates and not allow_short):
        short = "; allow_short takes what there is" if budget > 0 else ""
        raise InvalidBudget(f"budget must be in 0..{candidates} ({counts}), got {budget}{short}")


def _check_constraints(bound: BoundConstraints, pool: Pool, filters: Sequence[str] = (), *, allow_short: bool) -> None:
    if allow_short:
        return
    try:
        bound.check(pool)
    except InvalidBudget as error:
        after = f" (candidates left after {', '.join(filters)})" if filters else ""
        raise InvalidBudget(f"{error}{after}. allow_short takes what there is") from None
