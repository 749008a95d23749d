"""`winnow trial`: from a selection to a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipelines.config.schema import RANDOM, Trials
from pipelines.context import Context
from pipelines.trials.cells import Cells
from pipelines.trials.plan import POOL, Plan, chosen_rate, commit_plan, cost_of, described, known_plan, prepare
from pipelines.trials.records import EFFECTS, known_part
from pipelines.trials.spec import AGAIN, SELECTION, trial_spec
from pipelines.trials.verdict import detectable, judge


def try_selection(context: Context, name: str) -> dict[str, Any]:
    """Try a selection, or go on with its trial; gives `effects.json`.

    Args:
        name: as in `pipelines.named.selection_of`.

    Raises:
        TrialRefused: see `pipelines.trials.plan`.
    """
    trial = trial_spec(context, name)
    known = known_part(context.store, "trial_effects", trial.trial_id, EFFECTS)
    if known is not None:
        return known
    plan = known_plan(context, trial) or _planned(context, prepare(context, trial))
    cells = Cells(context, plan)
    cells.train([RANDOM, AGAIN])
    for target_set, effect in detectable(context, plan).items():
        title = "held-out rows of the pool" if target_set is POOL else target_set
        context.report.say(f"{title}: effects from about {effect:.3f} nats a token on can be seen (power 0.8)")
    cells.train([SELECTION, *trial.against])
    return judge(context, plan)


def _planned(context: Context, plan: Plan) -> Plan:
    settings = context.config.trials or Trials()
    cost = cost_of(plan, settings.limit_minutes)
    for line in described(plan, cost):
        context.report.say(line)
    plan = replace(plan, rate=chosen_rate(context, plan))
    commit_plan(context, plan, cost)
    return plan


def estimate(context: Context, name: str) -> Iterator[str]:
    """What a trial would be and cost, in lines; nothing is kept.

    Raises:
        TrialRefused: it cannot be made.
    """
    plan = prepare(context, trial_spec(context, name))
    yield from described(plan, cost_of(plan, (context.config.trials or Trials()).limit_minutes))


def set_options(context: Context, options: Mapping[str, Any]) -> Context:
    """The context with other settings of trials than those of the configuration."""
    settings = (context.config.trials or Trials()).model_copy(update=dict(options))
    return replace(context, config=context.config.model_copy(update={"trials": settings})) if options else context


def effect_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The effects of a trial as rows of a table."""
    return [
        {
            "measured on": effect["target_set"] or "held-out rows of the pool",
            "against": effect["against"],
            "verdict": effect["verdict"],
            "effect": effect["mean"],
            "low": effect["low"],
            "high": effect["high"],
            "could be seen": effect["detectable"],
            "examples": effect["examples"],
        }
        for effect in document["effects"]
    ]
