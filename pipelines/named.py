"""The selection that a user names: by a recipe, by an id, or by how an id begins."""

from __future__ import annotations

import re

from pipelines.messages import listed, nearest
from pipelines.runs import runs
from storage.errors import NotInStore
from storage.store import Store

_BEFORE = re.compile(r"(.+)~(\d{1,6})")
_PREFIX = re.compile("[0-9a-f]{4,31}")


def selection_of(store: Store, name: str) -> str:
    """The id of a selection.

    Args:
        name: an id; its first digits, at least four; a recipe, which stands for its last selection whose checks passed;
            or `RECIPE~1` for the one before, `RECIPE~2` for the one before that, and so on.

    Raises:
        NotInStore: there is none; names the recipes that were drawn, or the ids that begin so.

    Cost: of a recipe, reads the records of runs back to that selection, about 0.1 ms each; of digits, lists the
    selections.
    """
    if store.has("records", "selections", name):
        return name
    match = _BEFORE.fullmatch(name)
    recipe, back = (match[1], int(match[2])) if match else (name, 0)
    subjects, recipes = _drawn(store, recipe, back)
    if len(subjects) > back:
        return subjects[back]
    if subjects:
        have = "one selection" if len(subjects) == 1 else f"{len(subjects)} selections"
        raise NotInStore(f"{name!r}: the recipe {recipe!r} has {have} so far")
    begin = [each for each in store.records("selections") if each.startswith(name)] if _PREFIX.fullmatch(name) else []
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise NotInStore(f"{name!r} is how {len(begin)} selections begin: {listed(begin[:5])}; give more digits")
    of_sweep = [each for each in sorted(recipes) if each.startswith(f"{recipe}_")]
    if of_sweep:
        raise NotInStore(f"{recipe!r} has no selection of its own; name one of its recipes: {listed(of_sweep)}")
    drawn = f"drawn were: {listed(sorted(recipes))}" if recipes else "nothing was drawn yet: run `winnow run` first"
    raise NotInStore(
        f"{recipe!r} is neither a recipe with a selection nor a selection's id{nearest(recipe, recipes)}; {drawn}"
    )


def _drawn(store: Store, recipe: str, back: int) -> tuple[list[str], set[str]]:
    """The different selections of a recipe that are there, newest first, until enough; and the recipes seen on the way."""
    subjects: dict[str, None] = {}
    recipes: set[str] = set()
    for run in runs(store):
        if run["stage"] == "select" and run["status"] == "ok":
            recipes.add(run["target"])
            if run["target"] == recipe and store.has("records", "selections", run["subject"]):
                subjects[run["subject"]] = None
        if len(subjects) > back:
            break
    return list(subjects), recipes
