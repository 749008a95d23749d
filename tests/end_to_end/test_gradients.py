"""Gradients of a tiny model: from `encoders:` to a recipe that is LESS, and to SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.encoders import GradientSpec, load_vectorizer
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change
from tests.training_checkpoints import checkpoints_of_a_training

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl, dogs: targets/dogs.jsonl}
encoders:
  less:
    kind: gradients
    checkpoints:
      - {model: training/checkpoint-1, learning_rate: 3.0e-4}
      - {model: training/checkpoint-3, learning_rate: 1.0e-4}
    direction: adam
    parameters: [model.layers.1.*]
    dims: 64
recipes:
  less: {steps: [{rds_max: {per: subtask}}], budget: 5}
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints_of_a_training(tmp_path_factory.mktemp("training"))[0].parent


@pytest.fixture
def project(tmp_path: Path, training: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "training").symlink_to(training)
    rows = [row(n, s) for s in ("fox", "dog") for n in range(8)]
    rows[3]["response"] = rows[5]["response"] = ""
    write_rows(folder / "data" / "a.jsonl", rows)
    for subject in ("fox", "dog"):
        write_rows(
            folder / "targets" / f"{subject}{'e' * (subject == 'fox')}s.jsonl", [row(n, subject) for n in (100, 101)]
        )
    (folder / "winnow.yaml").write_text(CONFIG)
    return folder


def ask(project: Path, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), query).to_pylist()


def vectors_of(project: Path, direction: str, checkpoint: str, turns: list[Any]) -> np.ndarray:
    spec = GradientSpec(
        model=str(project / "training" / checkpoint), direction=direction, parameters=["model.layers.1.*"], dims=64
    )
    return load_vectorizer(spec, "cpu").vectors_of(turns).vectors.astype(np.float64)


def test_run__a_recipe_over_gradients_selects_what_less_selects(project: Path, winnow: Winnow) -> None:
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "16 texts encoded" in ran.err
    assert "2 texts without one" in ran.err
    (kind,) = {record["kind"] for record in ask(project, "SELECT kind FROM encoders")}
    assert kind == "gradients"
    assert len(ask(project, "SELECT * FROM encoders")) == 2  # candidates of Adam, targets plain

    def read(name: str) -> list[Any]:
        lines = [json.loads(line) for line in (project / name).read_text().splitlines()]
        return [(line["id"], [("user", line["prompt"]), ("assistant", line["response"])]) for line in lines]

    candidates = [(key, turns) for key, turns in read("data/a.jsonl") if turns[1][1]]
    subtasks = [read("targets/dogs.jsonl"), read("targets/foxes.jsonl")]
    influence = np.zeros((len(candidates), 2))
    for checkpoint, weight in (("checkpoint-1", 0.75), ("checkpoint-3", 0.25)):
        train = vectors_of(project, "adam", checkpoint, [turns for _, turns in candidates])
        for i, subtask in enumerate(subtasks):
            validation = vectors_of(project, "plain", checkpoint, [turns for _, turns in subtask])
            influence[:, i] += weight * (train @ validation.T).mean(axis=1)
    order = np.argsort(-influence.max(axis=1))[:5]
    drawn = ask(project, "SELECT given_id, gain FROM selected_examples ORDER BY rank")
    assert [record["given_id"] for record in drawn] == [candidates[i][0] for i in order]
    np.testing.assert_allclose([record["gain"] for record in drawn], influence.max(axis=1)[order], atol=1e-3)

    norms = ask(project, "SELECT norms FROM gradient_norms JOIN encoders USING (encoder)")
    assert len(norms) == 14 + 4  # candidates with a vector, targets
    assert all(len(record["norms"]) == 2 and min(record["norms"]) > 0 for record in norms)

    again = winnow("run", "-c", project)
    assert "nothing new to encode" in again.err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("checkpoint-3,", "checkpoint-9,", "winnow.yaml:7: encoders.less.checkpoints: model "),
        ("learning_rate: 3.0e-4", "rate: 1", "winnow.yaml:7: encoders.less.checkpoints: a checkpoint takes model"),
        ("dims: 64", "dims: 0", "winnow.yaml:12: encoders.less.dims: dims must be a whole number >= 1"),
        ("direction: adam", "direction: sgd", "winnow.yaml:10: encoders.less.direction: must be one of plain, adam"),
        ("    checkpoints:", "    model: training/start\n    checkpoints:", "need either a model or checkpoints"),
    ],
)
def test_check__mistakes_are_located(project: Path, winnow: Winnow, old: str, new: str, message: str) -> None:
    change(project, old, new)
    ended = winnow("run", "-c", project)
    assert ended.code == 2
    assert message in ended.err, ended.err
