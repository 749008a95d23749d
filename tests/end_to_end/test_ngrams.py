"""Hashed n-grams: from `encoders:` to a recipe and to SQL, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selection.encoders import NgramSpec, load_vectorizer
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
targets: {foxes: targets/foxes.jsonl}
encoders:
  words:
    kind: ngrams
    dims: 256
    turns: prompt
  answers: {kind: ngrams, dims: 128, turns: response, postprocess: center}
recipes:
  near: {steps: [rds_max], budget: 5}
  replies: {steps: [rds_max], budget: 5, encoder: answers}
"""
SUBJECTS = ("fox", "dog", "add")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    rows = [row(n, subject) for subject in SUBJECTS for n in range(8)]
    rows[3]["response"] = ""
    write_rows(tmp_path / "data" / "a.jsonl", rows)
    write_rows(tmp_path / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    (tmp_path / "winnow.yaml").write_text(CONFIG)
    return tmp_path


def ask(project: Path, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), query).to_pylist()


def test_run__a_recipe_over_ngrams_selects_the_nearest_by_words(project: Path, winnow: Winnow) -> None:
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "23 vectors in all, 1 texts without one" in ran.err  # the row without an answer has none of it
    encoders = ask(project, "SELECT kind, dimension, max_tokens FROM encoders ORDER BY ALL")
    assert encoders == [{"kind": "ngrams", "dimension": d, "max_tokens": None} for d in (128, 128, 256)]

    model = load_vectorizer(NgramSpec(dims=256))

    def unit(rows: list[dict[str, str]]) -> np.ndarray:
        vectors = model.vectors_of([[("user", each["prompt"])] for each in rows]).vectors.astype(np.float64)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    candidates = [row(n, subject) for subject in SUBJECTS for n in range(8)]
    nearest = (unit(candidates) @ unit([row(n, "fox") for n in (100, 101)]).T).max(axis=1)
    drawn = ask(project, "SELECT given_id, gain FROM selection('near') ORDER BY rank")
    by_id = {each["id"]: score for each, score in zip(candidates, nearest, strict=True)}
    np.testing.assert_allclose([each["gain"] for each in drawn], np.sort(nearest)[::-1][:5], atol=1e-3)
    np.testing.assert_allclose([each["gain"] for each in drawn], [by_id[each["given_id"]] for each in drawn], atol=1e-3)
    assert "nothing new to encode" in winnow("run", "-c", project).err


def test_plan__tries_it_before_the_first_run(project: Path, winnow: Winnow) -> None:
    planned = winnow("plan", "-c", project)
    assert planned.code == 0, planned.err
    assert "rows/s, tried on 24 rows just now)" in planned.out
    assert "x 256 vectors of words" in planned.out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dims: 256", "dims: 0", "winnow.yaml:7: encoders.words.dims: dims must be an integer >= 1, got 0"),
        ("dims: 256", "ngram: 3", "winnow.yaml:7: encoders.words.ngram: ngram must be at most 2, got 3"),
        ("dims: 256", "model: x", "winnow.yaml:7: encoders.words.model: unknown key; allowed: ngram, buckets"),
        (
            "turns: prompt",
            "weighting: idf",
            "winnow.yaml:8: encoders.words.weighting: must be one of sublinear, counts",
        ),
    ],
)
def test_check__mistakes_are_located(project: Path, winnow: Winnow, old: str, new: str, message: str) -> None:
    change(project, old, new)
    ended = winnow("run", "-c", project)
    assert ended.code == 2
    assert message in ended.err, ended.err
