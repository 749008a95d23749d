"""What the losses of a trial say: effects against each control on each target set, and the verdict in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipelines.config.schema import RANDOM
from pipelines.context import Context
from pipelines.messages import counted
from pipelines.trials.plan import POOL, Plan
from pipelines.trials.records import DETECTABLE, EFFECTS, cell_losses, commit_part, known_part
from pipelines.trials.spec import AGAIN, SELECTION
from selection.learning.effects import Effect, Verdict, adjusted_verdicts, crossed_effect, detectable_effect, holm
from selection.types import Doubles, Rows

MIXED = "mixed"


def sets_of(plan: Plan) -> dict[str | None, Rows]:
    """Target set, None for the held-out rows -> the places of its examples; sets of less than two are left out."""
    names = np.array([example.target_set or "" for example in plan.examples])
    places = {name or POOL: np.flatnonzero(names == name) for name in (*plan.trial.targets, "")}
    return {name: rows for name, rows in places.items() if len(rows) >= 2}


def detectable(context: Context, plan: Plan) -> dict[str | None, float]:
    """Target set -> the smallest effect that would be seen, by the two random arms; kept before the selection is tried."""
    trial_id = plan.trial.trial_id
    known = known_part(context.store, "trial_detectable", trial_id, DETECTABLE)
    if known is not None:
        return {each["target_set"]: each["effect"] for each in known["detectable"]}
    spread = _losses(context, plan, RANDOM) - _losses(context, plan, AGAIN)
    effects = {name: detectable_effect(crossed_effect(spread[:, places])) for name, places in sets_of(plan).items()}
    document = {"detectable": [{"target_set": name, "effect": effect} for name, effect in effects.items()]}
    commit_part(context.store, "trial_detectable", trial_id, DETECTABLE, document, {})
    return effects


def judge(context: Context, plan: Plan) -> dict[str, Any]:
    """The effects of a trial whose models are all trained, committed."""
    trial = plan.trial
    seen = detectable(context, plan)
    chosen = _losses(context, plan, SELECTION)
    effects = []
    for control in (RANDOM, *trial.against):
        differences = _losses(context, plan, control) - chosen
        sets = sets_of(plan)
        each = {name: crossed_effect(differences[:, places]) for name, places in sets.items()}
        effects += _judged(control, each, {name: len(places) for name, places in sets.items()}, seen)
    document = {
        "selection_id": trial.selection,
        "recipe": trial.recipe,
        "seeds": trial.seeds,
        "effects": effects,
        "verdict": overall([effect["verdict"] for effect in effects if _is_headline(effect)]),
        "line": verdict_line(trial.recipe, trial.seeds, effects),
    }
    commit_part(context.store, "trial_effects", trial.trial_id, EFFECTS, document, {})
    return known_part(context.store, "trial_effects", trial.trial_id, EFFECTS) or document


def _losses(context: Context, plan: Plan, arm: str) -> Doubles:
    return cell_losses(context.store, plan.trial.trial_id, arm, plan.trial.seeds)


def _judged(
    control: str,
    effects: Mapping[str | None, Effect],
    examples: Mapping[str | None, int],
    seen: Mapping[str | None, float],
) -> list[dict[str, Any]]:
    """The effects against a control; the target sets count as several, the held-out rows of the pool by themselves."""
    adjusted: dict[str | None, float] = {}
    verdicts: dict[str | None, Verdict] = {}
    for names in ([name for name in effects if name is not POOL], [name for name in effects if name is POOL]):
        group = [effects[name] for name in names]
        adjusted |= dict(zip(names, holm([effect.p for effect in group]), strict=True))
        verdicts |= dict(zip(names, adjusted_verdicts(group), strict=True))
    return [
        {
            "target_set": name,
            "against": control,
            "examples": examples[name],
            **{key: value for key, value in asdict(effect).items() if np.isfinite(value)},
            "p_adjusted": adjusted[name],
            "detectable": seen[name],
            "verdict": verdicts[name],
        }
        for name, effect in effects.items()
    ]


def _is_headline(effect: Mapping[str, Any]) -> bool:
    return effect["against"] == RANDOM and effect["target_set"] is not POOL


def overall(verdicts: Sequence[str]) -> str:
    """The verdict over several target sets.

    >>> overall(["helped", "no evidence"]), overall(["helped", "hurt"]), overall(["no evidence"])
    ('helped', 'mixed', 'no evidence')
    """
    decided = sorted(set(verdicts) - {"no evidence"})
    return "no evidence" if not decided else decided[0] if len(decided) == 1 else MIXED


def verdict_line(recipe: str, seeds: int, effects: Sequence[Mapping[str, Any]]) -> str:
    """The verdict against random in a sentence."""
    parts = [effect_line(effect) for effect in effects if _is_headline(effect)]
    verdict = overall([effect["verdict"] for effect in effects if _is_headline(effect)])
    return f"{recipe}: {verdict} against random. " + "; ".join(parts) + f" ({counted(seeds, 'seed')}, 95 % intervals)"


def effect_line(effect: Mapping[str, Any]) -> str:
    """An effect in words.

    >>> effect_line({"target_set": "maths", "verdict": "helped", "mean": 0.1234, "low": 0.05, "high": 0.2,
    ...              "detectable": 0.08, "examples": 40})
    'maths: loss lower by 0.123 nats a token [0.050, 0.200], 40 examples; an effect of 0.080 could have been seen'
    """
    mean = effect["mean"]
    direction = "equal" if mean == 0 else f"lower by {mean:.3f}" if mean > 0 else f"higher by {-mean:.3f}"
    return (
        f"{effect['target_set'] or 'held-out rows of the pool'}: loss {direction} nats a token "
        f"[{effect['low']:.3f}, {effect['high']:.3f}], {counted(effect['examples'], 'example')}; "
        f"an effect of {effect['detectable']:.3f} could have been seen"
    )
