"""What must be said of each row of a selection, recomputed from rows, vectors and the recipe alone, loop by loop.

Written from the pages of the docs and not from the code: nothing of winnow is imported. Vectors are of ±1 in 64
dimensions, so that cosines are whole numbers of 64ths and exact in every precision; ties are frequent on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DIMENSIONS = 64
NO_VALUE = "null"  # what a quota calls the group of rows without a value

# SQL conditions and the same in Python.
CONDITIONS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "quality < 80": lambda row: row["quality"] < 80,
    "source <> 'dog'": lambda row: row["source"] != "dog",
    "tokens % 7 <> 0 AND family IS NOT NULL": lambda row: row["tokens"] % 7 != 0 and row["family"] is not None,
}


@dataclass(frozen=True)
class Answer:
    """The rule that `why` has to name, and what has to be said beside it."""

    rule: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """What a recipe is drawn from.

    Args:
        rows: the fields of the file, by winnow's ids in ascending order.
        vectors: row's name -> (64,) of ±1, or of 0 if it has none.
        targets, target_vectors: prompts and (64,) by name, in the order of the file.
        evaluation: texts that `decontamination` looks for, by name; None where it is not configured.
        orders: for each number of steps in front of it, all rows in the order of `random`.
        subpools: recipe -> the rows that its `random_subpool` keeps, which only chance decides.
    """

    rows: list[dict[str, Any]]
    vectors: dict[str, np.ndarray]
    targets: dict[str, str]
    target_vectors: dict[str, np.ndarray]
    evaluation: dict[str, str] | None
    orders: dict[int, list[str]] = field(default_factory=dict)
    subpools: dict[str, set[str]] = field(default_factory=dict)


def explain(name: str, recipe: Mapping[str, Any], world: World, kept: Sequence[str] = ()) -> dict[str, Answer]:
    """The answer for each row of the pool; `kept` are the rows of the selection that `top_up` goes on from."""
    answers: dict[str, Answer] = {}
    seen = []
    for row in world.rows:
        rule = _rule_before_steps(row, recipe, world)
        if row["id"] in kept or rule is None:
            seen.append(row)
        else:
            answers[row["id"]] = Answer(rule)
    steps = [_name_and_options(step) for step in recipe["steps"]]
    scores: dict[str, float] | None = None
    selector: tuple[str, dict[str, Any]] = ("top", {})
    position = len(steps)
    for place, (step, options) in enumerate(steps):
        if step in SCORERS:
            scores, dropped = SCORERS[step](seen, options, world)
        elif step in FILTERS:
            dropped = FILTERS[step](seen, kept, scores, options, recipe, world, name)
        else:
            selector, position, dropped = (step, options), place, {}
        for row_name, facts in dropped.items():
            if row_name not in kept:
                answers[row_name] = Answer("dropped", {"step": step, **facts})
        seen = [row for row in seen if row["id"] in kept or row["id"] not in dropped]
    answers |= _of_the_selector(selector, position, seen, kept, scores, recipe, world)
    return answers


def _name_and_options(step: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(step, str):
        return step, {}
    ((name, options),) = step.items()
    return name, options


# --- rules before the steps


def _rule_before_steps(row: Mapping[str, Any], recipe: Mapping[str, Any], world: World) -> str | None:
    steps = [_name_and_options(step)[0] for step in recipe["steps"]]
    if any(step in NEED_VECTORS for step in steps) and not world.vectors[row["id"]].any():
        return "without_vector"
    if "where" in recipe and not CONDITIONS[recipe["where"]](row):
        return "outside_where"
    if "allowed" in recipe and row["id"] not in recipe["allowed"]:
        return "not_allowed"
    if "denied" in recipe and row["id"] in recipe["denied"]:
        return "denied"
    if recipe.get("exclude_targets", True) and _words(row["prompt"]) in [_words(t) for t in world.targets.values()]:
        return "equal_to_a_target"
    if world.evaluation is not None and any(_holds(row, text) for text in world.evaluation.values()):
        return "contaminated"
    return None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _holds(row: Mapping[str, Any], text: str) -> bool:
    """Whether a row holds a text from its first word to its last; the generator plants no parts of texts."""
    words, wanted = _words(row["prompt"]), _words(text)
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words)))


# --- scorers


def _cosine(left: np.ndarray, right: np.ndarray) -> float:
    return sum(float(a) * float(b) for a, b in zip(left, right, strict=True)) / DIMENSIONS


def _similarities(row: Mapping[str, Any], world: World) -> dict[str, float]:
    return {name: _cosine(world.vectors[row["id"]], vector) for name, vector in world.target_vectors.items()}


Scored = tuple[dict[str, float], dict[str, dict[str, Any]]]


def _rds_max(seen: list[dict[str, Any]], _: Mapping[str, Any], world: World) -> Scored:
    return {row["id"]: max(_similarities(row, world).values()) for row in seen}, {}


def _rds_mean(seen: list[dict[str, Any]], _: Mapping[str, Any], world: World) -> Scored:
    return {row["id"]: float(np.mean(list(_similarities(row, world).values()))) for row in seen}, {}


def _column(seen: list[dict[str, Any]], options: Mapping[str, Any], _: World) -> Scored:
    sign = 1 if options.get("descending", True) else -1
    return {row["id"]: sign * row[options["field"]] for row in seen}, {}


def _ifd(seen: list[dict[str, Any]], _: Mapping[str, Any], __: World) -> Scored:
    ratios = {row["id"]: row["nll_answer"] / row["nll_alone"] for row in seen}
    return ratios, {name: {} for name, ratio in ratios.items() if ratio >= 1}


SCORERS: dict[str, Callable[..., Scored]] = {"rds_max": _rds_max, "rds_mean": _rds_mean, "column": _column, "ifd": _ifd}
NEED_VECTORS = {"rds_max", "rds_mean", "rds_plus", "outliers", "semdedup", "diversity_filter"}


# --- filters: row's name -> what is said of it, of each row that is dropped

Drops = dict[str, dict[str, Any]]


def _near_duplicates(seen: list, kept: Sequence[str], _s: Any, options: Any, _r: Any, _w: World, _n: str) -> Drops:
    """A row falls to the first row that stays and shares the threshold of its runs of words with it."""
    order = [row for row in seen if row["id"] in kept] + [row for row in seen if row["id"] not in kept]
    stays: list[tuple[str, set[tuple[str, ...]]]] = []
    dropped: Drops = {}
    for row in order:
        words = _words(row["prompt"])
        runs = {tuple(words[start : start + 5]) for start in range(len(words) - 4)}
        match = next((name for name, others in stays if len(runs & others) / len(runs | others) >= 0.5), None)
        if match is None or row["id"] in kept:
            stays.append((row["id"], runs))
        else:
            dropped[row["id"]] = {"kept": match}
    return dropped


def _outliers(seen: list, kept: Sequence[str], _s: Any, options: Any, _r: Any, world: World, _n: str) -> Drops:
    """The rows of the lowest mean cosine to their nearest others; rows tied with the lowest that stays stay."""
    means = {}
    for row in seen:
        cosines = [_cosine(world.vectors[row["id"]], world.vectors[other["id"]]) for other in seen if other is not row]
        nearest = sorted(cosines, reverse=True)[: options["n_neighbors"]]
        means[row["id"]] = sum(nearest) / len(nearest)
    candidates = [row["id"] for row in seen if row["id"] not in kept]
    lowest_kept = sorted(means[name] for name in candidates)[int(options["drop"] * len(candidates))]
    return {name: {"value": means[name]} for name in candidates if means[name] < lowest_kept}


def _keep_top(seen: list, kept: Sequence[str], scores: Any, options: Any, recipe: Any, _w: World, _n: str) -> Drops:
    candidates = [row["id"] for row in seen if row["id"] not in kept]
    ranked = sorted(candidates, key=lambda name: -scores[name])
    return {name: {} for name in ranked[options["times"] * (recipe["budget"] - len(kept)) :]}


def _best_of(seen: list, kept: Sequence[str], _s: Any, options: Any, _r: Any, _w: World, _n: str) -> Drops:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in seen:
        if row[options["by"]] is not None:
            groups.setdefault(row[options["by"]], []).append(row)
    dropped: Drops = {}
    for rows in groups.values():
        best = next((row for row in rows if row["id"] in kept), None) or max(rows, key=lambda row: row["quality"])
        dropped |= {row["id"]: {"kept": best["id"]} for row in rows if row is not best and row["id"] not in kept}
    return dropped


def _decontaminate(seen: list, kept: Sequence[str], _s: Any, _o: Any, _r: Any, world: World, _n: str) -> Drops:
    holding = [row["id"] for row in seen if any(_holds(row, text) for text in world.targets.values())]
    return {name: {} for name in holding if name not in kept}


def _semdedup(seen: list, kept: Sequence[str], _s: Any, options: Any, _r: Any, world: World, _n: str) -> Drops:
    """One cluster: the row farthest from the mean direction stays first, and drops all that are nearly the same."""
    mean = sum(world.vectors[row["id"]].astype(float) for row in seen)
    hard = sorted((row["id"] for row in seen), key=lambda name: (name not in kept, float(mean @ world.vectors[name])))
    stays: list[str] = []
    dropped: Drops = {}
    for name in hard:
        alike = [other for other in stays if _cosine(world.vectors[name], world.vectors[other]) > 1 - options["eps"]]
        if alike and name not in kept:
            dropped[name] = {"kept_any_of": alike}
        else:
            stays.append(name)
    return dropped


def _random_subpool(seen: list, _k: Any, _s: Any, options: Any, _r: Any, world: World, name: str) -> Drops:
    dropped = [row["id"] for row in seen if row["id"] not in world.subpools[name]]
    assert len(dropped) == max(0, len(seen) - options["rows"])
    return {row: {} for row in dropped}


FILTERS: dict[str, Callable[..., Drops]] = {
    "near_duplicates": _near_duplicates,
    "outliers": _outliers,
    "keep_top": _keep_top,
    "best_of": _best_of,
    "decontaminate": _decontaminate,
    "semdedup": _semdedup,
    "random_subpool": _random_subpool,
}


# --- selectors: all rows in the order in which they would be taken


def _order(
    selector: tuple[str, dict[str, Any]],
    position: int,
    rows: list[str],
    scores: Any,
    taken: Iterable[str],
    world: World,
) -> list[str]:
    name, options = selector
    if name == "top":
        return sorted(rows, key=lambda row: -scores[row])
    if name == "random":
        return [row for row in world.orders[position] if row in rows]
    if name == "rds_plus":
        return _round_robin(rows, set(taken), world)
    assert name == "diversity_filter", name
    return _diverse(rows, scores, list(taken), options.get("tau", 0.9), world)


def _round_robin(rows: list[str], taken: set[str], world: World) -> list[str]:
    """Each target in turn takes its next row; one whose next row is taken loses its turn.

    Rows that are already selected stand in the targets' lists, too, and cost the turn.
    """
    everything = [row["id"] for row in world.rows if row["id"] in taken or row["id"] in set(rows)]
    lists = [
        sorted(everything, key=lambda name, v=vector: -_cosine(world.vectors[name], v))
        for vector in world.target_vectors.values()
    ]
    order: list[str] = []
    for place in range(len(everything)):
        for ranking in lists:
            name = ranking[place]
            if name not in taken and name not in order:
                order.append(name)
    return order


def _diverse(rows: list[str], scores: Mapping[str, float], taken: list[str], tau: float, world: World) -> list[str]:
    order: list[str] = []
    for name in sorted(rows, key=lambda row: -scores[row]):
        if all(_cosine(world.vectors[name], world.vectors[other]) <= tau for other in [*taken, *order]):
            order.append(name)
    return order


# --- quotas, groups, budgets


@dataclass
class _Count:
    """How far rows were taken, in all and of each group."""

    budget: float
    caps: dict[Any, float]  # group of the quota -> most that it gets
    max_per_group: int | None
    used: float = 0
    of_group: dict[Any, float] = field(default_factory=dict)
    rows_of_group: dict[Any, int] = field(default_factory=dict)
    of_family: dict[Any, int] = field(default_factory=dict)
    full: dict[tuple[str, Any], int] = field(default_factory=dict)  # (rule, group) -> pick at which it was full
    picks: int = 0
    spent: bool = False

    def take(self, row: Mapping[str, Any], size: float) -> None:
        self.picks += 1
        self.used += size
        group, family = row["topic"], row["family"]
        self.of_group[group] = self.of_group.get(group, 0) + size
        self.rows_of_group[group] = self.rows_of_group.get(group, 0) + 1
        self.of_family[family] = self.of_family.get(family, 0) + 1
        if self.of_group[group] >= self.caps.get(group, float("inf")):
            self.full.setdefault(("quota", group), self.picks)
        if self.max_per_group is not None and family is not None and self.of_family[family] >= self.max_per_group:
            self.full.setdefault(("max_per_group", family), self.picks)
        self.spent = self.spent or self.used >= self.budget

    def closed(self, row: Mapping[str, Any]) -> list[tuple[int, str]]:
        """The rules that keep the row out, that which was full first in front."""
        keys = [("max_per_group", row["family"]), ("quota", row["topic"])]
        return sorted(((self.full[key], key[0]) for key in keys if key in self.full), key=lambda full: full[0])


def _of_the_selector(
    selector: tuple[str, dict[str, Any]],
    position: int,
    seen: list[dict[str, Any]],
    kept: Sequence[str],
    scores: Mapping[str, float] | None,
    recipe: Mapping[str, Any],
    world: World,
) -> dict[str, Answer]:
    rows = {row["id"]: row for row in seen}
    candidates = [name for name in rows if name not in kept]
    column = recipe["budget"]["column"] if isinstance(recipe["budget"], Mapping) else None
    size = {name: row[column] if column else 1 for name, row in rows.items()}
    budget = recipe["budget"]["tokens"] if column else recipe["budget"]
    quota = recipe.get("quota", {})
    divides = "shares" in quota or "balance" in quota
    parts = _parts(quota, budget, [rows[name]["topic"] for name in candidates], kept, rows) if quota else {}
    count = _Count(budget, parts, recipe["max_per_group"] if "group_by" in recipe else None)
    for name in kept:
        count.take(rows[name], size[name])
    count.full = dict.fromkeys(count.full, 0) | {("quota", group): 0 for group, part in parts.items() if part <= 0}
    chosen: list[str] = []
    for part in _turns(candidates, rows, null_last="balance" in quota) if divides else [candidates]:
        order = _order(selector, position, part, scores, [*kept, *chosen], world)
        chosen += _walked(order, rows, size, count)
    answers = {}
    for name, row in rows.items():
        if name in kept:
            answers[name] = Answer("chosen", {"rank": list(kept).index(name) + 1})
        elif name in chosen:
            answers[name] = Answer("chosen", {} if divides else {"rank": len(kept) + chosen.index(name) + 1})
        else:
            rule, facts, last = _left_out(
                row, quota, count, [other for other in chosen if rows[other]["topic"] == row["topic"]]
            )
            if scores is not None:
                higher = sum(scores[other] > scores[name] for other in candidates)
                facts |= {"score": scores[name], "score_rank": 1 + higher}
                last = last if last is not None or divides else chosen
                if last is not None:
                    facts["score_of_last_taken"] = scores[last[-1]] if last else None
            answers[name] = Answer(rule, facts)
    return answers


def _walked(order: list[str], rows: Mapping[str, Any], size: Mapping[str, float], count: _Count) -> list[str]:
    """Which rows of an order are taken."""
    taken = []
    for name in order:
        group = rows[name]["topic"]
        if count.spent:
            break
        if count.closed(rows[name]):
            continue
        if count.of_group.get(group, 0) + size[name] > count.caps.get(group, float("inf")):
            count.full.setdefault(("quota", group), count.picks)
        elif count.used + size[name] > count.budget:
            count.spent = True
        else:
            count.take(rows[name], size[name])
            taken.append(name)
    return taken


def _left_out(
    row: Mapping[str, Any], quota: Mapping[str, Any], count: _Count, of_group: list[str]
) -> tuple[str, dict[str, Any], list[str] | None]:
    """The rule, its group, and where the budget is divided the rows among which the last one taken is looked for."""
    closed = count.closed(row)
    if not closed:  # with room for it, the selector itself did not want the row
        return "beyond_budget" if count.spent else "passed_over", {}, None
    if closed[0][1] == "max_per_group":
        return "max_per_group", {"group": row["family"], "rows_of_group": count.of_family[row["family"]]}, None
    facts = {"group": row["topic"], "rows_of_group": count.rows_of_group.get(row["topic"], 0)}
    if "balance" in quota:  # no limit of the group: the budget, divided
        return "beyond_budget", facts, of_group
    return "quota", facts, of_group if "shares" in quota else None


def _turns(candidates: list[str], rows: Mapping[str, Mapping[str, Any]], *, null_last: bool) -> list[list[str]]:
    """The rows of each group, in the order of the names."""
    groups = sorted(
        {rows[name]["topic"] for name in candidates}, key=lambda group: (null_last and group == NO_VALUE, group)
    )
    return [[name for name in candidates if rows[name]["topic"] == group] for group in groups]


def _parts(
    quota: Mapping[str, Any], budget: int, groups: list[Any], kept: Sequence[str], rows: Mapping[str, Any]
) -> dict[Any, float]:
    """The most that each group gets."""
    names = sorted(set(groups), key=lambda group: (group == NO_VALUE, group))
    if "caps" in quota:
        caps = quota["caps"] if isinstance(quota["caps"], Mapping) else dict.fromkeys(names, quota["caps"])
        return {name: int(cap * budget) if cap < 1 else cap for name, cap in caps.items()}
    if "shares" in quota:
        wanted = {name: quota["shares"].get(name, 0) * budget for name in names}
        parts = {name: int(want + 1e-9) for name, want in wanted.items()}
        by_remainder = sorted(names, key=lambda name: parts[name] - wanted[name])
        for name in by_remainder[: round(sum(wanted.values())) - sum(parts.values())]:
            parts[name] += 1
        return dict(parts)
    has = {name: sum(rows[row]["topic"] == name for row in kept) for name in names}
    room = {name: groups.count(name) for name in names}
    for _ in range(budget - len(kept)):
        open_groups = [name for name in names if room[name]]
        if not open_groups:
            break
        least = min(open_groups, key=lambda name: has[name])
        has[least] += 1
        room[least] -= 1
    return dict(has)
