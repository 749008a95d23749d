"""What a trial depends on: its hash is the trial's id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pipelines.config.schema import CONTROLS, RANDOM, SCRATCH, Trials
from pipelines.context import Context
from pipelines.errors import TrialRefused, UnknownRecipe
from pipelines.messages import listed, nearest
from pipelines.named import selection_of
from pipelines.recipes.spec import SelectionSpec, resolve_spec
from selection.encoders import ModelSpec
from storage.pool.targets import TargetSet
from storage.records import digest_of, read_selection

# Part of the id. Increase it whenever the same trial would give other losses.
VERSION = 1
AGAIN, SELECTION = "random_again", "selection"
"""Arms beside the controls: as many other rows at random, which say what chance does; and what is tried."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """All that a trial depends on.

    Attributes:
        selection: its id.
        recipe: whose selection it is.
        targets: target set -> the id of its record, those that are measured on.
        against: control beside `random` -> the id of what a recipe would draw; None for the others.
        model, size, lora: as in the configuration; `size` is None for a folder's model.
        fingerprint: of a folder's model.
        seeds, tokens, held_out: as in the configuration.
    """

    selection: str
    recipe: str
    targets: Mapping[str, str]
    against: Mapping[str, str | None]
    model: str
    size: str | None
    lora: bool
    fingerprint: str | None
    seeds: int
    tokens: int | None
    held_out: int

    @cached_property
    def trial_id(self) -> str:
        """32 hex digits; a model's folder may move."""
        depends_on = asdict(self) | {"version": VERSION, "model": self.fingerprint or self.model}
        return digest_of(depends_on)

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm, in the order in which models are trained: what can be seen is known before the selection's."""
        return (RANDOM, AGAIN, SELECTION, *self.against)

    def record(self) -> dict[str, Any]:
        """The JSON-plain form that is kept."""
        return {"trial_id": self.trial_id, **asdict(self), "version": VERSION}


def trial_spec(context: Context, name: str, settings: Trials | None = None) -> TrialSpec:
    """The trial of a selection.

    Args:
        name: as in `pipelines.named.selection_of`.
        settings: the `trials` section, that of the configuration if left out.

    Raises:
        NotInStore: there is no such selection.
        TrialRefused: nothing to measure on, or a batch to label.
        UnknownRecipe: a control is neither known nor a recipe.
        InvalidOption: there is no such model.
    """
    settings = settings or context.config.trials or Trials()
    selection = selection_of(context.store, name)
    header, _ = read_selection(context.store, selection)
    drawn = SelectionSpec.from_record(header)
    if drawn.arm is not None:
        raise TrialRefused(f"{name!r} is a batch of rows to label; a trial takes the selection of a recipe")
    sets = _measuring(context, name, drawn, settings)
    return TrialSpec(
        selection=selection,
        recipe=header["recipe"],
        targets={target_set.name: target_set.id for target_set in sets},
        against={control: _control(context, control) for control in settings.against if control != RANDOM},
        model=settings.model,
        size=settings.size if settings.model == SCRATCH else None,
        lora=settings.lora and settings.model != SCRATCH,
        fingerprint=None if settings.model == SCRATCH else ModelSpec(model=settings.model).fingerprint(),
        seeds=settings.seeds,
        tokens=settings.tokens,
        held_out=settings.held_out,
    )


def _control(context: Context, name: str) -> str | None:
    if name in CONTROLS:
        return None
    known = [*CONTROLS, *context.config.recipes]
    if name not in context.config.recipes:
        raise UnknownRecipe(
            f"trials.against: {name!r} is neither a control nor a recipe{nearest(name, known)}; there are: {listed(known)}"
        )
    return resolve_spec(context, name).selection_id


def _measuring(context: Context, name: str, drawn: SelectionSpec, settings: Trials) -> list[TargetSet]:
    """The target sets to measure on.

    Those that steps saw are taken as they were when the selection was drawn: a step must not have seen what measures.

    Raises:
        TrialRefused: none of them has examples that only measure.
    """
    known = context.config.targets
    wanted = settings.targets or tuple(drawn.targets) or tuple(known)
    unknown = [target for target in wanted if target not in drawn.targets and target not in known]
    if unknown:
        meant = nearest(unknown[0], known)
        raise TrialRefused(f"trials.targets: no target set is called {unknown[0]!r}{meant}; there are: {listed(known)}")
    view = context.pool
    sets = [
        view.target_set_of(drawn.targets[target]) if target in drawn.targets else view.target_set(target)
        for target in wanted
    ]
    measuring = [target_set for target_set in sets if len(target_set.measuring)]
    if measuring:
        return measuring
    again = f"winnow run {name}" if name in context.config.recipes else "winnow run"
    now = [target for target in wanted if target in known and known[target].measure is not None]
    if not wanted:
        reason = "the configuration names no target set"
        remedy = "name files of examples under `targets`, and with `measure: 0.5` the share that only measures"
    elif now:
        reason = f"{name!r} was drawn before a part of {listed(now)} was set aside to measure"
        remedy = f"draw it again: {again}"
    else:
        reason = (
            f"no example of {listed(wanted)} only measures, and the steps that chose rows may have seen all of them"
        )
        remedy = f"set `targets.{wanted[0]}.measure: 0.5` in winnow.yaml, then: {again}"
    raise TrialRefused(f"a trial has nothing to measure on: {reason}; {remedy}")
