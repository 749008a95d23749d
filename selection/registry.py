"""Which steps there are, and how a recipe's JSON becomes steps and goes back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

from selection.errors import InvalidOption, InvalidRecipe, UnknownStep
from selection.filters.anchors import Anchors
from selection.filters.keep_top import KeepTop
from selection.filters.near_duplicates import NearDuplicates
from selection.filters.outliers import Outliers
from selection.filters.random_subpool import RandomSubpool
from selection.filters.seals import Seals
from selection.filters.semdedup import SemDedup
from selection.scorers.cal import Cal
from selection.scorers.column import Column
from selection.scorers.combine import Combine
from selection.scorers.committee import Bald, CommitteeKL, VoteEntropy
from selection.scorers.density import Density
from selection.scorers.epig import Epig
from selection.scorers.expected_gradient_length import ExpectedGradientLength
from selection.scorers.rds import RdsMax, RdsMean
from selection.scorers.training_dynamics import Aum, Cartography, El2n, Forgetting
from selection.scorers.uncertainty import Entropy, ExpectedCost, LeastConfidence, Margin
from selection.selectors.badge import Badge
from selection.selectors.batch_bald import BatchBald
from selection.selectors.ccs import Ccs
from selection.selectors.clue import Clue
from selection.selectors.facility_location import FacilityLocation
from selection.selectors.falcun import Falcun
from selection.selectors.herding import Herding
from selection.selectors.influence import Influence
from selection.selectors.k_center import KCenter
from selection.selectors.kmeans_pp import KMeansPP
from selection.selectors.lightweight import Lightweight
from selection.selectors.pcoreset import PCoreSet
from selection.selectors.probcover import ProbCover
from selection.selectors.random import Random
from selection.selectors.ranked_batch import RankedBatch
from selection.selectors.rds_plus import RdsPlus
from selection.selectors.rs2 import Rs2
from selection.selectors.stochastic import Power, Softmax, Softrank
from selection.selectors.stratified import Stratified
from selection.selectors.top import Top
from selection.selectors.typiclust import TypiClust
from selection.selectors.vote_k import VoteK
from selection.step import Filter, Scorer, Selector, Step
from selection.types import Input

BUILT_IN: tuple[type[Step], ...] = (
    Anchors,
    KeepTop,
    NearDuplicates,
    Outliers,
    RandomSubpool,
    Seals,
    SemDedup,
    Aum,
    Bald,
    Cal,
    Cartography,
    Column,
    Combine,
    CommitteeKL,
    Density,
    El2n,
    Entropy,
    Epig,
    ExpectedCost,
    ExpectedGradientLength,
    Forgetting,
    LeastConfidence,
    Margin,
    RdsMax,
    RdsMean,
    VoteEntropy,
    Badge,
    BatchBald,
    Ccs,
    Clue,
    FacilityLocation,
    Falcun,
    Herding,
    Influence,
    KCenter,
    KMeansPP,
    Lightweight,
    PCoreSet,
    Power,
    ProbCover,
    Random,
    RankedBatch,
    RdsPlus,
    Rs2,
    Softmax,
    Softrank,
    Stratified,
    Top,
    TypiClust,
    VoteK,
)

ENTRY_POINTS = "winnow.steps"

# A step as a recipe writes it: `"top"` or `{"power": {"beta": 2}}`.
Spec = str | Mapping[str, Any]


def step_names() -> tuple[str, ...]:
    """The names of all steps, built in and installed, sorted; nothing is imported."""
    return tuple(sorted({step.name for step in BUILT_IN} | set(_installed())))


def find_step(name: str) -> type[Step]:
    """The class of a step.

    Raises:
        UnknownStep: lists the known names and the nearest one.
    """
    for step in BUILT_IN:
        if step.name == name:
            return step
    installed = _installed()
    if name in installed:
        loaded = installed[name].load()
        if not (isinstance(loaded, type) and issubclass(loaded, Step) and loaded.name == name):
            raise UnknownStep(f"{name}: the entry point {installed[name].value} is not a step of that name")
        return loaded
    near = difflib.get_close_matches(str(name), step_names(), n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownStep(f"unknown step {name!r}.{guess} Known: {', '.join(step_names())}")


def build_step(spec: Spec | Step) -> Step:
    """One step from its JSON.

    Raises:
        UnknownStep, InvalidOption: the name or an option is not known, or an option is out of range.

    >>> build_step({"rds_plus": {"on_duplicate": "advance"}})
    RdsPlus(on_duplicate='advance', per='auto')
    """
    if isinstance(spec, Step):
        return spec
    name, options = _split(spec)
    cls = find_step(name)
    known: dict[str, Any] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if cls.open_options is not None:
        return cls(**{cls.open_options: options})
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(str(option), known, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            allowed = f"it has {', '.join(known)}" if known else "it has no options"
            raise InvalidOption(f"unknown option {option!r}; {allowed}.{guess}", step=name, option=option)
    required = [o for o, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    missing = [option for option in required if option not in options]
    if missing:
        raise InvalidOption(
            f"needs the option {missing[0]!r}, for example {{{name}: {{{missing[0]}: ...}}}}",
            step=name,
            option=missing[0],
        )
    return cls(**options)


def parse_steps(specs: Spec | Step | Sequence[Spec | Step]) -> tuple[Step, ...]:
    """The steps of a recipe, checked to fit together; `top` is added after a last scorer, and one step is a list of one.

    Raises:
        UnknownStep, InvalidOption: see `build_step`.
        InvalidRecipe: the steps cannot run in this order.

    >>> [step.name for step in parse_steps(["rds_max", {"keep_top": {"times": 5}}, "random"])]
    ['rds_max', 'keep_top', 'random']
    """
    if isinstance(specs, str | Mapping | Step):
        specs = [specs]
    if not isinstance(specs, Sequence):
        raise InvalidRecipe(f"steps must be a list, got {specs!r}")
    if not specs:
        raise InvalidRecipe("steps is empty: a recipe ends in a selector or a scorer")
    steps = [build_step(spec) for spec in specs]
    if isinstance(steps[-1], Scorer):
        steps.append(Top())
    _check_order(steps)
    return tuple(steps)


def step_spec(step: Step) -> dict[str, Any]:
    """The JSON of a step, with every option: `build_step(step_spec(step)) == step`.

    >>> step_spec(Top())
    {'top': {}}
    """
    if step.open_options is not None:
        return {step.name: getattr(step, step.open_options)}
    return {step.name: asdict(step)}  # type: ignore[call-overload]


def required(steps: Iterable[Step]) -> tuple[frozenset[Input], frozenset[str]]:
    """What the steps read: their inputs (scores left out where a step before gives them) and the named columns."""
    inputs: set[Input] = set()
    columns: set[str] = set()
    scored = False
    for step in steps:
        inputs |= step.needs - ({Input.SCORES} if scored else set())
        columns |= step.columns
        scored = scored or isinstance(step, Scorer)
    return frozenset(inputs), frozenset(columns)


def _split(spec: Spec) -> tuple[str, Mapping[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, options),) = spec.items()
        options = {} if options is None else options
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    raise InvalidRecipe(f"a step is a name or {{name: {{option: value}}}}, got {spec!r}")


def _check_order(steps: Sequence[Step]) -> None:
    pending: Step | None = None  # a scorer whose scores nothing has used yet
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        if isinstance(step, Selector) != last:
            if last:
                raise InvalidRecipe(
                    f"the recipe ends in the filter {step.name!r}: add a selector, for example 'random'"
                )
            raise InvalidRecipe(f"the selector {step.name!r} must be the last step, but {steps[i + 1].name!r} follows")
        if not isinstance(step, Filter | Scorer | Selector):
            raise InvalidRecipe(f"{step.name!r} is neither filter, scorer nor selector")
        if Input.SCORES in step.needs:
            pending = None
        if isinstance(step, Scorer):
            if pending is not None:
                raise InvalidRecipe(
                    f"the scores of {pending.name!r} are replaced by those of {step.name!r} before anything uses them; "
                    f"combine them: {{combine: {{{pending.name}: 1, {step.name}: 1}}}}"
                )
            pending = step
    if pending is not None:
        raise InvalidRecipe(f"nothing uses the scores of {pending.name!r}: {steps[-1].name!r} needs none")


def _installed() -> dict[str, Any]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
