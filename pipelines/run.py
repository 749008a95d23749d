"""The stages in one process, in order: what `winnow run` does, and what it would do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.config.schema import OWN_VECTORS
from pipelines.context import Context, Outcome, last_run, runs
from pipelines.errors import USER_ERRORS, HeldBack, UnknownRecipe
from pipelines.messages import nearest
from pipelines.recipes import draw as selecting
from pipelines.recipes import spec as drawing
from pipelines.stages import stages_all as stages
from storage import ids as idlib
from storage.catalog import publish as catalog
from storage.errors import NotInStore
from storage.pool.columns import columns_id
from storage.pool.ingest import ingest_id
from storage.records import read_selection
from storage.store import Store
from storage.vectors import segments as vectors
from storage.vectors.index import require_faiss


def run_all(context: Context, recipes: Sequence[str] | None = None) -> list[Outcome]:
    """Run every stage that the recipes need; give the outcome of each recipe.

    A recipe that fails or is held back does not stop the others: they are drawn and published, then its error is raised.

    Raises:
        HeldBack: a blocking check failed. Before the recipes nothing after it ran and the published catalog stays as it
            was; a recipe that is held back keeps its last selection as its latest. Or several recipes failed.
        MissingExtra: the recipes need an index, and faiss is not installed; nothing ran.
    """
    chosen = _chosen(context, recipes)
    prepare(context, drawing.encoders_of(context.config, chosen))
    drawn: list[Outcome] = []
    failed: list[Exception] = []
    for name in chosen:
        try:
            drawn.append(run_stage(context, f"selection/{name}", stages.select, name))
        except USER_ERRORS as error:
            failed.append(error)
    run_stage(context, "catalog", stages.publish)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise HeldBack(f"{len(failed)} of {len(chosen)} recipes failed:\n" + "\n".join(map(str, failed)))
    return drawn


def prepare(context: Context, encoders: Sequence[str]) -> None:
    """Read the pool; embed it and the targets, and index it, with each encoder."""
    if encoders:
        require_faiss()
    run_stage(context, "pool", stages.ingest)
    for encoder in encoders:
        run_stage(context, f"{encoder}/embeddings", stages.embed, encoder)
        run_stage(context, f"{encoder}/vector_index", stages.index, encoder)
        if context.config.targets_in(encoder):
            run_stage(context, f"{encoder}/target_embeddings", stages.embed_targets, encoder)


def plan_lines(context: Context) -> list[str]:
    """What `run_all` would do, a line a stage."""
    config, store = context.config, context.store
    specs = config.pool.specs(config.root)
    ingests = {ingest_id(store, spec) for spec in specs}
    new = sum(not store.has("pool", one) for one in ingests)
    lines = [f"pool: {len(specs)} files, {new} of them new or changed"]
    last = last_run(store, "ingest")
    if last is None:
        return [*lines, "the rest is known once the pool has been read"]
    snapshot = context.snapshot()
    columns = {columns_id(store, brought.url, brought.id) for brought in config.pool.columns}
    if ingests != set(snapshot.ingests) or columns != set(snapshot.columns):
        lines.append(f"snapshot: {len(snapshot):,} rows; its files have changed, a new one will be taken")
        return [*lines, "the rest is known once the pool has been read"]
    lines.append(f"snapshot: {len(snapshot):,} rows")
    for name in drawing.encoders_of(config, config.recipes):
        lacking = len(vectors.missing(store, drawing.fingerprint(context, name), snapshot.ids))
        what = "take in" if name == OWN_VECTORS else "encode"
        lines.append(f"{name}/embeddings: {lacking:,} rows to {what}, {len(snapshot) - lacking:,} in the store")
    for name in config.recipes:
        drawn = store.has("records", "selections", drawing.resolve(context, name).selection_id)
        lines.append(f"selection/{name}: " + ("drawn already, nothing to do" if drawn else "to be drawn"))
    return lines


def diff_tables(store: Store, a: str, b: str | None) -> list[tuple[str, list[dict[str, Any]]]]:
    """Titled tables of what changed from selection `a` to `b`; or between the last two of the recipe `a`.

    Raises:
        NotInStore: the published catalog lacks one of them.
    """
    if b is None:
        a, b = _last_two(store, a)
    for one in (a, b):
        if not catalog.query(store, "SELECT 1 FROM selections WHERE selection_id = ?", [one]).num_rows:
            raise NotInStore(f"no selection {one!r} in the published catalog; its `selections` lists them")
    counts = catalog.query(
        store, "SELECT change, count(*) AS n FROM selection_diff(?, ?) GROUP BY change ORDER BY change", [a, b]
    )
    changed = catalog.query(
        store,
        "SELECT change, rank_a, rank_b, source, prompt FROM selection_diff(?, ?) WHERE change <> 'kept' "
        "ORDER BY coalesce(rank_b, rank_a) LIMIT 20",
        [a, b],
    )
    return [(f"from {a} to {b}", counts.to_pylist()), ("first changes by rank", changed.to_pylist())]


def reproduce(context: Context, selection_id: str) -> str:
    """Draw a selection again from its record and say whether it is the same.

    Raises:
        NotInStore: there is no such selection.
        StoreDamaged: the vectors are not what was committed.
        HeldBack: it differs.
    """
    header, items = read_selection(context.store, selection_id)
    for encoder in {header["encoder"], *header["target_encoders"].values()} - {None}:
        vectors.verify(context.store, encoder)
    again = selecting.redraw(context, header)
    before = idlib.from_arrow(items["id"])
    now = idlib.from_arrow(again["id"])
    if len(before) == len(now) and bool((before == now).all()) and items["gain"].equals(again["gain"]):
        return f"{selection_id}: the same {len(before):,} rows in the same order, with the same gains"
    common = len(np.intersect1d(before, now))
    raise HeldBack(
        f"{selection_id} is not reproduced: {common:,} of {len(before):,} rows are the same. It was drawn by "
        f"{header['code_version']}; this is another version, or its vectors were encoded anew."
    )


def run_stage(context: Context, what: str, stage: Callable[..., Outcome], *arguments: str) -> Outcome:
    """Run one stage and say what came of it.

    Args:
        what: what it is called where that is said.

    Raises:
        HeldBack: a blocking check failed.
    """
    try:
        outcome = stage(context, *arguments)
    except Exception:
        context.report.say(f"{what}: failed")  # the error may not say whose it is
        raise
    context.report.say(f"{what}: {outcome.summary}")
    if outcome.failed_checks:
        causes = "; ".join(f"{check.name}: {check.detail}" for check in outcome.failed_checks)
        raise HeldBack(
            f"{what} is held back: what depends on it did not run, what was published before stays. {causes}"
        )
    return outcome


def _chosen(context: Context, recipes: Sequence[str] | None) -> list[str]:
    known = list(context.config.recipes)
    for name in recipes or ():
        if name not in known:
            raise UnknownRecipe(
                f"no recipe is called {name!r}{nearest(name, known) or ''}; there are: {', '.join(known)}"
            )
    return list(dict.fromkeys(recipes)) if recipes else known


def _last_two(store: Store, recipe: str) -> tuple[str, str]:
    subjects: dict[str, None] = {}
    recipes: set[str] = set()
    for run in runs(store):
        if run["stage"] == "select" and run["status"] == "ok":
            recipes.add(run["target"])
            if run["target"] == recipe:
                subjects[run["subject"]] = None
        if len(subjects) == 2:
            newest, before = subjects
            return before, newest
    if recipe not in recipes:
        drawn = f"; drawn were: {', '.join(sorted(recipes))}" if recipes else ", and nothing was drawn yet"
        raise NotInStore(f"no recipe {recipe!r}{nearest(recipe, recipes)} was drawn{drawn}; two ids can be given too")
    raise NotInStore(f"the recipe {recipe!r} has one selection so far; a diff needs two")
