"""The rows that each arm trains on: the selection's, and those of controls with as many tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.config.schema import LONGEST, PER_SOURCE, RANDOM, TOP_SCORE
from pipelines.context import Context
from pipelines.errors import TrialRefused
from pipelines.recipes.eligible import eligible_rows
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.rows import select_rows
from pipelines.recipes.spec import SelectionSpec, resolve_spec
from pipelines.trials.spec import AGAIN, SELECTION, TrialSpec
from selection import TokenBudget
from selection.constraints import COUNTED_TOKENS, Quota
from selection.errors import SelectionError
from selection.groups import strata
from selection.registry import parse_steps, required
from selection.step import Scorer, Step
from selection.types import Array, Input, Mask, Rows
from storage.ids import from_arrow, rows_of
from storage.records import read_selection

# Not near the seeds that recipes have, nor near each other.
RANDOM_SEED, AGAIN_SEED, HELD_OUT_SEED = 20_261_000, 20_262_000, 20_263_000
# Of the rows that may be drawn, the most that are held out.
HELD_OUT_SHARE = 0.05
HELD_OUT = "held_out_of_trial"


@dataclass(frozen=True, eq=False)
class Chosen:
    """The selection that is tried.

    Attributes:
        spec: what it was drawn from.
        rows: of its snapshot, in pick order, without the rows that are held out.
        held_out: rows that may be drawn and that no arm trains on, ascending.
        held_out_of_selection: how many of these the selection had.
        eligible: (n,) which rows a control may draw, those that are held out included.
        snapshot: of the pool.
    """

    spec: SelectionSpec
    rows: Rows
    held_out: Rows
    held_out_of_selection: int
    eligible: Mask
    snapshot: Any


def chosen_rows(context: Context, trial: TrialSpec) -> Chosen:
    """The selection's rows, and the rows that are held out of all arms.

    The held-out rows are drawn before anything else from all that may be drawn, chosen or not, so that they say how
    well a model does on the pool as it is.

    Raises:
        TrialRefused: it has no row in the pool.
    """
    header, items = read_selection(context.store, trial.selection)
    spec = SelectionSpec.from_record(header)
    inputs = recipe_inputs(context.pool, _random(spec))
    eligible, _ = eligible_rows(inputs)
    places = np.flatnonzero(eligible)
    size = min(trial.held_out, int(HELD_OUT_SHARE * len(places)))
    held_out = np.sort(np.random.default_rng(HELD_OUT_SEED).choice(places, size, replace=False))
    rows = rows_of(from_arrow(items["id"]), inputs.snapshot.ids)
    rows = rows[rows >= 0]
    kept = rows[~np.isin(rows, held_out)]
    if not len(kept):
        raise TrialRefused(f"the selection {trial.selection} of {trial.recipe!r} has no row to train on")
    return Chosen(spec, kept, held_out, len(rows) - len(kept), eligible, inputs.snapshot)


def arm_rows(
    context: Context, trial: TrialSpec, chosen: Chosen, counts: Rows, tokenizer: str
) -> dict[tuple[str, int], Rows]:
    """(arm, seed) -> the rows that it trains on, in pick order.

    Args:
        counts: (n,) tokens of each eligible row.
        tokenizer: the fingerprint under which the store has these counts.

    Raises:
        TrialRefused: a control cannot be drawn.
    """
    tokens = int(counts[chosen.rows].sum())
    rows: dict[tuple[str, int], Rows] = {}
    without = np.zeros(len(chosen.snapshot), np.bool_)
    without[chosen.held_out] = True
    for arm in trial.arms:
        last: tuple[SelectionSpec | None, Rows] = (None, chosen.rows)
        for seed in range(trial.seeds):
            spec = None if arm == SELECTION else _spec(context, chosen, counts, arm, seed, tokens, tokenizer)
            if spec is not None and spec != last[0]:
                context.report.progress(f"draw {arm}", seed, trial.seeds, "seeds")
                drawn = _drawn(context, arm, spec, without)
                last = (spec, drawn)
            rows[arm, seed] = last[1]
    return rows


def _drawn(context: Context, arm: str, spec: SelectionSpec, without: Mask) -> Rows:
    try:
        rows = select_rows(recipe_inputs(context.pool, spec, {HELD_OUT: without})).rows
    except SelectionError as error:
        raise TrialRefused(f"the control {arm!r} of the trial cannot be drawn: {error}") from error
    if not len(rows):
        raise TrialRefused(f"the control {arm!r} has no row of at most {spec.budget:,} tokens, which the selection has")
    return rows


def _spec(
    context: Context, chosen: Chosen, counts: Rows, arm: str, seed: int, tokens: int, tokenizer: str
) -> SelectionSpec:
    """What a control is drawn from: the selection's rules, other steps, and a budget in tokens."""
    base, quota = chosen.spec, chosen.spec.constraints.quota
    if arm in (RANDOM, AGAIN):
        spec = replace(_random(base), seed=(RANDOM_SEED if arm == RANDOM else AGAIN_SEED) + seed)
    elif arm == PER_SOURCE:
        sources = chosen.snapshot.column("source")
        spec, quota = replace(_random(base), seed=RANDOM_SEED + seed), source_mix(sources, chosen.rows, counts)
    elif arm == LONGEST:
        spec = _with_steps(base, parse_steps([{"column": {"field": COUNTED_TOKENS}}]))
    elif arm == TOP_SCORE:
        spec = _with_steps(base, _scored(base), without_decontamination=False)
    else:
        spec = _of_recipe(context, base, arm, seed)
    budget = TokenBudget(tokens=tokens, tokenizer=tokenizer)
    return replace(
        spec, constraints=replace(base.constraints, budget=budget, quota=quota), tokenizer=tokenizer, allow_short=True
    )


def _random(base: SelectionSpec) -> SelectionSpec:
    return _with_steps(base, parse_steps(["random"]))


def _with_steps(base: SelectionSpec, steps: tuple[Step, ...], *, without_decontamination: bool = True) -> SelectionSpec:
    """The selection's rules with other steps; a step that keeps evaluation texts out stays.

    Vectors are opened only for steps that need them.
    """
    kept = tuple(step for step in base.steps if step.name == "decontaminate") if without_decontamination else ()
    steps = (*kept, *steps)
    vectors = bool(required(steps)[0] & {Input.VECTORS, Input.TARGETS})
    return replace(
        base,
        steps=steps,
        previous=None,
        max_churn=None,
        index=base.index if vectors else None,
        encoder=base.encoder if vectors else None,
    )


def _scored(base: SelectionSpec) -> tuple[Step, ...]:
    """The steps up to the last scorer, and then the rows with the highest scores.

    Raises:
        TrialRefused: the recipe scores nothing.
    """
    places = [place for place, step in enumerate(base.steps) if isinstance(step, Scorer)]
    if not places:
        steps = ", ".join(step.name for step in base.steps)
        raise TrialRefused(
            f"trials.against: top_score takes the rows with the highest scores, and the steps {steps} score nothing; "
            "leave it out"
        )
    return parse_steps(base.steps[: places[-1] + 1])  # which adds `top`


def source_mix(sources: Array, rows: Rows, counts: Rows) -> Quota:
    """Shares of the sources by their tokens in some rows.

    Args:
        sources, counts: (n,) the source and the tokens of each row of the pool.
    """
    group, names = strata(sources)
    tokens = np.bincount(group[rows], weights=counts[rows], minlength=len(names))
    shares: Mapping[str, float] = {
        name: float(share) for name, share in zip(names, tokens / tokens.sum(), strict=True) if share
    }
    return Quota(by="source", shares=shares)


def _of_recipe(context: Context, base: SelectionSpec, recipe: str, seed: int) -> SelectionSpec:
    """Another recipe's steps under the selection's rules and on its pool; a seed of its own for each seed of the trial."""
    other = resolve_spec(context, recipe)
    return replace(
        base,
        steps=other.steps,
        seed=other.seed + seed,
        round=other.round,
        encoder=other.encoder,
        index=None,
        targets=other.targets,
        target_encoders=other.target_encoders,
        scores={**base.scores, **other.scores},
        probabilities=other.probabilities or base.probabilities,
        previous=None,
        max_churn=None,
    )
