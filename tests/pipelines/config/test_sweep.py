"""`sweep:` in a recipe: one block stands for the product of its values, and nothing else knows of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.load import load_config
from pipelines.config.schema import Recipe
from pipelines.config.sweep import MAX_RECIPES, write_out
from pipelines.errors import ConfigError
from pipelines.run import _chosen
from tests.pipelines.conftest import change, make_light, opened

KEYS = list(Recipe.model_fields)
SWEPT = """\
  any:
    where: "length(prompt) > 3"
    sweep:
      steps: {draw: [random], far: [k_center]}
      budget: [3, 5]
      seed: [0, 7]
"""
NAMES = [f"any_{steps}_budget{budget}_seed{seed}" for steps in ("draw", "far") for budget in (3, 5) for seed in (0, 7)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_light(tmp_path_factory.mktemp("swept") / "light")
    change(project, "  any: {steps: [random], budget: 8}\n", SWEPT)
    return project


def problems(project: Path, old: str, new: str) -> list[str]:
    """The messages after an edit, which is undone."""
    path = project / "winnow.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    try:
        with pytest.raises(ConfigError) as caught:
            load_config(project)
    finally:
        path.write_text(text)
    return [str(problem).replace(f"{project}/", "") for problem in caught.value.problems]


def test_sweep__is_the_recipes_written_one_by_one(project: Path) -> None:
    config = load_config(project)
    assert list(config.recipes) == ["near", *NAMES]
    text = (project / "winnow.yaml").read_text()
    steps = {"draw": "random", "far": "k_center"}
    by_hand = "".join(
        f"  any_{name}_budget{budget}_seed{seed}:\n"
        f'    {{steps: [{step}], budget: {budget}, seed: {seed}, where: "length(prompt) > 3"}}\n'
        for name, step in steps.items()
        for budget in (3, 5)
        for seed in (0, 7)
    )
    (project / "by_hand.yaml").write_text(text.replace(SWEPT, by_hand).replace("[any]", f"[{', '.join(NAMES)}]"))
    assert load_config(project / "by_hand.yaml").digest == config.digest
    (project / "resolved.yaml").write_text(config.resolved_yaml())
    assert load_config(project / "resolved.yaml").digest == config.digest


def test_sweep__its_name_means_all_of_its_recipes(project: Path) -> None:
    config = load_config(project)
    assert config.schedule is not None
    assert list(config.schedule.recipes) == NAMES
    assert config.members("any") == tuple(NAMES)
    assert _chosen(opened(project), ["near", "any", "any_draw_budget3_seed7"]) == ["near", *NAMES]


def test_sweep__exports_of_it_have_a_folder_each(tmp_path: Path) -> None:
    project = make_light(tmp_path / "light")
    change(project, "  any: {steps: [random], budget: 8}\n", "  any: {steps: [random], sweep: {budget: [3, 5]}}\n")
    with (project / "winnow.yaml").open("a") as file:
        file.write("exports:\n  a: {recipe: any, to: text}\n  b: {recipe: any, to: ids, out: files}\n")
    exports = load_config(project).exports
    assert {name: (export.recipe, Path(export.out).relative_to(project)) for name, export in exports.items()} == {
        "a_budget3": ("any_budget3", Path("exports/a_budget3")),
        "a_budget5": ("any_budget5", Path("exports/a_budget5")),
        "b_budget3": ("any_budget3", Path("files/budget3")),
        "b_budget5": ("any_budget5", Path("files/budget5")),
    }
    with (project / "winnow.yaml").open("a") as file:
        file.write("  a_budget5: {recipe: near, to: text}\n")
    with pytest.raises(
        ConfigError, match=r"exports\.a\.recipe: exports each recipe of the sweep, one of them as `a_budget5`"
    ):
        load_config(project)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: [0, 7]", "sede: [0, 7]", "winnow.yaml:14: recipes.any.sweep.sede: unknown key (did you mean `seed`?); allowed:"),
        ("seed: [0, 7]", "where: [a]", "winnow.yaml:14: recipes.any.sweep.where: is given in the recipe too; keep `where` there"),
        ("seed: [0, 7]", "seed: 3", "winnow.yaml:14: recipes.any.sweep.seed: must be a list of values, or a mapping of names to "),
        ("seed: [0, 7]", "seed: []", "winnow.yaml:14: recipes.any.sweep.seed: must be a list of values"),
        ("seed: [0, 7]", "seed: [0, 0]", "winnow.yaml:11: recipes.any.sweep: would make a recipe called 'any_draw_budget3_seed0', and"),
        ("seed: [0, 7]", "seed: [0, -7]", "winnow.yaml:14: recipes.any.sweep.seed[1]: must be at least 0, found -7"),
        ("seed: [0, 7]", f"seed: {list(range(30))}", f"winnow.yaml:11: recipes.any.sweep: stands for 120 recipes; at most {MAX_RECIPES}"),
        ("budget: [3, 5]", "budget: [{tokens: 9}]", "winnow.yaml:13: recipes.any.sweep.budget[0]: is no number and no word that"),
        ("far: [k_center]", "far: [k_centre]", "winnow.yaml:12: recipes.any.sweep.steps.far[0]: unknown step 'k_centre'"),
        ("far: [k_center]", "f r: [k_center]", "winnow.yaml:12: recipes.any.sweep.steps.f r: 'f r' cannot be in a name"),
        ("draw: [random]", f"{'d' * 60}: [random]", f"winnow.yaml:11: recipes.any.sweep: would make a recipe called 'any_{'d' * 60}"),
        ("length(prompt) > 3", "length(", "winnow.yaml:10: recipes.any.where: is not a SQL condition"),
        ("  near:", "  any_far_budget3-seed0:", "winnow.yaml:11: recipes.any.sweep: would make a recipe called 'any_far_budget3_seed0', and"),
        ("recipes: [any]", "recipes: [ani]", "winnow.yaml:15: schedule.recipes[0]: no recipe is called 'ani'"),
    ],
)  # fmt: skip
def test_sweep__mistakes_are_shown_once_and_where_they_were_written(
    project: Path, old: str, new: str, message: str
) -> None:
    (problem,) = problems(project, old, new)
    assert problem.startswith(message)


@pytest.mark.parametrize("sweep", ["3", "", "[]", "{}"])
def test_sweep__must_be_a_mapping(project: Path, sweep: str) -> None:
    (problem,) = problems(project, SWEPT, f"  any: {{steps: [random], budget: 3, sweep: {sweep}}}\n")
    assert problem.startswith(
        "winnow.yaml:9: recipes.any.sweep: must be a mapping of keys to their values, for example"
    )


VALUES = {
    "seed": st.integers(0, 10**6),
    "min_overlap": st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    "encoder": st.sampled_from(["small", "large", "new-er"]),
    "mode": st.sampled_from(["fresh", "top_up"]),
}
SWEEPS = st.dictionaries(st.sampled_from(sorted(VALUES)), st.just(None), min_size=1).flatmap(
    lambda keys: st.fixed_dictionaries(
        {key: st.lists(VALUES[key], min_size=1, max_size=3, unique=True) for key in keys}
    )
)


@given(sweep=SWEEPS)
def test_write_out__gives_the_product(sweep: dict[str, list[Any]]) -> None:
    raw = yaml.safe_load(yaml.safe_dump({"recipes": {"a": {"budget": 3, "sweep": sweep}, "b": {"budget": 4}}}))
    sweeps = write_out(raw, KEYS)
    recipes = raw["recipes"]
    assert not sweeps.mistakes
    assert recipes.pop("b") == {"budget": 4}
    wanted = [{"budget": 3} | dict(zip(sweep, values, strict=True)) for values in itertools.product(*sweep.values())]
    assert sorted(map(repr, map(sorted, (recipe.items() for recipe in recipes.values())))) == sorted(
        map(repr, map(sorted, (recipe.items() for recipe in wanted)))
    )
    assert sweeps.members == {"a": tuple(recipes)}
