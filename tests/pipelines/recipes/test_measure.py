"""Examples that only measure: steps do not see them, selections are held apart from them, metrics say which they are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.recipes.spec import resolve_spec
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from pipelines.stages.ingest import ingest
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import change, opened, write_vectors

TARGETS = "foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy}"


@pytest.fixture
def halves(light: Path) -> Path:
    """Two files of targets, foxes select and dogs measure."""
    write_rows(light / "targets" / "dogs.jsonl", [row(n, "dog") for n in (100, 101, 0)])
    write_vectors(light / "vectors" / "foxes.npy", ["fox-100", "fox-101", "dog-100", "dog-101", "dog-0"])
    vectors = "vectors: vectors/foxes.npy, measure: targets/dogs.jsonl"
    change(light, TARGETS, f"foxes: {{files: targets/*.jsonl, {vectors}}}")
    return light


def test_measure__steps_do_not_see_the_examples_but_selections_are_held_apart_from_them(halves: Path) -> None:
    context = opened(halves)
    (outcome,) = run_all(context, ["near"])
    store = Store(halves / "store")
    refs = query_catalog(store, "SELECT DISTINCT ref FROM selection_items ORDER BY ref").to_pylist()
    assert [each["ref"] for each in refs] == ["foxes/fox-100", "foxes/fox-101"]
    assert outcome.metrics["equal_to_a_target"] == 1  # dog-0 is in the pool
    assert 0 < outcome.metrics["measuring_similarity_foxes"] < 0.6 < outcome.metrics["selecting_similarity_foxes"] <= 1
    halves_in_sql = query_catalog(
        store, "SELECT measures, count(*) AS n FROM targets GROUP BY 1 ORDER BY 1"
    ).to_pylist()
    assert halves_in_sql == [{"measures": False, "n": 2}, {"measures": True, "n": 3}]
    assert "in the same order" in reproduce(opened(halves), resolve_spec(context, "near").selection_id)


def test_measure__without_it_nothing_changes(light: Path) -> None:
    (outcome,) = run_all(opened(light), ["near"])
    assert not [name for name in outcome.metrics if "similarity_foxes" in name]
    digest, chosen = opened(light).config.digest, resolve_spec(opened(light), "near").selection_id
    rows = query_catalog(Store(light / "store"), "SELECT DISTINCT measures FROM targets").to_pylist()
    assert rows == [{"measures": None}]
    change(light, TARGETS, TARGETS.replace("}", ", measure: 0.5}"))
    ingest(opened(light))
    write_rows(light / "targets" / "foxes.jsonl", [row(n, "fox") for n in range(100, 110)])
    write_vectors(light / "vectors" / "foxes.npy", [f"fox-{n}" for n in range(100, 110)])
    changed = opened(light)
    assert changed.config.digest != digest
    assert resolve_spec(changed, "near").selection_id != chosen
