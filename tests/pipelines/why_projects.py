"""Small projects with random rows and recipes, and what `tests.pipelines.why_reference` has to know of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines import why
from pipelines.context import Context
from pipelines.named import selection_of
from pipelines.run import run_all
from storage.ids import from_arrow, to_text
from storage.records import read_selection
from tests.conftest import write_rows
from tests.pipelines.conftest import opened
from tests.pipelines.why_reference import CONDITIONS, DIMENSIONS, NO_VALUE, Answer, World, explain

TOPICS = ("art", "law", "sea", NO_VALUE)
FIRST_NIGHT = 100


@dataclass
class Drawings:
    """A project that was run for two nights.

    Attributes:
        names: winnow's id of a row -> its own.
        nights: of each night, recipe -> its selection, and what each row has to be answered.
    """

    context: Context
    names: dict[str, str]
    nights: list[dict[str, tuple[str, dict[str, Answer]]]]

    def expected(self) -> Iterator[tuple[str, str, Answer]]:
        """Selection, row and answer."""
        for night in self.nights:
            for selection, answers in night.values():
                for row, answer in answers.items():
                    yield selection, row, answer


def make_project(folder: Path, seed: int, count: int, *, nights: int = 2, where: bool = True) -> Drawings:
    """A project of 120 rows, 100 of them in the first night, with so many random recipes, and both nights run.

    What the first night's selections have to say of three rows of the second is asked, too.

    Args:
        nights: 1 leaves out the second night, and with it `top_up` over a grown pool.
        where: whether recipes may have a condition, which is evaluated in a process of its own.
    """
    rng = np.random.default_rng(seed)
    world = _world(rng)
    recipes = {f"r{n}": _recipe(rng, world.rows, folder, f"r{n}") for n in range(count)}
    recipes = {
        name: {key: value for key, value in recipe.items() if where or key != "where"}
        for name, recipe in recipes.items()
    }
    _write_files(folder, world)
    answers: list[dict[str, tuple[str, dict[str, Answer]]]] = []
    kept: dict[str, list[str]] = {}
    for night, rows in enumerate([world.rows[:FIRST_NIGHT], world.rows][:nights]):
        write_rows(folder / "data" / f"{night}.jsonl", [_filled(row) for row in rows[night * FIRST_NIGHT :]])
        tonight = {
            name: {**recipe, "budget": recipe["budget"] + 12 * night} if "mode" in recipe else recipe
            for name, recipe in recipes.items()
        }
        _write_config(folder, tonight | _helpers(tonight), world)
        run_all(opened(folder))
        context = opened(folder)
        names = _names(context)
        picked = _picked(context, names)
        ids = {name: id_ for id_, name in names.items()}
        known = replace(
            world,
            rows=sorted(rows, key=lambda row: ids[row["id"]]),
            orders={int(name[6:]): rows for name, (_, rows) in picked.items() if name.startswith("order_")},
            subpools={name[5:]: set(rows) for name, (_, rows) in picked.items() if name.startswith("left_")},
        )
        answers.append(
            {
                name: (picked[name][0], explain(name, recipe, known, kept.get(name, ())))
                for name, recipe in tonight.items()
            }
        )
        kept = {name: picked[name][1] for name, recipe in tonight.items() if "mode" in recipe}
    for _, of_rows in answers[0].values():
        of_rows.update({row["id"]: Answer("not_in_pool") for row in world.rows[FIRST_NIGHT:][: 3 * (nights - 1)]})
    return Drawings(context, names, answers)


def _world(rng: np.random.Generator) -> World:
    rows = _rows(rng)
    targets = {f"t{n}": _text(rng, 12) for n in range(4)}
    evaluation = {"q1": _text(rng, 20)}
    vectors: dict[str, np.ndarray] = {}
    for n, row in enumerate(rows):
        vectors[row["id"]] = rng.choice([-1.0, 1.0], DIMENSIONS)
        if n % 20 < 4:  # copies but for a number
            vectors[row["id"]] = vectors[rows[n - n % 20]["id"]].copy()
            vectors[row["id"]][n % 20] *= -1
    rows[31]["prompt"] = targets["t1"].upper() + "!"
    rows[32]["prompt"] = f"please {targets['t2']} {_text(rng, 8)}"
    rows[33]["prompt"] = f"well {evaluation['q1']} then"
    vectors[rows[34]["id"]][:] = 0
    return World(
        rows=rows,
        vectors=vectors,
        targets=targets,
        target_vectors={name: rng.choice([-1.0, 1.0], DIMENSIONS) for name in targets},
        evaluation=evaluation | targets if rng.random() < 0.5 else None,
    )


def _write_files(folder: Path, world: World) -> None:
    write_rows(folder / "targets.jsonl", [{"id": n, "prompt": t, "response": ""} for n, t in world.targets.items()])
    write_rows(folder / "quiz.jsonl", [{"id": "q1", "prompt": (world.evaluation or {}).get("q1", "")}])
    _save(folder / "vectors" / "pool.npy", world.vectors)
    _save(folder / "vectors" / "targets.npy", world.target_vectors)


def _write_config(folder: Path, recipes: dict[str, dict[str, Any]], world: World) -> None:
    config: dict[str, Any] = {
        "store": "./store",
        "pool": {"files": "data/*.jsonl", "vectors": "vectors/pool.npy"},
        "targets": {"all": {"files": "targets.jsonl", "vectors": "vectors/targets.npy"}},
        "recipes": {
            name: {key: value for key, value in recipe.items() if key not in ("allowed", "denied")}
            for name, recipe in recipes.items()
        },
    }
    if world.evaluation is not None:
        config["decontamination"] = {"files": {"quiz": {"files": "quiz.jsonl"}}}
    (folder / "winnow.yaml").write_text(yaml.safe_dump(config))


def _helpers(recipes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Recipes that show what only chance decides: the order of `random` behind so many steps, what a subpool keeps."""
    helpers: dict[str, dict[str, Any]] = {}
    everything = {"budget": 2 * FIRST_NIGHT, "exclude_targets": False, "allow_short": True}
    for name, recipe in recipes.items():
        first, last = recipe["steps"][0], recipe["steps"][-1]
        if last == "random":
            position = len(recipe["steps"]) - 1
            helpers[f"order_{position}"] = {
                **everything,
                "steps": [*[{"random_subpool": {"rows": 2 * FIRST_NIGHT}}] * position, "random"],
            }
        if "random_subpool" in first:
            constraints = ("quota", "group_by", "max_per_group", "budget", "steps")
            helpers[f"left_{name}"] = {key: value for key, value in recipe.items() if key not in constraints}
            helpers[f"left_{name}"] |= {"steps": [first, "random"], "budget": first["random_subpool"]["rows"]}
    return helpers


def differences(drawings: Drawings, answer: why.Answer, expected: Answer) -> list[str]:
    """What an answer says otherwise than the reference."""
    if answer.rule != expected.rule:
        return [f"rule: {answer.rule}, not {expected.rule}"]
    said = {
        **answer.detail,
        "kept": drawings.names.get(str(answer.detail.get("ref"))),
        "group": str(answer.detail.get("group")).split(" ")[-1],
        "rows_of_group": answer.detail.get("taken"),
    }
    wrong = []
    for name, value in expected.facts.items():
        if name == "kept_any_of":
            right = said["kept"] in value
        elif isinstance(value, float) and said[name] is not None:
            right = abs(said[name] - value) < 1e-6
        else:
            right = said[name] == value
        if not right:
            wrong.append(f"{name}: {said.get(name)}, not {value}")
    return wrong


def _text(rng: np.random.Generator, words: int) -> str:
    return " ".join(f"w{number}" for number in rng.integers(0, 5000, words))


def _rows(rng: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for n in range(120):
        text = rows[n - n % 20]["prompt"].rsplit(" ", 1)[0] if 0 < n % 20 < 3 else _text(rng, 30)
        rows.append(
            {
                "id": f"row-{n}",
                "source": str(rng.choice(["wiki", "dog", "cat"])),
                "prompt": f"{text} {n}",
                "response": "yes",
                "topic": str(rng.choice(TOPICS)),
                "family": None if rng.random() < 0.1 else f"f{rng.integers(20)}",
                "tokens": int(rng.integers(3, 30)),
                "quality": int(rng.integers(0, 100)),
                "nll_answer": float(rng.integers(2, 12)) / 4,
                "nll_alone": float(rng.integers(4, 16)) / 4,
            }
        )
    return rows


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value not in (None, NO_VALUE)}


def _save(path: Path, vectors: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    np.save(path, np.array(list(vectors.values()), np.float32))
    path.with_suffix(".ids.txt").write_text("\n".join(vectors) + "\n")


def _names(context: Context) -> dict[str, str]:
    """Winnow's id -> own id, of the rows of the pool."""
    snapshot = context.pool.snapshot
    given = snapshot.given_ids(snapshot.ids)
    return dict(zip(to_text(snapshot.ids), map(str, given), strict=True))


def _picked(context: Context, names: dict[str, str]) -> dict[str, tuple[str, list[str]]]:
    """Recipe -> its newest selection and the own ids of its rows, in order."""
    picked = {}
    for recipe in context.config.recipes:
        selection = selection_of(context.store, recipe)
        items = read_selection(context.store, selection)[1]
        picked[recipe] = (selection, [names[id_] for id_ in to_text(from_arrow(items["id"]))])
    return picked


# --- recipes

_FILTERS: dict[str, dict[str, Any]] = {
    "near_duplicates": {"threshold": 0.5, "length": 5},
    "best_of": {"by": "family", "score": "quality"},
    "decontaminate": {},
    "outliers": {"drop": 0.1, "n_neighbors": 5},
    "semdedup": {"eps": 0.1, "n_clusters": 1},
}
_SCORERS: list[Any] = ["rds_max", "rds_mean", {"column": {"field": "quality"}}, {"ifd": {}}]


def _recipe(rng: np.random.Generator, rows: list[dict[str, Any]], folder: Path, name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = {"budget": int(rng.integers(5, 30)), "allow_short": True}
    heads = rng.choice(list(_FILTERS), rng.integers(0, 2), replace=False).tolist()
    steps: list[Any] = [{head: _FILTERS[head]} for head in heads]
    kind = rng.choice(["scored", "random", "rds_plus", "diverse", "subpool"], p=[0.45, 0.15, 0.2, 0.1, 0.1])
    scorer = _SCORERS[rng.integers(len(_SCORERS))]
    if kind == "scored":
        steps += [scorer, *([{"keep_top": {"times": 2}}, "top"] if rng.random() < 0.3 else [])]
    elif kind == "random":
        steps += [*([scorer, {"keep_top": {"times": 3}}] if rng.random() < 0.5 else []), "random"]
    elif kind == "rds_plus":
        steps += ["rds_plus"]
    elif kind == "diverse":
        steps += [scorer, {"diversity_filter": {"tau": float(rng.choice([0.125, 0.5]))}}]
    else:
        steps = [{"random_subpool": {"rows": 60}}, {"column": {"field": "quality"}}]
    recipe["steps"] = steps
    if rng.random() < 0.4:
        recipe["where"] = str(rng.choice(list(CONDITIONS)))
    for key, known in (("allow", "allowed"), ("deny", "denied")):
        if rng.random() < 0.25:
            names = [row["id"] for row in rows[:100] if rng.random() < (0.8 if key == "allow" else 0.1)]
            (folder / f"{name}-{key}.txt").write_text("\n".join(names) + "\n")
            recipe |= {key: f"{name}-{key}.txt", known: set(names)}
    if rng.random() < 0.2:
        recipe["exclude_targets"] = False
    return recipe | _constraints(rng, recipe)


def _constraints(rng: np.random.Generator, recipe: dict[str, Any]) -> dict[str, Any]:
    if rng.random() < 0.15 and "random_subpool" not in str(recipe["steps"]):
        return {"mode": "top_up"}
    added: dict[str, Any] = {}
    quotas = [
        None,
        {"caps": int(rng.integers(1, 8))},
        {"caps": 0.3},
        {"caps": {"art": 3, "null": 2}},
        {"shares": {"art": 0.5, "law": 0.25, "null": 0.25}},
        {"balance": "water_fill"},
    ]
    quota = quotas[rng.integers(len(quotas))]
    if quota is not None:
        added["quota"] = {"by": "topic", **quota}
    if rng.random() < 0.4 and not (quota and "balance" in quota):
        added |= {"group_by": "family", "max_per_group": int(rng.integers(1, 3))}
    has_keep_top = any("keep_top" in step for step in recipe["steps"])
    if rng.random() < 0.3 and not has_keep_top and not (quota and "balance" in quota):
        added["budget"] = {"tokens": 10 * recipe["budget"], "column": "tokens"}
    return added
