"""What is compared: selections on record, recipes drawn now with several seeds, and random rows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.config.schema import Recipe, StepList
from pipelines.context import Context
from pipelines.errors import RecipesFailed, UnknownRecipe
from pipelines.messages import listed, nearest
from pipelines.named import selection_of
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.rows import select_rows
from pipelines.recipes.spec import SelectionSpec, recipe_spec, resolve_spec
from pipelines.recipes.tokens import count_for_budget
from selection.errors import SelectionError
from selection.types import Rows
from storage.errors import StorageError
from storage.ids import Ids, from_arrow, rows_of
from storage.records import read_selection

# Not near the seeds that recipes have, so that random rows are not by chance those of a recipe.
RANDOM_SEED = 20_251_000


@dataclass(frozen=True, eq=False)
class Draw:
    """A selection that is compared.

    Attributes:
        name: what it is shown under; the draws of one recipe share it.
        seed: of the draw.
        ids: (b,) in pick order.
        rows: those of the present pool among them, in that order.
        snapshot: of the pool that it was drawn from.
        encoder: the fingerprint of the vectors that it was drawn by; None without.
        tokens: what its budget counts; None for a budget in rows.
        seconds: what it took, where that is known.
        selection: its id, where it is on record.
        random: it is rows at random that nobody asked for, to compare with.
    """

    name: str
    seed: int
    ids: Ids
    rows: Rows
    snapshot: str
    encoder: str | None = None
    tokens: int | None = None
    seconds: float | None = None
    selection: str | None = None
    random: bool = False


def recorded(context: Context, names: Sequence[str]) -> Iterator[Draw]:
    """The selections of some names, as `pipelines.named.selection_of` takes them; a sweep stands for all of its recipes.

    Raises:
        NotInStore: there is no such selection.
    """
    for name, title in _titles(context, names).items():
        selection = selection_of(context.store, name)
        header, items = read_selection(context.store, selection)
        ids = from_arrow(items["id"])
        rows = rows_of(ids, context.pool.snapshot.ids)
        yield Draw(
            name=title if name in context.config.recipes else f"{header['recipe']} {selection[:8]}",
            seed=header["seed"],
            ids=ids,
            rows=rows[rows >= 0],
            snapshot=header["snapshot"],
            encoder=header["encoder"],
            tokens=header["facts"].get("tokens"),
            seconds=header.get("seconds"),
            selection=selection,
        )


def drawn(context: Context, names: Sequence[str], seeds: int) -> Iterator[Draw]:
    """Recipes drawn now, each with so many seeds from its own on. Nothing is committed.

    Raises:
        UnknownRecipe: a name is no recipe.
        RecipesFailed: a recipe cannot be drawn.
    """
    known, titles = context.config.recipes, _titles(context, names)
    for name in titles:
        if name not in known:
            raise UnknownRecipe(
                f"no recipe is called {name!r}{nearest(name, known)}; with --seeds recipes are drawn anew, and there are: "
                f"{listed(known)}"
            )
    first = {title: name for name, title in reversed(titles.items())}
    for title, name in reversed(first.items()):
        try:
            yield from _draws(context, title, resolve_spec(context, name), seeds)
        except (SelectionError, StorageError) as error:
            raise RecipesFailed({name: error}, len(first)) from error


def random_rows(context: Context, size: int, seeds: int) -> Iterator[Draw]:
    """So many rows at random, several times, of those that a recipe without `where` and lists may take.

    A row that holds what a target asks would be as near to it as can be, so random rows do without these as recipes do.
    """
    # Seeds of their own: with the same ones a smaller draw would be part of a larger one.
    seed = RANDOM_SEED + 1000 * size
    random = Recipe(steps=StepList.of("random"), budget=size, seed=seed, allow_short=True)
    for draw in _draws(context, f"{size:,} random rows", recipe_spec(context.pool, random), seeds):
        yield replace(draw, random=True)


def _titles(context: Context, names: Sequence[str]) -> dict[str, str]:
    """Each name, sweeps as their recipes, with what it is shown under."""
    return {member: _title(context, name, member) for name in names for member in context.config.members(name)}


def _title(context: Context, name: str, member: str) -> str:
    """Recipes of a sweep that differ in their seed alone share a title: they are draws of one recipe."""
    if member == name:
        return member
    before, _, after = member.partition(f"_seed{context.config.recipes[member].seed}")
    return before + after if not after or after.startswith("_") else member


def _draws(context: Context, title: str, spec: SelectionSpec, seeds: int) -> Iterator[Draw]:
    count_for_budget(context, spec.constraints.budget, context.pool.snapshot)
    for number in range(seeds):
        context.report.progress(f"draw {title}", number, seeds, "seeds")
        draw = _drawn_now(context, title, replace(spec, seed=spec.seed + number))
        # The first opens files and may compile a loop, so where there are others its time says nothing of the recipe.
        yield replace(draw, seconds=None) if number == 0 < seeds - 1 else draw


def _drawn_now(context: Context, name: str, spec: SelectionSpec) -> Draw:
    inputs = recipe_inputs(context.pool, spec)
    began = time.monotonic()
    chosen = select_rows(inputs)
    seconds = time.monotonic() - began
    tokens = chosen.counts.get("tokens")
    return Draw(
        name=name,
        seed=spec.seed,
        ids=inputs.snapshot.ids[chosen.rows],
        rows=chosen.rows,
        snapshot=spec.snapshot,
        encoder=spec.encoder,
        tokens=None if tokens is None else int(tokens),
        seconds=round(seconds, 3),
        selection=spec.selection_id if context.store.has("records", "selections", spec.selection_id) else None,
    )
