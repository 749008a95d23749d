"""The stages in one process, in order: what `winnow run` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pipelines.classifiers.resolve import source_name, source_names
from pipelines.context import Context
from pipelines.costs import as_bytes
from pipelines.errors import USER_ERRORS, HeldBack, RecipesFailed, UnknownRecipe
from pipelines.messages import nearest
from pipelines.recipes.check import check_recipe
from pipelines.recipes.spec import encoders_of, models_of
from pipelines.runs import peak_memory_bytes, runs
from pipelines.stages.decontaminate import decontaminate
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.export import export
from pipelines.stages.fit import fit
from pipelines.stages.fit_classifier import fit_classifier
from pipelines.stages.health import health
from pipelines.stages.index import index
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.pull import pull
from pipelines.stages.report import report
from pipelines.stages.select import select
from pipelines.stages.stage import Outcome
from pipelines.stages.token_scores import token_scores
from pipelines.stages.trial import trial
from pipelines.trials.records import finished_trial
from storage.errors import BadInput
from storage.vectors.index_parts import require_faiss


def run_all(context: Context, recipes: Sequence[str] | None = None) -> list[Outcome]:
    """Run every stage that the recipes need; give the outcome of each recipe.

    A recipe that fails or is held back does not stop the others: they are drawn and published before this raises.

    Raises:
        HeldBack: a blocking check failed before the recipes; nothing after it ran and the published catalog stays as it
            was.
        RecipesFailed: recipes failed or were held back; each keeps its last selection as its latest, and its exports.
            Or exports failed; each stays as it was.
        MissingExtra: the recipes search an index, and faiss is not installed; nothing ran.
    """
    chosen = _chosen(context, recipes)
    read_pool(context, encoders_of(context.config, chosen))
    wrong = [name for name in chosen if _is_wrong(context, name)]
    _, errors = _draw(context, wrong)  # they fail before any work, so that nobody waits for the encoder to hear of it
    right = [name for name in chosen if name not in wrong]
    prepare(context, encoders_of(context.config, right), models_of(context.config, right))
    errors |= fit_sources(context, right)
    outcomes, failed = _draw(context, [name for name in right if name not in errors])
    errors |= failed
    run_stage(context, "catalog", publish)
    export_errors = export_all(context, [name for name in chosen if name not in errors])
    if errors or export_errors:
        raise RecipesFailed(errors, len(chosen), export_errors)
    return outcomes


def run_trial(context: Context, selection: str) -> dict[str, Any]:
    """Try a selection and publish the verdict; gives `effects.json` of the trial.

    Raises:
        TrialRefused, NotInStore, UnknownRecipe: there is nothing to try, nothing to measure on, or no time.
    """
    outcome = run_stage(context, f"trial/{selection}", trial, selection)
    run_stage(context, "catalog", publish)
    return finished_trial(context.store, outcome.subject)


def _is_wrong(context: Context, recipe: str) -> bool:
    try:
        check_recipe(context.pool, context.config.recipes[recipe])
    except BadInput:
        return True
    return False


def _draw(context: Context, recipes: Sequence[str]) -> tuple[list[Outcome], dict[str, Exception]]:
    """Draw recipes; the outcomes, and recipe -> error, of those that failed or were held back."""
    outcomes: list[Outcome] = []
    errors: dict[str, Exception] = {}
    for name in recipes:
        try:
            outcomes.append(run_stage(context, f"selection/{name}", select, name))
        except USER_ERRORS as error:
            errors[name] = error
    return outcomes, errors


def export_all(context: Context, recipes: Sequence[str]) -> dict[str, Exception]:
    """Write the entries of `exports` of some recipes, whose checks passed; entry -> error, of those that failed."""
    errors: dict[str, Exception] = {}
    for name, entry in context.config.exports.items():
        if entry.recipe in recipes:
            try:
                run_stage(context, f"export/{name}", export, name)
            except (*USER_ERRORS, OSError) as error:
                errors[name] = error
    return errors


def run_and_report(context: Context, recipes: Sequence[str] | None = None) -> list[Outcome]:
    """`run_all`, and then the report of the run, however it ended. A report that cannot be made is said, and fails nothing.

    Raises:
        As `run_all`.
    """
    _chosen(context, recipes)  # an unknown name leaves no trace
    with context.store.in_use(lambda holder: context.report.say(f"run: waiting for {holder}")):
        try:
            outcomes = run_all(context, recipes)
        except Exception:
            write_report(context)
            raise
        write_report(context)
        return outcomes


def write_report(context: Context) -> None:
    """Write the report of this invocation, if any of its stages ran."""
    if not any(run["invocation"] == context.invocation for run in runs(context.store)):
        return
    try:
        run_stage(context, "report", report)
    except Exception as error:  # noqa: BLE001 - the selections are published; only their description is missing
        context.report.say(f"warning: no report of this run: {type(error).__name__}: {error}")


def read_pool(context: Context, encoders: Sequence[str]) -> None:
    """Read the pool.

    Raises:
        MissingExtra: the encoders' vectors are to be indexed, and faiss is not installed; nothing ran.
    """
    searched = context.config.searched_encoder
    if any(map(context.config.is_indexed, [*encoders, *([searched] if searched else [])])):
        require_faiss()
    run_stage(context, "pool", ingest)


def prepare(context: Context, encoders: Sequence[str], models: Sequence[str] = ()) -> None:
    """Embed the pool and the targets with each encoder, and index what is searched; score the pool with each model.

    Where the configuration wants it, it is searched for evaluation texts.
    """
    config = context.config
    searched = config.searched_encoder
    encoders = list(dict.fromkeys([*encoders, *([searched] if searched else [])]))
    if config.decontamination is not None and not searched:
        run_stage(context, "decontamination", decontaminate)
    for model in models:
        if model in context.pool.score_columns.values():
            run_stage(context, f"{model}/token_scores", token_scores, model)
    for encoder in encoders:
        run_stage(context, f"{encoder}/embeddings", embed, encoder)
        measure_health(context, encoder)
        if config.is_indexed(encoder):
            run_stage(context, f"{encoder}/vector_index", index, encoder)
        if config.targets_in(encoder):
            run_stage(context, f"{encoder}/target_embeddings", embed_targets, encoder)
    if searched:
        run_stage(context, "decontamination", decontaminate)


def measure_health(context: Context, encoder: str) -> None:
    """Measure how sound an encoder's vectors are. What cannot be measured is said, and stops nothing.

    Raises:
        HeldBack: a bound does not hold, and `health.blocking` is set.
    """
    try:
        run_stage(context, f"{encoder}/health", health, encoder)
    except HeldBack:
        raise
    except (*USER_ERRORS, ImportError, OSError) as error:
        context.report.say(f"warning: the health of {encoder} could not be measured: {error}")


def fit_sources(context: Context, recipes: Sequence[str]) -> dict[str, Exception]:
    """Fit what gives the recipes probabilities; recipe -> error, for those whose classifier cannot be fitted."""
    errors: dict[str, Exception] = {}
    for source in source_names(context.config, recipes):
        try:
            if source in context.config.classifiers:
                run_stage(context, f"{source}/classifier", fit_classifier, source)
            else:
                run_stage(context, f"{source}/labels", pull, source)
                run_stage(context, f"{source}/model", fit, source)
        except USER_ERRORS as error:
            users = [recipe for recipe in recipes if source_name(context.config.recipes[recipe]) == source]
            errors |= dict.fromkeys(users, error)
    return errors


def run_stage(context: Context, title: str, stage: Callable[..., Outcome], *arguments: str) -> Outcome:
    """Run one stage and report its summary.

    Args:
        title: the name of its result in the report, for example `selection/math`.

    Raises:
        HeldBack: a blocking check failed.
    """
    started = time.monotonic()
    try:
        outcome = stage(context, *arguments)
    except Exception:
        context.report.say(f"{title}: failed")  # the error may not name the stage
        raise
    context.report.say(f"{title}: {outcome.summary}")
    context.report.detail(
        f"{time.monotonic() - started:.1f} s, at most {as_bytes(peak_memory_bytes())} of memory so far"
    )
    for check in outcome.checks:
        context.report.detail(f"{'passed' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    if outcome.failed_checks:
        causes = "; ".join(f"{check.name}: {check.detail}" for check in outcome.failed_checks)
        raise HeldBack(
            f"{title} is held back: what depends on it did not run, what was published before stays. {causes}"
        )
    return outcome


def _chosen(context: Context, recipes: Sequence[str] | None) -> list[str]:
    known = list(context.config.recipes)
    if not recipes:
        return known
    chosen = [member for name in recipes for member in context.config.members(name)]
    for name in chosen:
        if name not in known:
            raise UnknownRecipe(f"no recipe is called {name!r}{nearest(name, known)}; there are: {', '.join(known)}")
    return list(dict.fromkeys(chosen))
