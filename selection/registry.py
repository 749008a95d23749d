"""Which steps there are, and how a recipe's JSON becomes steps and goes back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from selection.errors import BrokenStep, InvalidOption, InvalidRecipe, UnknownStep
from selection.step import Filter, Scorer, Selector, Step
from selection.types import Input

# Where each step is: it is imported when a recipe first names it.
BUILT_IN = {
    "anchors": "selection.filters.anchors:Anchors",
    "best_of": "selection.filters.best_of:BestOf",
    "decontaminate": "selection.filters.decontaminate:Decontaminate",
    "keep_top": "selection.filters.keep_top:KeepTop",
    "near_duplicates": "selection.filters.near_duplicates:NearDuplicates",
    "outliers": "selection.filters.outliers:Outliers",
    "random_subpool": "selection.filters.random_subpool:RandomSubpool",
    "seals": "selection.filters.seals:Seals",
    "semdedup": "selection.filters.semdedup:SemDedup",
    "aum": "selection.scorers.training_dynamics:Aum",
    "bald": "selection.scorers.committee:Bald",
    "betr": "selection.scorers.betr:Betr",
    "cal": "selection.scorers.cal:Cal",
    "cartography": "selection.scorers.training_dynamics:Cartography",
    "class_probability": "selection.scorers.class_probability:ClassProbability",
    "column": "selection.scorers.column:Column",
    "combine": "selection.scorers.combine:Combine",
    "committee_kl": "selection.scorers.committee:CommitteeKL",
    "density": "selection.scorers.density:Density",
    "dsir": "selection.scorers.dsir:Dsir",
    "el2n": "selection.scorers.training_dynamics:El2n",
    "entropy": "selection.scorers.uncertainty:Entropy",
    "epig": "selection.scorers.epig:Epig",
    "expected_cost": "selection.scorers.uncertainty:ExpectedCost",
    "expected_gradient_length": "selection.scorers.expected_gradient_length:ExpectedGradientLength",
    "expression": "selection.scorers.expression:Expression",
    "forgetting": "selection.scorers.training_dynamics:Forgetting",
    "ifd": "selection.scorers.likelihood:Ifd",
    "least_confidence": "selection.scorers.uncertainty:LeastConfidence",
    "margin": "selection.scorers.uncertainty:Margin",
    "perplexity": "selection.scorers.likelihood:Perplexity",
    "prototypicality": "selection.scorers.prototypicality:Prototypicality",
    "rds_max": "selection.scorers.rds:RdsMax",
    "rds_mean": "selection.scorers.rds:RdsMean",
    "token_uncertainty": "selection.scorers.likelihood:TokenUncertainty",
    "vote_entropy": "selection.scorers.committee:VoteEntropy",
    "badge": "selection.selectors.badge:Badge",
    "batch_bald": "selection.selectors.batch_bald:BatchBald",
    "ccs": "selection.selectors.ccs:Ccs",
    "clue": "selection.selectors.clue:Clue",
    "diversity_filter": "selection.selectors.diversity_filter:DiversityFilter",
    "facility_location": "selection.selectors.facility_location:FacilityLocation",
    "falcun": "selection.selectors.falcun:Falcun",
    "herding": "selection.selectors.herding:Herding",
    "influence": "selection.selectors.influence:Influence",
    "interests": "selection.selectors.interests:Interests",
    "k_center": "selection.selectors.k_center:KCenter",
    "kmeans_pp": "selection.selectors.kmeans_pp:KMeansPP",
    "lightweight": "selection.selectors.lightweight:Lightweight",
    "pcoreset": "selection.selectors.pcoreset:PCoreSet",
    "power": "selection.selectors.stochastic:Power",
    "probcover": "selection.selectors.probcover:ProbCover",
    "random": "selection.selectors.random:Random",
    "ranked_batch": "selection.selectors.ranked_batch:RankedBatch",
    "rds_plus": "selection.selectors.rds_plus:RdsPlus",
    "rs2": "selection.selectors.rs2:Rs2",
    "softmax": "selection.selectors.stochastic:Softmax",
    "softrank": "selection.selectors.stochastic:Softrank",
    "stratified": "selection.selectors.stratified:Stratified",
    "top": "selection.selectors.top:Top",
    "tsds": "selection.selectors.tsds:Tsds",
    "typiclust": "selection.selectors.typiclust:TypiClust",
    "vote_k": "selection.selectors.vote_k:VoteK",
}

ENTRY_POINTS = "winnow.steps"

# A step as a recipe writes it: `"top"` or `{"power": {"beta": 2}}`.
Spec = str | Mapping[str, Any]


def step_names() -> tuple[str, ...]:
    """The names of all steps, built in and installed, sorted; no step is imported."""
    return tuple(sorted({*BUILT_IN, *_installed()}))


def find_step(name: str) -> type[Step]:
    """The class of a step, imported now if it is not yet.

    Raises:
        UnknownStep: lists the known names and the nearest one; or an entry point is no step of its name.
        BrokenStep: an installed step has no name.
    """
    if name in BUILT_IN:
        module, _, cls = BUILT_IN[name].partition(":")
        return cast("type[Step]", getattr(import_module(module), cls))
    installed = _installed()
    if name in installed:
        step = installed[name].load()
        if isinstance(step, type) and issubclass(step, Step):
            check_named(step)
            if step.name == name:
                return step
        raise UnknownStep(f"{name}: the entry point {installed[name].value} is not a step of that name")
    near = difflib.get_close_matches(str(name), step_names(), n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownStep(f"unknown step {name!r}.{guess} Known: {', '.join(step_names())}")


def check_named(step: type[Step]) -> None:
    """Raise `BrokenStep` unless a class has a name."""
    if not isinstance(getattr(step, "name", None), str):
        raise BrokenStep(
            f"{step.__name__} has no name for recipes to call it by: give the class a `name: ClassVar[str] = ...`"
        )


def build_step(spec: Spec | Step) -> Step:
    """One step from its JSON.

    Raises:
        UnknownStep, InvalidOption: the name or an option is not known, or an option is out of range.
        BrokenStep: an installed step has no name or is no dataclass.

    >>> build_step({"rds_plus": {"on_duplicate": "advance"}})
    RdsPlus(on_duplicate='advance', per='auto', on_full_group='lose_turn', version=2)
    """
    if isinstance(spec, Step):
        check_named(type(spec))
        return spec
    name, options = _split(spec)
    cls = find_step(name)
    if not hasattr(cls, "__dataclass_fields__"):
        raise BrokenStep(f"{name}: {cls.__name__} must be a frozen dataclass, whose fields are its options")
    known: dict[str, Any] = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    if cls.open_options is not None:
        return cls(**{cls.open_options: options})
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(str(option), known, n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            allowed = f"it has {', '.join(known)}" if known else "it has no options"
            raise InvalidOption(f"unknown option {option!r}; {allowed}.{guess}", step=name, option=option)
    for option, field in known.items():
        if field.default is MISSING and field.default_factory is MISSING and option not in options:
            example = f"{{{name}: {{{option}: ...}}}}"
            raise InvalidOption(f"needs the option {option!r}, for example {example}", step=name, option=option)
    return cls(**options)


def inner_selector(step: str, option: str, spec: Any) -> Selector:
    """The selector that an option of another step names.

    Raises:
        UnknownStep, InvalidOption: see `build_step`; or it is no selector.
    """
    if not isinstance(spec, str | Mapping):
        raise InvalidOption(
            f"{option} must be a selector's name or {{name: options}}, got {spec!r}", step=step, option=option
        )
    inner = build_step(spec)
    if not isinstance(inner, Selector):
        raise InvalidOption(f"{option} must be a selector, {inner.name!r} is a {inner.kind}", step=step, option=option)
    return inner


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
        steps.append(build_step("top"))
    _check_order(steps)
    return tuple(steps)


def step_spec(step: Step) -> dict[str, Any]:
    """The JSON of a step, with every option: `build_step(step_spec(step)) == step`.

    >>> step_spec(build_step("keep_top"))
    {'keep_top': {'times': 5.0}}
    """
    if step.open_options is not None:
        return {step.name: getattr(step, step.open_options)}
    return {step.name: asdict(step)}  # type: ignore[call-overload]


def recorded_spec(step: Step) -> dict[str, Any]:
    """The JSON of a step for a record: `version` only where another version would draw otherwise.

    >>> recorded_spec(build_step("vote_k"))
    {'vote_k': {'n_neighbors': 150, 'rho': 10, 'buckets': False, 'version': 2}}
    >>> recorded_spec(build_step({"vote_k": {"version": 1}}))
    {'vote_k': {'n_neighbors': 150, 'rho': 10, 'buckets': False}}
    """
    ((name, options),) = step_spec(step).items()
    if step.open_options is not None:
        return {name: _weighted(options, _recorded_options) if step.open_steps else options}
    unsaid = {option for option in step.added_options if options[option] == _default(type(step), option)}
    unsaid |= {"version"} if step.algorithm == 1 else set()
    options = {option: value for option, value in options.items() if option not in unsaid}
    return {name: options | {option: _recorded_inner(options[option]) for option in step.inner_options}}


def recorded_steps(specs: Sequence[Spec]) -> tuple[Step, ...]:
    """The steps of a record: a step without a `version` is of version 1, the only one when the record was made.

    >>> recorded_steps([{"vote_k": {"rho": 5}}])[0].algorithm, parse_steps([{"vote_k": {"rho": 5}}])[0].algorithm
    (1, 2)
    """
    return parse_steps([_of_first_version(spec) for spec in specs])


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
        if isinstance(options, str) and isinstance(name, str) and (option := find_step(name).text_option) is not None:
            options = {option: options}
        if isinstance(name, str) and isinstance(options, Mapping):
            return name, options
    if isinstance(spec, type):
        hint = (
            f"{spec.__name__}(...), an object of it"
            if issubclass(spec, Step)
            else "a subclass of Filter, Scorer or Selector"
        )
        raise InvalidRecipe(f"a step is no class: {spec.__name__} stands where {hint} is expected")
    raise InvalidRecipe(f"a step is a name or {{name: {{option: value}}}}, got {spec!r}")


def _recorded_inner(spec: Spec) -> Spec:
    """A step that an option names, as a record keeps it: as it is written, with its version where that matters."""
    name, options = _split(spec)
    inner = recorded_spec(build_step(spec))[name]
    plain = {option: value for option, value in options.items() if option != "version"}
    nested = {option: inner[option] for option in find_step(name).inner_options if option in plain}
    plain |= nested | ({"version": inner["version"]} if "version" in inner else {})
    if plain == options:
        return spec
    return {name: plain} if plain else name


def _weighted(steps: Mapping[str, Any], change: Callable[[str, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Steps with weights, as in `combine`, with the options of each changed; a weight alone stays a number."""

    def changed(name: str, entry: Any) -> Any:
        options = dict(entry) if isinstance(entry, Mapping) else {"weight": entry}
        weight = {"weight": options.pop("weight")} if "weight" in options else {}
        after = change(name, options)
        return entry if after == options else weight | after if after else weight.get("weight", 1)

    return {
        name: [changed(name, entry) for entry in value] if isinstance(value, list | tuple) else changed(name, value)
        for name, value in steps.items()
    }


def _recorded_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an inner step, with its version where that matters and without where it does not."""
    step = build_step({name: options})
    plain = {option: value for option, value in options.items() if option != "version"}
    return plain | ({"version": recorded_spec(step)[name]["version"]} if step.algorithm > 1 else {})


def _first_options(name: str, options: dict[str, Any]) -> dict[str, Any]:
    first = {"version": 1} if "version" in getattr(find_step(name), "__dataclass_fields__", {}) else {}
    return first | options


def _of_first_version(spec: Spec) -> Spec:
    name, options = _split(spec)
    cls = find_step(name)
    if cls.open_options is not None:
        return {name: _weighted(options, _first_options)} if cls.open_steps else spec
    inner = {option: _of_first_version(options[option]) for option in cls.inner_options if option in options}
    first = {"version": 1} if "version" in getattr(cls, "__dataclass_fields__", {}) else {}
    given = first | dict(options) | inner
    return spec if given == options else {name: given}


def _default(cls: type[Step], option: str) -> Any:
    return next(field.default for field in fields(cls) if field.name == option)  # type: ignore[arg-type]


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
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}
