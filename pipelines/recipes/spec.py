"""What a selection depends on.

A `SelectionSpec` is everything that a selection depends on. Its hash is the selection's id, so drawing the same twice
is one record and nothing is computed the second time. `pipelines.recipes.draw` carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from pipelines.classifiers.resolve import source_encoder, source_names, source_record
from pipelines.classifiers.source import SourceRecord
from pipelines.config.schema import Config, Recipe
from pipelines.context import Context
from pipelines.pool_view import PoolView, sql_words
from pipelines.recipes.contamination import contamination_spec
from pipelines.runs import last_run
from selection import Constraints, TokenBudget
from selection.constraints import plain
from selection.encoders import tokenizer_fingerprint
from selection.registry import recorded_spec, recorded_steps, required
from selection.step import Step
from selection.types import Input
from storage.errors import BadInput
from storage.pool.condition import changeable, not_of_the_row
from storage.pool.snapshot import Snapshot
from storage.records import digest_of, read_selection


@dataclass(frozen=True)
class IdList:
    """A file of ids, as a selection depends on it.

    Attributes:
        file: its path, for people and to read it again.
        digest: of the rows that it names, whatever their order and spelling in the file.
    """

    file: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class SelectionSpec:
    """All that a selection depends on.

    Attributes:
        steps: filters, scorers and the selector.
        constraints: the budget, and how it is divided among groups.
        tokenizer: the fingerprint of what counts the budget's tokens, where no column of the pool does.
        snapshot: of the pool.
        encoder: the fingerprint of the pool's vectors; None where the steps need none.
        index: the vector index that the steps search, where one of them does and there is one; None where all is exact.
        targets: target set to match -> the id of its record, in the order of round robin.
        target_encoders: target set -> the encoder of its vectors, where it is another one than the pool's.
        held_out: ids of the target sets whose prompts must not be chosen, sorted.
        where: a SQL condition on the rows.
        allow, deny: lists of ids.
        previous: the selection that this one adds to (`mode: top_up`) or changes (`mode: sticky`).
        max_churn: the part of the budget that `mode: sticky` may replace of `previous`; None for other modes, and where
            there is nothing yet to stick to.
        contamination: the search for evaluation texts whose matches must not be chosen; None where there is no setting.
        scores: column of token scores that is read -> the fingerprint of its model.
        probabilities: where class probabilities come from; None where nothing needs them, and for an arm. Its `url` is
            not hashed.
        arm: what an arm of a labeling round depends on beside a recipe, JSON-plain; None for a recipe.
    """

    steps: tuple[Step, ...]
    constraints: Constraints
    tokenizer: str | None = None
    seed: int
    round: int
    allow_short: bool
    snapshot: str
    encoder: str | None
    index: str | None
    targets: Mapping[str, str]
    target_encoders: Mapping[str, str]
    held_out: tuple[str, ...]
    where: str | None
    allow: IdList | None
    deny: IdList | None
    previous: str | None
    max_churn: float | None = None
    contamination: str | None = None
    scores: Mapping[str, str] = field(default_factory=dict)
    probabilities: SourceRecord | None = None
    arm: Mapping[str, Any] | None = None

    @cached_property
    def selection_id(self) -> str:
        """32 hex digits."""
        record = self.record()
        # Canonical JSON sorts keys, and round robin visits target sets in their order.
        depends_on = {**record, "targets": list(self.targets.items())}
        if self.arm is None:  # so that a recipe's selections keep their names
            del depends_on["arm"]
        return digest_of(depends_on)

    @property
    def budget(self) -> int:
        """How many rows or tokens to take."""
        return self.constraints.amount

    @property
    def token_column(self) -> str | None:
        """The column that a budget in tokens counts by."""
        budget = self.constraints.budget
        return budget.counted_in if isinstance(budget, TokenBudget) else None

    @cached_property
    def inputs(self) -> frozenset[Input]:
        """What steps and constraints take from outside."""
        return required(self.steps)[0] | self.constraints.needs

    @cached_property
    def columns(self) -> frozenset[str]:
        """The columns that steps and constraints read."""
        return required(self.steps)[1] | self.constraints.columns

    @cached_property
    def expressions(self) -> frozenset[str]:
        """Those of the columns that are SQL expressions."""
        return frozenset().union(*(step.expressions for step in self.steps))

    def record(self) -> dict[str, Any]:
        """The JSON-plain form that is hashed and kept."""
        constraints = self.constraints
        record = {
            "steps": [recorded_spec(step) for step in self.steps],
            "budget": self.budget,
            "tokens": self.token_column,
            "tokenizer": self.tokenizer,
            "quota": None if constraints.quota is None else plain(constraints.quota),
            "group_by": constraints.group_by,
            "max_per_group": constraints.max_per_group,
            "seed": self.seed,
            "round": self.round,
            "allow_short": self.allow_short,
            "snapshot": self.snapshot,
            "encoder": self.encoder,
            "index": self.index,
            "targets": dict(self.targets),
            "target_encoders": dict(self.target_encoders),
            "held_out": list(self.held_out),
            "where": self.where,
            "allow": None if self.allow is None else self.allow.digest,
            "deny": None if self.deny is None else self.deny.digest,
            "previous": self.previous,
            "arm": None if self.arm is None else dict(self.arm),
        }
        # Without the settings, selections keep their names.
        if self.max_churn is not None:
            record["max_churn"] = self.max_churn
        if self.contamination is not None:
            record["contamination"] = self.contamination
        if self.scores:
            record["scores"] = dict(self.scores)
        if self.probabilities is not None:  # so that other selections keep their names
            record["probabilities"] = {key: value for key, value in self.probabilities.items() if key != "url"}
        return record

    @classmethod
    def from_record(cls, header: Mapping[str, Any]) -> SelectionSpec:
        """The spec that a selection's record was drawn from."""
        budget = header["budget"]
        if header.get("tokens") is not None:
            budget = TokenBudget(tokens=budget, column=header["tokens"])
        constraints = Constraints.of(
            budget, header.get("quota"), header.get("group_by"), header.get("max_per_group", 1)
        )
        probabilities = header.get("probabilities")
        if probabilities is not None and "file" in probabilities:
            probabilities = {**probabilities, "url": header["probabilities_file"]}
        return cls(
            steps=recorded_steps(header["steps"]),
            constraints=constraints,
            tokenizer=header.get("tokenizer"),
            seed=header["seed"],
            round=header["round"],
            allow_short=header["allow_short"],
            snapshot=header["snapshot"],
            encoder=header["encoder"],
            index=header["index"],
            targets=header["targets"],
            target_encoders=header["target_encoders"],
            held_out=tuple(header["held_out"]),
            where=header["where"],
            allow=None if header["allow"] is None else IdList(header["allow_file"], header["allow"]),
            deny=None if header["deny"] is None else IdList(header["deny_file"], header["deny"]),
            previous=header["previous"],
            max_churn=header.get("max_churn"),
            contamination=header.get("contamination"),
            scores=header.get("scores", {}),
            probabilities=probabilities,
            arm=header.get("arm"),
        )


def resolve_spec(context: Context, name: str) -> SelectionSpec:
    """What the recipe `name` would draw from now.

    Raises:
        NothingYet: nothing was ingested.
    """
    recipe = context.config.recipes[name]
    last = last_run(context.store, "select", name) if recipe.mode != "fresh" else None
    spec = recipe_spec(context.pool, recipe, previous=last["subject"] if last else None)
    if spec.previous is not None:
        before = SelectionSpec.from_record(read_selection(context.store, spec.previous)[0])
        # A fresh draw of the same inputs is what a sticky one would give.
        max_churn = before.max_churn if before.previous else spec.max_churn
        if replace(before, previous=spec.previous, max_churn=max_churn).selection_id == spec.selection_id:
            return before  # nothing has changed since: what it would go on from is what it would give
    return spec


def recipe_spec(pool: PoolView, recipe: Recipe, *, previous: str | None = None) -> SelectionSpec:
    """What a recipe draws from on the pool as it is now.

    Args:
        previous: the selection that it goes on from.
    """
    every_target = {target.name: target.id for target in pool.target_sets(pool.config.targets)}
    encoder = recipe.encoder if needs_vectors(recipe) else None
    fingerprint = pool.fingerprint(encoder) if encoder else None
    searched = contamination_spec(pool)
    words = columns_read(recipe)
    tokenizer = recipe.budget.tokenizer if isinstance(recipe.budget, TokenBudget) else None
    for expression in sorted(set().union(*(step.expressions for step in recipe.steps.parsed))):
        _checked("expression", expression, pool.known_columns)
    return SelectionSpec(
        steps=recipe.steps.parsed,
        constraints=recipe.constraints,
        tokenizer=tokenizer_fingerprint(tokenizer) if tokenizer else None,
        seed=recipe.seed,
        round=recipe.round,
        allow_short=recipe.allow_short,
        snapshot=pool.snapshot.id,
        encoder=fingerprint,
        index=pool.newest_index(fingerprint) if fingerprint and recipe.steps.searches else None,
        targets={name: every_target[name] for name in recipe.targets},
        target_encoders=pool.target_encoders(encoder, recipe.targets) if encoder else {},
        held_out=tuple(sorted(every_target.values())) if recipe.exclude_targets else (),
        where=_checked("where", recipe.where, pool.known_columns),
        allow=id_list(recipe.allow, pool.snapshot, strict=True),
        deny=id_list(recipe.deny, pool.snapshot, strict=False),
        previous=previous,
        max_churn=recipe.churn if previous is not None else None,
        contamination=None if searched is None else searched.contamination_id,
        scores={
            column: pool.model_fingerprint(model)
            for column, model in pool.score_columns.items()
            if column.lower() in words
        },
        probabilities=source_record(pool, recipe),
    )


def columns_read(recipe: Recipe) -> frozenset[str]:
    """The names, in lower case, that steps and constraints read as columns, and all words of their SQL expressions."""
    columns = required(recipe.steps.parsed)[1] | recipe.constraints.columns
    sql = [recipe.where or "", *columns]  # an expression is a column's name
    return sql_words(*sql)


def models_of(config: Config, recipes: Iterable[str]) -> list[str]:
    """The models whose token scores the recipes and their classifiers may read, each once.

    A column of the pool of that name comes first.
    """
    words = frozenset().union(*(columns_read(config.recipes[name]) for name in recipes))
    scored = (
        models_of_classifier(config, name) for name in source_names(config, recipes) if name in config.classifiers
    )
    return list(models_named(config, words) | dict.fromkeys(chain.from_iterable(scored)))


def models_of_classifier(config: Config, name: str) -> list[str]:
    """The models whose token scores the examples of a classifier may be chosen by."""
    conditions = [rule.where for rule in config.classifiers[name].classes.values() if rule.where is not None]
    return list(models_named(config, sql_words(*conditions)))


def models_of_project(config: Config, project: str) -> list[str]:
    """The same of a labeling project."""
    settings = config.labeling[project]
    arms = [
        settings.recipe(steps, 1, 0, quota=settings.quota, targets=())
        for steps in (settings.active_steps, settings.cold_start)
    ]
    return list(models_named(config, frozenset().union(*map(columns_read, arms))))


def models_named(config: Config, words: Iterable[str]) -> dict[str, None]:
    """The models of which a column is among some names in lower case."""
    names = {column.lower(): model for column, model in config.score_columns.items()}
    return dict.fromkeys(names[word] for word in sorted(words) if word in names)


def _checked(key: str, expression: str | None, columns: Collection[str]) -> str | None:
    """An expression, once the columns are known: `user` may be a field, or who runs this.

    Raises:
        BadInput: it is not a function of the row.
    """
    suspect = None if expression is None else not_of_the_row(expression, columns)
    if suspect is not None:
        raise BadInput(f"{key}: {expression!r} {changeable(suspect)}")
    return expression


def id_list(file: str | None, snapshot: Snapshot, *, strict: bool) -> IdList | None:
    """A file of ids as it is now; None for no file."""
    if file is None:
        return None
    rows, _ = snapshot.rows_named(Path(file), strict=strict)
    return IdList(file, snapshot.digest_of(rows))


def needs_vectors(recipe: Recipe) -> bool:
    """Whether a recipe works on its encoder's vectors; an arm of a labeling project does so through its classifier, too."""
    inputs = {Input.VECTORS, Input.TARGETS}
    if recipe.probabilities is None:
        inputs |= {Input.PROBABILITIES, Input.COMMITTEE}
    return bool(recipe.steps.inputs & inputs)


def encoders_of(config: Config, recipes: Iterable[str]) -> list[str]:
    """The encoders whose vectors the recipes need, each once: for their steps, or for what gives them probabilities."""
    recipes = list(recipes)
    chosen = [config.recipes[name] for name in recipes]
    encoders = [recipe.encoder for recipe in chosen if needs_vectors(recipe)]
    encoders += [source_encoder(config, name) for name in source_names(config, recipes)]
    return list(dict.fromkeys(encoder for encoder in encoders if encoder is not None))
