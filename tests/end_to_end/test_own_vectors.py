"""A project without a model: its vectors come from files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.context import open_context
from pipelines.errors import RecipesFailed
from pipelines.plan import plan_lines
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from pipelines.run import run_all
from storage.catalog.query import query_catalog
from storage.errors import BadInput
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change

CONFIG = """\
store: ./store
pool:
  files: data/*.jsonl
  vectors: {url: pool.parquet, id: doc}
targets:
  foxes: {files: targets/foxes.jsonl, vectors: targets/foxes.npy}
recipes:
  near: {steps: [rds_plus], budget: 10}
  any: {steps: [random], budget: 5}
"""
D = 16


def direction(subject: str) -> np.ndarray:
    return np.eye(D)[SUBJECTS.index(subject)]


def write_pool_vectors(project: Path) -> None:
    """Each row points to its subject, some more than others."""
    names = [f"{subject}-{n}" for subject in SUBJECTS for n in range(15)]
    noise = np.random.default_rng(0).normal(size=(len(names), D)) * 0.1
    vectors = np.array([direction(name.split("-")[0]) for name in names]) + noise
    pq.write_table(pa.table({"doc": names, "v": list(vectors.astype(np.float32))}), project / "pool.parquet")


def write_target_vectors(project: Path, subject: str, d: int = D) -> None:
    np.save(project / "targets" / "foxes.npy", np.tile(direction(subject)[:d], (2, 1)).astype(np.float16))
    (project / "targets" / "foxes.ids.txt").write_text("fox-100\nfox-101\n")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """120 rows of 8 subjects and two targets, with vectors and without a model."""
    (tmp_path / "winnow.yaml").write_text(CONFIG)
    write_rows(tmp_path / "data" / "a.jsonl", [row(n, s) for s in SUBJECTS for n in range(15)])
    write_rows(tmp_path / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    write_pool_vectors(tmp_path)
    write_target_vectors(tmp_path, "fox")
    return tmp_path


def run_here(project: Path) -> list[str]:
    said: list[str] = []
    run_all(open_context(project / "winnow.yaml", Log(said.append)))
    return said


def sources(project: Path) -> list[str]:
    examples = query_catalog(
        Store(project / "store"),
        "SELECT DISTINCT source FROM selected_examples JOIN latest_selections USING (selection_id) "
        "WHERE latest_selections.recipe = 'near'",
    )
    return examples["source"].to_pylist()


def test_run__on_own_vectors_selects_indexes_and_reproduces(project: Path) -> None:
    change(project, "recipes:\n", "index: {kind: ivf}\nrecipes:\n")
    said = run_here(project)

    assert "vectors/embeddings: 120 of your vectors taken in, 120 vectors in all" in said
    assert "vectors/target_embeddings: 2 of your vectors taken in, 2 vectors in all" in said
    assert any(line.startswith("vectors/vector_index: ivf over 120 vectors") for line in said)
    assert sources(project) == ["fox"]
    store = Store(project / "store")
    assert query_catalog(store, "SELECT count(*) AS n, sum(dimension) AS d FROM encoders").to_pylist() == [
        {"n": 2, "d": 2 * D}
    ]
    context = open_context(project / "winnow.yaml", Log(lambda _: None))
    assert plan_lines(context)[2] == "vectors/embeddings: 0 rows to take in, 120 in the store"
    (near,) = query_catalog(store, "SELECT selection_id FROM latest_selections WHERE recipe = 'near'")[0].to_pylist()
    assert "the same 10 rows in the same order" in reproduce(context, near)


def test_run__again_takes_in_nothing_and_other_target_vectors_take_in_only_them(project: Path) -> None:
    run_here(project)
    assert "vectors/embeddings: nothing new to take in, 120 vectors in all" in run_here(project)

    write_target_vectors(project, "text")
    context = open_context(project / "winnow.yaml", Log(lambda _: None))
    assert plan_lines(context)[-2:] == ["selection/near: to be drawn", "selection/any: drawn already, nothing to do"]
    said = run_here(project)
    assert "vectors/embeddings: nothing new to take in, 120 vectors in all" in said
    assert "vectors/target_embeddings: 2 of your vectors taken in, 2 vectors in all" in said
    assert sources(project) == ["text"]


def test_run__targets_of_another_space_are_refused(project: Path) -> None:
    write_target_vectors(project, "fox", d=8)
    with pytest.raises(BadInput, match=r"^targets\.foxes\.vectors: 8 dimensions, those of pool\.vectors have 16; "):
        run_here(project)


def test_run__a_row_without_a_vector_stops_the_run_and_the_next_one_goes_on(project: Path) -> None:
    write_rows(project / "data" / "b.jsonl", [row(77, "dog")])
    with pytest.raises(BadInput, match=r"1 of 121 rows of .* have no vector in .*pool\.parquet \(first: 'dog-77'\)"):
        run_here(project)
    (project / "data" / "b.jsonl").unlink()
    assert "vectors/embeddings: 120 of your vectors taken in, 120 vectors in all" in run_here(project)


def test_run__a_pool_vector_without_a_direction_leaves_its_row_out(project: Path) -> None:
    table = pq.read_table(project / "pool.parquet").to_pydict()
    table["v"][3] = [0.0] * D
    pq.write_table(pa.table(table), project / "pool.parquet")
    said = run_here(project)
    assert "vectors/embeddings: 119 of your vectors taken in, 119 vectors in all, 1 rows without one" in said
    assert "selection/near: drew 10 rows of 119 eligible (kept out: 1 without vector)" in said


def test_run__a_target_vector_without_a_direction_is_named(project: Path) -> None:
    np.save(project / "targets" / "foxes.npy", np.array([direction("fox"), np.zeros(D)]))
    with pytest.raises(RecipesFailed, match=r"^recipe near: target 'fox-101' of 'foxes' has no vector: ") as caught:
        run_here(project)
    assert isinstance(caught.value.errors["near"], BadInput)


@pytest.mark.slow
def test_run__own_vectors_beside_a_model_are_used_where_they_are_named(project: Path, model: Path) -> None:
    (project / "model").symlink_to(model)
    more = "encoders:\n  tiny: {model: ./model, max_tokens: 32}\n"
    text = CONFIG.replace("recipes:\n", more + "recipes:\n  mine: {steps: [rds_plus], budget: 10, encoder: vectors}\n")
    (project / "winnow.yaml").write_text(text)
    run_here(project)
    selections = query_catalog(
        Store(project / "store"),
        "SELECT s.recipe, e.model FROM latest_selections s LEFT JOIN encoders e USING (encoder) ORDER BY recipe",
    ).to_pylist()
    assert [(selection["recipe"], Path(selection["model"] or "none").name) for selection in selections] == [
        ("any", "none"),
        ("mine", "pool.parquet"),
        ("near", "model"),
    ]


def test_run__facts_are_recorded(project: Path) -> None:
    run_here(project)
    runs = query_catalog(
        Store(project / "store"), "SELECT facts FROM runs WHERE stage = 'embed' AND target = 'vectors'"
    )
    assert json.loads(runs["facts"][0].as_py()) == {
        "rows": 120,
        "new_vectors": 120,
        "shared_vectors": 0,
        "failed": 0,
        "dimension": D,
        "unknown": 0,
        "ambiguous": 0,
        "repeated": 0,
    }


def write_alike(project: Path) -> np.ndarray:
    """Vectors of cosines around 0.9996; returns the float64 cosine of each of the 120 rows to the one target."""
    rng = np.random.default_rng(1)
    base = rng.normal(size=256)
    base /= np.linalg.norm(base)
    x = (base + 0.02 * rng.normal(size=(120, 256)) / 16).astype(np.float32)
    target = (3 * base + 0.06 * rng.normal(size=256) / 16).astype(np.float32)
    x[100] = 2 * target  # a row that is its target
    names = [f"{subject}-{n}" for subject in SUBJECTS for n in range(15)]
    pq.write_table(pa.table({"doc": names, "v": list(x)}), project / "pool.parquet")
    np.save(project / "targets" / "foxes.npy", np.tile(target, (2, 1)))
    wide = x.astype(np.float64)
    return wide @ target / np.linalg.norm(wide, axis=1) / np.linalg.norm(target.astype(np.float64))


@pytest.mark.slow
def test_run__vectors_that_are_all_alike_go_by_the_angle(project: Path) -> None:
    cosine = write_alike(project)
    names = np.array([f"{subject}-{n}" for subject in SUBJECTS for n in range(15)])
    query = (
        "SELECT given_id, value FROM selected_examples JOIN latest_selections USING (selection_id) "
        "WHERE latest_selections.recipe = 'near' ORDER BY rank"
    )
    config = CONFIG.replace("budget: 10", "budget: 20")
    same = {}
    for stored in ("float16", "float32"):
        text = config.replace("id: doc}", f"id: doc, store: {stored}}}")
        text = text.replace("targets/foxes.npy", f"{{url: targets/foxes.npy, store: {stored}}}")
        (project / "winnow.yaml").write_text(text)
        run_here(project)
        picked = query_catalog(Store(project / "store"), query).to_pydict()
        same[stored] = len(set(picked["given_id"]) & set(names[np.argsort(-cosine)[:20]]))
        assert max(picked["value"]) <= 1
        assert picked["given_id"][0] == names[100]
    assert same["float16"] >= 18
    assert same["float32"] == 20
    (folders,) = query_catalog(Store(project / "store"), "SELECT count(*) AS n FROM encoders").to_pylist()
    assert folders["n"] == 4  # of pool and targets, each stored in two ways
