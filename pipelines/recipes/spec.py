"""What a selection depends on.

A `SelectionSpec` is everything that a selection depends on; its hash is the selection's id, so drawing the same twice is one
record and nothing is computed the second time. `pipelines.recipes.draw` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config.load import Config, Recipe
from pipelines.config.schema import OWN_VECTORS, TokenBudget
from pipelines.context import Context
from pipelines.runs import last_run
from selection import Constraints
from selection.constraints import plain
from selection.encoders import tokenizer_fingerprint
from selection.registry import parse_steps, required, step_spec
from selection.types import Input
from storage import ids as idlib
from storage.pool.snapshot import Snapshot
from storage.pool.targets import TargetSet, ingest_targets
from storage.records import digest_of, read_selection
from storage.vectors import imported as own_vectors
from storage.vectors.index import records


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one arm of a round of labeling depends on beside what a recipe does, JSON-plain.

    Attributes:
        project: of `labeling:`.
        classes: their names; the position is the class number.
        aggregate: how several labels of a row become one.
        labels: digest of the log of labels that it saw.
        rounds: the rounds before; their random arms do not train.
        open: those of them whose rows are still out.
        apart: the round's other selection, whose rows are not drawn again.
        classifier, members: what gives probabilities and a committee; None and 0 where the steps need none.
        purse: what is left to spend and what a row costs, where that ends the batch; see `pipelines.labeling.costs`.
    """

    project: str
    classes: list[str]
    aggregate: str
    labels: str
    rounds: list[str]
    open: list[str]
    apart: str | None
    classifier: Any
    members: int
    purse: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class SelectionSpec:
    """All that a selection depends on, JSON-plain.

    Attributes:
        budget: rows; or tokens, where `tokens` names the column that counts them.
        tokenizer: the fingerprint of what fills that column, where the pool does not have it.
        index: the vector index that the steps search, where one of them does and there is one; None where all is exact.
        quota: as `selection.Quota` takes it.
        targets: target set to match -> the id of its record, in the order of round robin.
        target_encoders: target set -> the encoder of its vectors, where it is not the pool's but the user's own.
        held_out: target sets whose prompts must not be chosen.
        allow, deny: digest of the list of ids, None where there is no list.
        previous: the selection that this one adds to (`mode: top_up`).
        arm: of a round of labeling; None for a recipe.
    """

    steps: list[Any]
    budget: int
    tokens: str | None = None
    tokenizer: str | None = None
    quota: dict[str, Any] | None = None
    group_by: str | None = None
    max_per_group: int = 1
    seed: int
    round: int
    allow_short: bool
    snapshot: str
    encoder: str | None
    index: str | None
    targets: dict[str, str]
    target_encoders: dict[str, str]
    held_out: list[str]
    where: str | None
    allow: str | None
    deny: str | None
    previous: str | None
    arm: Arm | None = None

    @property
    def selection_id(self) -> str:
        """32 hex digits."""
        depends_on = {**asdict(self), "targets": list(self.targets.items())}
        if self.arm is None:  # so that a recipe's selections keep their names
            del depends_on["arm"]
        return digest_of(depends_on)

    @property
    def constraints(self) -> Constraints:
        """Budget, quota and groups."""
        budget = self.budget if self.tokens is None else {"tokens": self.budget, "column": self.tokens}
        return Constraints.of(budget, self.quota, self.group_by, self.max_per_group)


def needs(recipe: Recipe) -> frozenset[Input]:
    """What a recipe's steps take from outside."""
    return required(parse_steps(recipe.steps))[0]


def needs_vectors(recipe: Recipe) -> bool:
    """Whether a recipe works on an encoder's vectors, itself or through a classifier."""
    return bool(needs(recipe) & {Input.VECTORS, Input.TARGETS, Input.PROBABILITIES, Input.COMMITTEE})


def encoders_of(config: Config, recipes: Iterable[str]) -> list[str]:
    """The encoders whose vectors the recipes need, each once."""
    chosen = [config.recipes[name] for name in recipes]
    return list(dict.fromkeys(one.encoder for one in chosen if one.encoder is not None and needs_vectors(one)))


def fingerprint(context: Context, encoder: str, target: str | None = None) -> str:
    """What names the folder of an encoder's vectors, of the pool or of a target set."""
    if encoder == OWN_VECTORS:
        return own_vectors.fingerprint(context.store, context.config.vector_files(target))
    return context.config.encoders[encoder].fingerprint()


def index_for(context: Context, steps: Sequence[Any], snapshot: str, encoder: str) -> str | None:
    """The newest index of the encoder over the snapshot, for steps that search one.

    None where no step does, where there is none, and where it compares every row itself: steps do that exactly.
    """
    if not any(step.searches for step in parse_steps(steps)):
        return None
    known = records(context.store, encoder)
    found = [one.index for one in known if one.snapshot == snapshot and one.kind != "flat"]
    return found[-1] if found else None


def target_sets(context: Context, names: Iterable[str]) -> list[TargetSet]:
    """The target sets by name, read where they are not in the store yet."""
    config = context.config
    return [ingest_targets(context.store, name, config.targets[name].specs(config.root)) for name in names]


def resolve(context: Context, name: str) -> SelectionSpec:
    """What the recipe `name` would draw from now.

    Raises:
        NothingYet: nothing was ingested.
    """
    recipe = context.config.recipes[name]
    previous = last_run(context.store, "select", name) if recipe.mode == "top_up" else None
    drawing = resolve_recipe(context, recipe, previous["subject"] if previous else None)
    if drawing.previous is not None:
        before = recorded(read_selection(context.store, drawing.previous)[0])
        if replace(before, previous=drawing.previous).selection_id == drawing.selection_id:
            return before  # nothing has changed since: what it would add to is what it would give
    return drawing


def resolve_recipe(context: Context, recipe: Recipe, previous: str | None = None) -> SelectionSpec:
    """What a recipe draws from on the pool as it is now.

    Args:
        previous: the selection that it adds to.
    """
    snapshot = context.snapshot()
    every_target = {target.name: target.id for target in target_sets(context, context.config.targets)}
    encoder = recipe.encoder if needs_vectors(recipe) else None
    own = recipe.targets if encoder == OWN_VECTORS else ()
    budget = recipe.budget if isinstance(recipe.budget, TokenBudget) else None
    return SelectionSpec(
        steps=[step_spec(step) for step in parse_steps(recipe.steps)],
        budget=recipe.amount,
        tokens=budget.counted_in if budget else None,
        tokenizer=tokenizer_fingerprint(budget.tokenizer) if budget and budget.tokenizer else None,
        quota=None if recipe.constraints.quota is None else plain(recipe.constraints.quota),
        group_by=recipe.group_by,
        max_per_group=recipe.max_per_group,
        seed=recipe.seed,
        round=recipe.round,
        allow_short=recipe.allow_short,
        snapshot=snapshot.id,
        encoder=fingerprint(context, encoder) if encoder else None,
        index=index_for(context, recipe.steps, snapshot.id, fingerprint(context, encoder)) if encoder else None,
        targets={one: every_target[one] for one in recipe.targets},
        target_encoders={one: fingerprint(context, OWN_VECTORS, one) for one in own},
        held_out=sorted(every_target.values()) if recipe.exclude_targets else [],
        where=recipe.where,
        allow=digest(recipe.allow, snapshot, strict=True),
        deny=digest(recipe.deny, snapshot, strict=False),
        previous=previous,
    )


def digest(listed: str | None, snapshot: Snapshot, *, strict: bool) -> str | None:
    """Of the rows that a file of ids names, as ids: whatever their order and spelling in the file."""
    if listed is None:
        return None
    rows, _ = snapshot.rows_named(Path(listed), strict=strict)
    return digest_of(idlib.to_text(snapshot.ids[np.unique(rows)]))


def recorded(header: Mapping[str, Any]) -> SelectionSpec:
    """What a selection's record says that it was drawn from."""
    given = {one.name: header[one.name] for one in fields(SelectionSpec) if one.name in header}
    if given.get("arm") is not None:
        given["arm"] = Arm(**given["arm"])
    return SelectionSpec(**given)
