"""What reaches a step of a recipe: the texts of targets, and the values of expressions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import ConfigError
from pipelines.recipes.spec import resolve_spec
from pipelines.reproduce import reproduce
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.ingest import ingest
from selection import MissingInput, Pool, select
from selection.errors import InvalidInput
from storage.errors import BadInput
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened
from tests.pipelines.recipes.test_spec import drawn

NO_VECTORS = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl, dogs: targets/dogs.jsonl}
recipes:
  any: {steps: [dsir], budget: 10}
"""


@pytest.fixture
def plain(light: Path) -> Path:
    """A project without vectors, two target sets."""
    (light / "winnow.yaml").write_text(NO_VECTORS)
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (100, 101)])
    return light


def scored(project: Path) -> Path:
    """The rows of one subject, with numbers beside the texts."""
    rows = [row(n, "fox") | {"a": n + 1, "b": n % 3, "odd": None if n == 7 else 1.5} for n in range(10)]
    write_rows(project / "data" / "a.jsonl", rows)  # type: ignore[arg-type]
    (project / "data" / "b.jsonl").unlink()
    return project


def test_dsir__gets_the_texts_of_all_targets_and_needs_no_vectors(plain: Path) -> None:
    change(plain, "budget: 10", "budget: 20")
    ingest(opened(plain))
    result, sources = drawn(plain)
    assert sorted(sources) == ["dog"] * 10 + ["fox"] * 10
    snapshot = opened(plain).pool.snapshot
    targets = [f"{row(n, s)['prompt']}\n{row(n, s)['response']}" for s in ("fox", "dog") for n in (100, 101)]
    pool = Pool(texts=snapshot.texts(), target_texts=targets)
    assert result.ids.tolist() == snapshot.ids[select(["dsir"], pool, budget=20).rows].tolist()
    assert "in the same order, with the same gains" in reproduce(opened(plain), result.spec.selection_id)


def test_dsir__one_target_set_of_several(plain: Path) -> None:
    change(plain, "budget: 10", "budget: 10, targets: [dogs]")
    ingest(opened(plain))
    assert drawn(plain)[1] == ["dog"] * 10


def test_dsir__dropped_rows_are_counted_and_kept_in_the_record(plain: Path) -> None:
    write_rows(plain / "data" / "b.jsonl", [{"prompt": "Hi!", "response": "Yes"}])  # type: ignore[list-item]
    change(plain, "[dsir]", "[{dsir: {min_tokens: 5}}, softmax]")
    ingest(opened(plain))
    result, _ = drawn(plain)
    assert result.dropped == {"dsir": 1}


def test_dsir__without_targets_is_refused_where_it_stands(plain: Path) -> None:
    change(plain, "targets: {foxes: targets/foxes.jsonl, dogs: targets/dogs.jsonl}\n", "")
    with pytest.raises(ConfigError, match=r"recipes.any.targets: dsir needs targets, and there are none"):
        opened(plain)


@pytest.mark.parametrize("written", ['"a / (b + 1)"', '{sql: "a / (b + 1)"}'])
def test_expression__is_evaluated_over_the_columns(light: Path, written: str) -> None:
    change(scored(light), "[random], budget: 8", f"[{{expression: {written}}}], budget: 10")
    ingest(opened(light))
    result, _ = drawn(light)
    context = opened(light)
    given = dict(zip(context.pool.snapshot.ids.tolist(), context.pool.snapshot.column("given_id"), strict=True))
    numbers = [int(given[row_id].split("-")[1]) for row_id in result.ids.tolist()]
    values = [(n + 1) / (n % 3 + 1) for n in numbers]
    assert values == sorted(values, reverse=True)
    assert sorted(numbers) == list(range(10))
    assert "in the same order, with the same gains" in reproduce(context, result.spec.selection_id)


@pytest.mark.slow
def test_expression__in_combine_and_beside_columns_of_the_same_text(light: Path) -> None:
    steps = '[{combine: {expression: [{sql: "-b", weight: 3}, {sql: a}], column: {field: a}}}], quota: {by: b, caps: 1}'
    change(scored(light), "[random], budget: 8", f"{steps}, budget: 3")
    ingest(opened(light))
    result, _ = drawn(light)
    snapshot = opened(light).pool.snapshot
    at = {row_id: n for n, row_id in enumerate(snapshot.ids.tolist())}
    assert [snapshot.column("a")[at[row_id]] for row_id in result.ids.tolist()] == [10, 8, 9]


def test_expression__a_row_without_a_value_is_named_and_where_keeps_it_out(light: Path) -> None:
    change(scored(light), "[random], budget: 8", '[{expression: "odd * a"}], budget: 2')
    ingest(opened(light))
    with pytest.raises(InvalidInput, match=r"expression 'odd \* a': row [0-9a-f-]{36} has no value \(NULL or NaN\)"):
        drawn(light)
    change(light, "budget: 2", "budget: 2, where: odd IS NOT NULL")
    drawn(light)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("a +", r"recipes.any.steps.0.: is not a SQL expression: .*; for example `nll_answer / nll_alone`"),
        ("random()", r"recipes.any.steps.0.: holds random\(\), which is not a function of the row"),
        ("a + epoch(now())", r"recipes.any.steps.0.: holds now\(\), which is not a function of the row"),
        ("a; DROP TABLE x", r"recipes.any.steps.0.: is not a SQL expression: "),
        ("a, b", r"recipes.any.steps.0.: is not a SQL expression: "),
    ],
)
def test_expression__is_checked_when_the_configuration_is_read(light: Path, expression: str, message: str) -> None:
    change(light, "[random], budget: 8", f'[{{expression: "{expression}"}}], budget: 2')
    with pytest.raises(ConfigError, match=message):
        opened(light)


def test_expression__what_only_the_pool_shows_is_refused_before_the_steps(light: Path) -> None:
    change(scored(light), "[random], budget: 8", '[{expression: "a + length(user)"}], budget: 2')
    ingest(opened(light))
    with pytest.raises(BadInput, match=r"expression: 'a \+ length\(user\)' holds user, which is not a function"):
        resolve_spec(opened(light), "any")
    change(light, "a + length(user)", "a / missing")
    with pytest.raises(BadInput, match=r"expression: 'a / missing' failed: (.|\n)*known columns: prompt"):
        drawn(light)
    change(light, "a / missing", "prompt")
    with pytest.raises(BadInput, match="it must give a number, gives VARCHAR"):
        drawn(light)


def test_expression__without_its_column_is_a_missing_input() -> None:
    with pytest.raises(MissingInput, match="expression needs column 'a'"):
        select([{"expression": "a"}], Pool(columns={"b": np.ones(2)}), budget=1)


@pytest.mark.parametrize("steps", ["[betr]", "[{betr: {sample: 40}}]", "[{betr: {sample: 40, classifier: texts}}]"])
def test_betr__from_a_recipe(light: Path, steps: str) -> None:
    change(light, "[rds_plus]", steps)
    for stage in (ingest, lambda context: embed(context, "vectors"), lambda context: embed_targets(context, "vectors")):
        stage(opened(light))
    result, sources = drawn(light, "near")
    assert sources.count("fox") >= 8
    assert "in the same order, with the same gains" in reproduce(opened(light), result.spec.selection_id)
