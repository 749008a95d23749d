"""Draw one recipe, commit the selection and check it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np

from pipelines.config.schema import Recipe
from pipelines.context import Context
from pipelines.engine import engine_for
from pipelines.pool_view import PoolView
from pipelines.recipes.check import check_recipe
from pipelines.recipes.draw import SelectionResult, draw
from pipelines.recipes.eligible import RULES
from pipelines.recipes.learned import recipe_inputs
from pipelines.recipes.noise import ANOTHER_SEED, jaccard, noise_floor, with_another_seed
from pipelines.recipes.spec import resolve_spec
from pipelines.runs import last_run
from pipelines.stages.embedding_recall import VERBATIM, embedding_recall, recall_check, recall_metrics
from pipelines.stages.stage import Check, Outcome, stage
from pipelines.workers import Workers
from storage.ids import Ids, from_arrow, rows_of
from storage.pool.content import Turns, prompt_of
from storage.records import commit_metrics, known_selection

# What steps do in several processes is a part of their work on texts: it pays for a larger pool than reading it does.
EASE = 4


@stage(
    "select",
    checks={
        "budget_met": "as many rows as asked for",
        "ids_unique": "no row twice",
        "ids_in_pool": "every row is in the pool's snapshot",
        "no_target_leaked": "no selected row holds what a target asks",
        "overlap_above_floor": "shares enough with the recipe's last selection",
        VERBATIM: "`decontaminate: {similarity}` drops rows that are a target's example word for word",
    },
)
def select(context: Context, recipe: str) -> Outcome:
    """Draw one recipe, commit the selection and check it."""
    check_recipe(context.pool, context.config.recipes[recipe])
    last = last_run(context.store, "select", recipe)
    spec = resolve_spec(context, recipe)
    inputs = recipe_inputs(context.pool, spec)
    size = inputs.snapshot.size_bytes if inputs.texts_are_read else 0
    with engine_for(context, size // EASE) as (parallel, workers), ExitStack() as stack:
        on_ray = context.engine.kind == "ray"
        if workers > 1 or on_ray:
            # On one machine a process uses all cores for vectors.
            folder = stack.enter_context(context.store.scratch("parts")) if on_ray else None
            inputs.use(Workers(parallel, recipe, context.report.progress, folder))
        result = draw(context, inputs, recipe)
    recall = embedding_recall(context, recipe, result.spec)
    shared = _shared(context, result.ids, last["subject"] if last else None)
    overlap = None if shared is None else shared["overlap_with_last"]
    overlaps = {name: round(value, 4) for name, value in (shared or {}).items()}
    if context.config.recipes[recipe].noise_floor:
        overlaps[ANOTHER_SEED] = _noise_floor(context, result, last)
    return Outcome(
        subject=result.spec.selection_id,
        metrics={"rows": len(result.ids), **result.metrics, **overlaps, **recall_metrics(recall)},
        summary=_summary(result),
        checks=(*_checks(context.pool, context.config.recipes[recipe], result, overlap), recall_check(recall)),
    )


def _summary(result: SelectionResult) -> str:
    metrics = result.metrics
    made = "drew" if result.new else "the same inputs as before, so the same"
    kept_out = [f"{metrics[rule]:,} {rule.replace('_', ' ')}" for rule in RULES if metrics.get(rule)]
    unknown = metrics.get("deny_unknown")
    words = ("id", "is") if unknown == 1 else ("ids", "are")
    return (
        f"{made} {len(result.ids):,} rows of {metrics['eligible']:,} eligible"
        + (f" (kept out: {', '.join(kept_out)})" if kept_out else "")
        + _sticky_words(metrics)
        + "".join(f"; {name} dropped {count:,}" for name, count in result.dropped.items())
        + (f"; {unknown:,} {words[0]} of the deny list {words[1]} of no row of the pool" if unknown else "")
    )


def _sticky_words(metrics: Mapping[str, int | float]) -> str:
    if "sticky_stays" not in metrics:
        return ""
    stays, held, replaced, gone = (
        metrics[f"sticky_{name}"] for name in ("stays", "held", "replaced", "could_not_stay")
    )
    return (
        f"; of the last selection {stays + held:,} rows stay, {held:,} of them only for max_churn, {replaced:,} were "
        f"replaced, {gone:,} could not stay"
    )


def _shared(context: Context, ids: Ids, last: str | None) -> dict[str, float] | None:
    """What is shared with the recipe's last selection; None on its first, and where the last one is damaged.

    `also_in_last` and `not_in_last`, how many rows it has and has not; `dropped_from_last`, how many of its rows are
    not chosen any more; `overlap_with_last`, Jaccard.
    """
    known = known_selection(context.store, last) if last else None
    if known is None:
        return None
    before = from_arrow(known[1]["id"])
    common = len(np.intersect1d(before, ids))
    counts = {"also_in_last": common, "not_in_last": len(ids) - common, "dropped_from_last": len(before) - common}
    return {**counts, "overlap_with_last": jaccard(before, ids)}


def _noise_floor(context: Context, result: SelectionResult, last: dict[str, Any] | None) -> float:
    """The noise floor of a selection, which becomes one of its metrics; read from the last run if it drew the same."""
    if last is not None and last["subject"] == result.spec.selection_id and ANOTHER_SEED in last["facts"]:
        return float(last["facts"][ANOTHER_SEED])
    floor = noise_floor(result.ids, recipe_inputs(context.pool, with_another_seed(result.spec)))
    commit_metrics(context.store, result.spec.selection_id, {ANOTHER_SEED: floor})
    return floor


def _checks(view: PoolView, recipe: Recipe, result: SelectionResult, overlap: float | None) -> tuple[Check, ...]:
    count, distinct = len(result.ids), len(np.unique(result.ids))
    inside = rows_of(result.ids, view.snapshot_of(result.spec.snapshot).ids) >= 0
    leaked = _leaked(view, result.spec.snapshot, result.ids[inside])
    if overlap is None:
        compared = "the first selection of this recipe, nothing to compare with"
    else:
        compared = f"Jaccard {overlap:.3f} with the last selection, floor {recipe.min_overlap} (`min_overlap`)"
    tokens, budget = result.metrics.get("tokens"), recipe.constraints.amount
    # Tokens stop before the row that overflows; that there were enough is known from the draw.
    met = count == budget if tokens is None else tokens <= budget and not result.exhausted
    of_tokens = "" if tokens is None else f" of {tokens:,} tokens"
    exhausted = ", the pool is exhausted" if result.exhausted else ""
    taken = f"{count:,} rows{of_tokens}, budget {recipe.budget_line}{exhausted}"
    leaks = f"{leaked:,} selected rows hold what a target asks"
    return (
        Check("budget_met", met or (result.exhausted and recipe.allow_short), taken),
        Check("ids_unique", distinct == count, f"{distinct:,} of {count:,} are distinct"),
        Check("ids_in_pool", bool(inside.all()), f"{int((~inside).sum()):,} are not in the snapshot"),
        Check("no_target_leaked", leaked == 0, leaks, blocking=recipe.exclude_targets),
        Check("overlap_above_floor", overlap is None or overlap >= recipe.min_overlap, compared),
    )


def _leaked(view: PoolView, snapshot_id: str, ids: Ids) -> int:
    """How many of some rows hold what a target of the configuration asks; every text is compared, letter by letter.

    The rule that keeps such rows out of a draw compares only texts that begin alike, by patterns.
    """
    snapshot = view.snapshot_of(snapshot_id)
    conversations = [turns for target in view.target_sets(view.config.targets) for turns in target.conversations]
    held = (turns for _, batch in snapshot.turns(ids) for turns in batch)
    if snapshot.by_earlier_rules:
        prompts = {prompt_of(turns) for turns in conversations}
        return sum(prompt_of(turns) in prompts for turns in held)
    by_first = _by_first(conversations)
    return sum(_holds_any(turns, by_first) for turns in held) if by_first else 0


def _by_first(conversations: Iterable[Turns]) -> dict[bytes, set[tuple[str, ...]]]:
    """What some targets ask, as `_letters` has it, by `_bare` of the first question."""
    by_first: dict[bytes, set[tuple[str, ...]]] = {}
    for turns in conversations:
        asked = [text for role, text in turns if role in ("user", "text") and _letters(text)]
        if asked:
            by_first.setdefault(_bare(asked[0]), set()).add(tuple(map(_letters, asked)))
    return by_first


def _holds_any(turns: Iterable[tuple[str, str]], by_first: Mapping[bytes, set[tuple[str, ...]]]) -> bool:
    """Whether some turns hold all questions of a target, in order."""
    held = [text for _, text in turns if text]
    near = [questions for text in held for questions in by_first.get(_bare(text), ())]
    texts = [_letters(text) for text in held] if near else []
    return any(_follow(questions, texts) for questions in near)


def _follow(questions: tuple[str, ...], texts: list[str]) -> bool:
    """Whether the questions are among the texts in their order."""
    start = 0
    for question in questions:
        if question not in texts[start:]:
            return False
        start = texts.index(question, start) + 1
    return True


class _Bare(dict[int, int | None]):
    """What `str.translate` makes of each character: nothing of punctuation, invisible characters and white space."""

    def __missing__(self, code: int) -> int | None:
        letter = chr(code)
        category = unicodedata.category(letter)
        kept = None if category == "Cf" or category.startswith("P") or letter.isspace() else code
        return self.setdefault(code, kept)


_BARE = _Bare()
_NOT_BARE = bytes(code for code in range(128) if _BARE[code] is None)


def _bare(text: str) -> bytes:
    """What texts have in common whose `_letters` are the same; quicker to make."""
    plain = text.lower() if text.isascii() else _plain(text).translate(_BARE)
    return plain.encode().translate(None, _NOT_BARE)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _letters(text: str) -> str:
    """A text without case, invisible characters, punctuation but between digits, and repeated white space."""
    plain = _plain(text)
    visible = [letter for letter in plain if unicodedata.category(letter) != "Cf"]
    kept = []
    for i, letter in enumerate(visible):
        between = 0 < i < len(visible) - 1 and visible[i - 1].isdecimal() and visible[i + 1].isdecimal()
        kept.append(letter if between or not unicodedata.category(letter).startswith("P") else " ")
    return " ".join("".join(kept).split()) or " ".join(text.split())
