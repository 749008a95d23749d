"""Try a recipe's selection: did it help?"""

from __future__ import annotations

from pipelines.context import Context
from pipelines.stages.stage import Check, Metric, Outcome, stage
from pipelines.trials.trial import try_selection


@stage("trial", checks={"not_hurt": "the selection is not worse than random rows on any target set"})
def trial(context: Context, name: str) -> Outcome:
    """Train small models on a selection and on controls, and judge their losses."""
    document = try_selection(context, name)
    metrics: dict[str, Metric] = {"verdict": document["verdict"], "selection": document["selection_id"]}
    for effect in document["effects"]:
        key = f"{effect['target_set'] or 'pool'}_against_{effect['against']}"
        metrics |= {f"effect_on_{key}": round(effect["mean"], 6), f"verdict_on_{key}": effect["verdict"]}
    hurt = document["verdict"] in ("hurt", "mixed")
    return Outcome(
        subject=document["trial_id"],
        metrics=metrics,
        summary=f"{document['verdict']} against random",
        checks=(Check("not_hurt", not hurt, document["line"], blocking=False),),
    )
