"""What a selection depends on, and which rows may be drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.context import Context, open_context
from pipelines.progress import Log
from pipelines.recipes import candidates
from pipelines.recipes.draw import SelectionResult, draw, replay
from pipelines.recipes.inputs import DrawInputs
from pipelines.recipes.spec import SelectionSpec, encoders_of, resolve_spec
from pipelines.stages.embed import embed, embed_targets
from pipelines.stages.index import index
from pipelines.stages.ingest import ingest
from selection import Constraints
from selection.errors import InvalidInput, InvalidOption
from selection.registry import parse_steps
from selection.vectors import TensorVectors
from storage.errors import BadInput
from storage.ids import from_arrow, rows_of, to_text
from storage.records import read_selection
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change
from tests.quick import quick_first


@pytest.fixture
def ingested(light: Path) -> Path:
    ingest(opened(light))
    return light


def opened(project: Path) -> Context:
    return open_context(project, Log(lambda _: None))


def draw_recipe(context: Context, recipe: str) -> SelectionResult:
    return draw(context, DrawInputs(context.pool, resolve_spec(context, recipe)), recipe)


def drawn(project: Path, recipe: str = "any") -> tuple[SelectionResult, list[str]]:
    """The draw, and the sources of its rows."""
    context = opened(project)
    made = draw_recipe(context, recipe)
    snapshot = context.pool.snapshot
    rows = rows_of(made.ids, snapshot.ids)
    return made, snapshot.column("source")[rows].tolist()


CHANGES = {
    "steps": "[{stratified: {by: source}}], budget: 8",
    "budget": "[random], budget: 9",
    "seed": "[random], budget: 8, seed: 1",
    "round": "[random], budget: 8, round: 1",
    "allow_short": "[random], budget: 8, allow_short: true",
    "where": "[random], budget: 8, where: length(prompt) > 1",
    "allow": "[random], budget: 8, allow: ids.txt",
    "deny": "[random], budget: 8, deny: ids.txt",
    "held_out": "[random], budget: 8, exclude_targets: false",
}


@pytest.mark.parametrize("what", CHANGES)
def test_selection_id__depends_on_each_input(ingested: Path, what: str) -> None:
    (ingested / "ids.txt").write_text("fox-1\nfox-2\n")
    before = resolve_spec(opened(ingested), "any").selection_id
    change(ingested, "[random], budget: 8", CHANGES[what])
    assert resolve_spec(opened(ingested), "any").selection_id != before


def test_selection_id__not_on_what_does_not_matter(ingested: Path) -> None:
    (ingested / "ids.txt").write_text("fox-1\nfox-2\n")
    change(ingested, "budget: 8", "budget: 8, deny: ids.txt")
    before = resolve_spec(opened(ingested), "any")
    (ingested / "ids.txt").write_text("\n  fox-2\nfox-1  \nfox-1\n")
    change(ingested, "[random]", "[{random: {}}]")
    change(ingested, "budget: 8", "budget: 8, min_overlap: 0.5, encoder: vectors")
    assert resolve_spec(opened(ingested), "any") == before


def test_selection_id__on_the_order_of_targets_and_on_their_vectors(ingested: Path) -> None:
    found = resolve_spec(opened(ingested), "near")
    more = replace(found, targets={**found.targets, "b": "2"})
    turned = replace(found, targets={"b": "2", **found.targets})
    assert len({one.selection_id for one in (found, more, turned)}) == 3
    assert list(found.target_encoders) == ["foxes"]
    assert replace(found, target_encoders={"foxes": "other"}).selection_id != found.selection_id


def test_draw__the_same_twice_is_one_record(ingested: Path) -> None:
    first, _ = drawn(ingested)
    second, _ = drawn(ingested)
    assert (first.new, second.new) == (True, False)
    assert first.ids.tolist() == second.ids.tolist()
    assert first.metrics == second.metrics
    assert opened(ingested).store.records("selections") == [first.spec.selection_id]


def test_draw__where_keeps_the_rest_out_and_counts_it(ingested: Path) -> None:
    # Of the dogs, which follow the foxes in a.jsonl, the first seven.
    change(ingested, "budget: 8", "budget: 17, where: \"source IN ('fox', 'dog') AND line < 18\"")
    made, sources = drawn(ingested)
    assert sorted(sources) == ["dog"] * 7 + ["fox"] * 10
    assert (made.metrics["outside_where"], made.metrics["eligible"]) == (63, 17)


def test_draw__allow_and_deny(ingested: Path) -> None:
    foxes = [f"fox-{n}" for n in range(10)]
    (ingested / "allow.txt").write_text("\n".join([*foxes, "dog-1"]) + "\n")
    (ingested / "deny.txt").write_text("fox-3\n")
    change(ingested, "budget: 8", "budget: 10, allow: allow.txt, deny: deny.txt")
    made, sources = drawn(ingested)
    assert sorted(sources) == ["dog"] + ["fox"] * 9
    assert (made.metrics["not_allowed"], made.metrics["denied"], made.metrics["eligible"]) == (69, 1, 10)


def test_draw__a_row_that_a_step_blames_is_named_by_its_id(light: Path) -> None:
    write_rows(light / "data" / "a.jsonl", [row(0, "fox"), row(1, "fox") | {"score": 3}])  # type: ignore[dict-item]
    change(light, "[random], budget: 8", "[{column: {field: score}}], budget: 1, where: source = 'fox'")
    ingest(opened(light))
    snapshot = opened(light).pool.snapshot
    (fox,) = (
        one for one, given in zip(to_text(snapshot.ids), snapshot.column("given_id"), strict=True) if given == "fox-0"
    )
    with pytest.raises(InvalidInput, match=rf"column 'score': row {fox} is nan, .*`where` can keep such rows out"):
        drawn(light)


def test_draw__a_row_with_the_prompt_of_any_target_is_kept_out(ingested: Path) -> None:
    write_rows(ingested / "targets" / "foxes.jsonl", [row(3, "fox") | {"response": "another"}])
    change(ingested, "budget: 8", "budget: 79")
    made, _ = drawn(ingested)
    assert (made.metrics["equal_to_a_target"], made.metrics["eligible"]) == (1, 79)
    fox = [one for one in opened(ingested).pool.snapshot.ids if one not in made.ids]
    assert len(fox) == 1


def test_draw__reasons_name_targets_and_rows_by_their_ids(light: Path) -> None:
    context = opened(light)
    ingest(context)
    embed(context, "vectors")
    embed_targets(context, "vectors")
    made = draw_recipe(context, "near")
    items = read_selection(context.store, made.spec.selection_id)[1]
    assert set(items["ref"].to_pylist()) == {"foxes/fox-100", "foxes/fox-101"}
    assert min(items["ref_rank"].to_pylist()) == 1
    assert to_text(from_arrow(items["id"])) == to_text(made.ids)


@pytest.mark.parametrize("steps", ["rds_plus", "k_center", "{outliers: {n_neighbors: 3, drop: 0.1}}, k_center"])
@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_redraw__on_a_device_gives_the_same_items(
    light: Path, monkeypatch: pytest.MonkeyPatch, steps: str, kind: str
) -> None:
    change(light, "[rds_plus], budget: 10", f"[{steps}], budget: 10, encoder: vectors")
    change(light, "recipes:\n", f"index: {{kind: {kind}}}\nrecipes:\n")
    context = opened(light)
    ingest(context)
    embed(context, "vectors")
    index(context, "vectors")
    embed_targets(context, "vectors")
    made = draw_recipe(context, "near")
    header, items = read_selection(context.store, made.spec.selection_id)
    used = []
    monkeypatch.setattr(candidates, "on_gpu", lambda vectors: used.append(0) or TensorVectors(vectors, "cpu"))
    assert replay(DrawInputs(context.pool, SelectionSpec.from_record(header))).select(items.column_names).equals(items)
    assert used


def test_index__of_steps_that_search_is_recorded_where_it_is_approximate(light: Path) -> None:
    change(
        light, "[random], budget: 8", "[{outliers: {n_neighbors: 3, drop: 0.1}}, random], budget: 8, encoder: vectors"
    )
    context = opened(light)
    ingest(context)
    embed(context, "vectors")
    exact = resolve_spec(context, "any")
    assert exact.index is None
    index(context, "vectors")
    assert context.store.committed("indexes") == []  # so few rows are all compared
    assert resolve_spec(context, "any") == exact
    change(light, "recipes:\n", "index: {kind: ivf}\nrecipes:\n")
    context = opened(light)
    index(context, "vectors")
    found = resolve_spec(context, "any")
    assert found.index in context.store.committed("indexes")
    assert found.selection_id != exact.selection_id
    assert resolve_spec(context, "near").index is None
    embed_targets(context, "vectors")
    made = draw_recipe(context, "any")
    header, items = read_selection(context.store, made.spec.selection_id)
    assert header["index"] == found.index
    assert replay(DrawInputs(context.pool, SelectionSpec.from_record(header))).select(items.column_names).equals(items)
    assert made.metrics["dropped_by_outliers"] == 8


def test_encoders_of__only_of_recipes_that_need_vectors(light: Path) -> None:
    change(light, "steps: [random]", "steps: [random], encoder: vectors")
    config = opened(light).config
    assert encoders_of(config, ["any"]) == []
    assert encoders_of(config, ["any", "near"]) == ["vectors"]


def test_selection_id__of_a_recipe_keeps_its_name_from_version_to_version() -> None:
    found = SelectionSpec(
        steps=parse_steps(["random"]),
        constraints=Constraints(budget=8),
        seed=0,
        round=0,
        allow_short=False,
        snapshot="s",
        encoder=None,
        index=None,
        targets={},
        target_encoders={},
        held_out=(),
        where=None,
        allow=None,
        deny=None,
        previous=None,
    )
    assert found.selection_id == "31eec89e185d72abdd64a3bee66b7cc5"


@pytest.mark.parametrize("step", quick_first(1, ["k_center", "kmeans_pp"]))
def test_draw__the_first_row_by_id_or_by_row_of_the_pool(ingested: Path, step: str) -> None:
    embed(opened(ingested), "vectors")
    snapshot = opened(ingested).pool.snapshot
    wanted = snapshot.match(["dog-7"]).rows[0]
    old = "any: {steps: [random], budget: 8}"
    for first in ("{id: dog-7}", f"{{id: {to_text(snapshot.ids[[wanted]])[0]}}}", str(wanted)):
        new = f"any: {{steps: [{{{step}: {{first: {first}}}}}], budget: 8, where: source = 'dog'}}"
        change(ingested, old, new)
        context = opened(ingested)
        made = draw_recipe(context, "any")
        assert rows_of(made.ids, snapshot.ids)[0] == wanted
        old = new
    change(ingested, old, old.replace(str(wanted), "{id: nobody}"))
    with pytest.raises(InvalidOption, match=f"{step}: first: 'nobody' names no row of the pool"):
        draw_recipe(opened(ingested), "any")


def test_resolve_spec__a_name_that_is_no_column_but_of_the_session_is_refused(ingested: Path):
    change(ingested, "[random], budget: 8", "[random], budget: 8, where: user = 'anna'")
    with pytest.raises(BadInput, match=r"^where: \"user = 'anna'\" holds user, which is not a function of the row"):
        draw_recipe(opened(ingested), "any")
