"""Token scores of a tiny model: from `models:` to columns of recipes and a view."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.reproduce import reproduce
from selection.encoders import ModelSpec, load_token_scorer
from selection.types import SCORES
from storage.catalog.query import query_catalog
from storage.records import read_selection
from storage.store import Store
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change, opened
from tests.tiny_models import tiny_llama

MODELS = """\
models:
  small: {model: ./small, max_tokens: 64}
  other: {model: ./other, max_tokens: 64}
recipes:
  hard: {steps: [perplexity], budget: 4}
  followed: {steps: [ifd], budget: 4, where: nll_alone IS NOT NULL}
  unsure: {steps: [{token_uncertainty: {field: nll_q90}}], budget: 4}
  apart: {steps: [{expression: "small_nll_mean - other_nll_mean"}], budget: 4}
  any: {steps: [random], budget: 4}
"""


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    tiny_llama(folder / "small")
    tiny_llama(folder / "other", seed=1)
    return folder


@pytest.fixture
def project(tmp_path: Path, causal: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("small", "other"):
        (folder / name).symlink_to(causal / name)
    rows = [row(n, s) for s in ("fox", "dog") for n in range(10)]
    rows[3]["response"] = ""
    write_rows(folder / "data" / "a.jsonl", rows)
    write_rows(folder / "targets" / "foxes.jsonl", [row(100, "fox")])
    (folder / "winnow.yaml").write_text(
        f"store: ./store\npool: {{files: data/*.jsonl}}\ntargets: {{foxes: targets/foxes.jsonl}}\n{MODELS}"
    )
    return folder


def ask(project: Path, query: str) -> list[dict[str, Any]]:
    return query_catalog(Store(project / "store"), query).to_pylist()


def test_run__scores_what_recipes_read_and_only_new_rows(project: Path, winnow: Winnow) -> None:
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert re.search(r"small/token_scores: 21 texts scored in .* s, 21 scored in all", ran.err)
    assert "small: max_tokens" not in ran.err
    scored = ask(project, "SELECT * FROM token_scores JOIN examples USING (id) ORDER BY given_id")
    assert len(scored) == 2 * 20  # the target is in the view as well, not in the pool
    literal = load_token_scorer(ModelSpec(model=str(project / "small"), max_tokens=64), "cpu")
    for record in scored:
        if record["model"].endswith("small"):
            answer = record["response"] or ""
            (values,) = literal.scores([[("user", record["prompt"]), ("assistant", answer)]]).values
            given = [np.nan if record[name] is None else record[name] for name in SCORES]
            np.testing.assert_allclose(given, values, rtol=1e-5)
            assert record["cause"] == ("the answer is empty" if record["empty_response"] else None)
    by_recipe = {
        record["recipe"]: record["ids"]
        for record in ask(
            project,
            "SELECT s.recipe, list(e.given_id ORDER BY e.rank) AS ids FROM latest_selections s "
            "JOIN selected_examples e USING (selection_id) GROUP BY s.recipe",
        )
    }
    ordered = {
        "hard": "nll_sum / n_tok DESC",
        "followed": "CASE WHEN nll_answer < nll_alone THEN nll_answer / nll_alone END DESC NULLS LAST",
        "unsure": "nll_q90 DESC",
    }
    for recipe, order in ordered.items():
        expected = ask(
            project,
            f"SELECT given_id FROM token_scores t JOIN examples e USING (id) WHERE t.model LIKE '%small' "
            f"ORDER BY {order}, e.id LIMIT 4",
        )
        assert by_recipe[recipe] == [record["given_id"] for record in expected]
    assert ask(project, "SELECT count(*) AS n FROM encoders") == [{"n": 0}]

    write_rows(project / "data" / "b.jsonl", [row(50, "cat")])
    again = winnow("run", "-c", project)
    assert re.search(r"small/token_scores: 1 texts scored in .* s, 22 scored in all", again.err)


@pytest.mark.slow
def test_run__a_classifier_learns_from_rows_chosen_by_token_scores(project: Path, winnow: Winnow) -> None:
    head = (project / "winnow.yaml").read_text().partition("models:")[0]
    (project / "winnow.yaml").write_text(
        head + "models: {small: {model: ./small, max_tokens: 64}}\n"
        "classifiers: {easy: {classes: {light: {where: nll_mean < 5.79}, hard: {where: NLL_MEAN >= 5.79}}, features: ngrams}}\n"
        "recipes: {best: {steps: [{class_probability: {of: light}}, top], budget: 3, probabilities: easy}}\n"
    )
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    chosen = "SELECT c.class, t.nll_mean < 5.79 AS easy, count(*) AS n FROM classifier_examples c JOIN token_scores t USING (id)"
    by_class = ask(project, f"{chosen} GROUP BY ALL ORDER BY ALL")
    assert [(record["class"], record["easy"]) for record in by_class] == [("hard", False), ("light", True)]


@pytest.mark.slow
def test_selection__depends_on_the_models_it_reads_and_is_reproduced(project: Path, winnow: Winnow) -> None:
    assert winnow("run", "-c", project).code == 0
    latest = {
        r["recipe"]: r["selection_id"] for r in ask(project, "SELECT recipe, selection_id FROM latest_selections")
    }
    headers = {name: read_selection(Store(project / "store"), id_)[0] for name, id_ in latest.items()}
    assert "scores" not in headers["any"]
    assert list(headers["hard"]["scores"]) == ["nll_sum", "n_tok"]
    assert set(headers["apart"]["scores"]) == {"small_nll_mean", "other_nll_mean"}
    assert len(set(headers["apart"]["scores"].values())) == 2
    for selection_id in latest.values():
        assert "the same" in reproduce(opened(project), selection_id)
    change(project, "small: {model: ./small, max_tokens: 64}", "small: {model: ./small, max_tokens: 63}")
    assert winnow("run", "-c", project).code == 0
    changed = {
        r["recipe"]: r["selection_id"] for r in ask(project, "SELECT recipe, selection_id FROM latest_selections")
    }
    assert {name for name in latest if changed[name] != latest[name]} == {"hard", "followed", "unsure", "apart"}


@pytest.mark.slow
def test_run__only_the_models_that_are_read(project: Path, winnow: Winnow) -> None:
    assert "token_scores" not in winnow("run", "-c", project, "any").err
    ran = winnow("run", "-c", project, "hard")
    assert "small/token_scores: 21 texts" in ran.err
    assert "other/token_scores" not in ran.err
    plan = winnow("plan", "-c", project)
    assert "small/token_scores: 0 rows to score, 20 in the store" in plan.out
    assert "other/token_scores: 20 rows to score, 0 in the store" in plan.out


@pytest.mark.slow
def test_run__a_column_of_the_pool_counts_before_a_models(project: Path, winnow: Winnow) -> None:
    file = project / "data" / "a.jsonl"
    rows = [json.loads(line) | {"nll_mean": n} for n, line in enumerate(file.read_text().splitlines())]
    write_rows(file, rows)
    change(project, "field: nll_q90", "field: nll_mean")
    ran = winnow("run", "-c", project)
    assert ran.code == 0, ran.err
    assert "small: the pool has a column nll_mean of its own, which counts; the model's is small_nll_mean" in ran.err
    picked = ask(
        project,
        "SELECT e.nll_mean AS own FROM latest_selections JOIN selected_examples e USING (selection_id) "
        "WHERE recipe = 'unsure' ORDER BY rank",
    )
    assert [record["own"] for record in picked] == [19, 18, 17, 16]


@pytest.mark.slow
def test_run__a_row_without_numbers_is_named(project: Path, winnow: Winnow) -> None:
    change(project, ", where: nll_alone IS NOT NULL", "")
    ran = winnow("run", "-c", project)
    assert ran.code == 3
    assert "column 'nll_answer'" in ran.err


def test_run__without_models_says_where_the_columns_come_from(project: Path, winnow: Winnow) -> None:
    config = project / "winnow.yaml"
    lines = [line for line in config.read_text().splitlines() if "max_tokens" not in line and line != "models:"]
    config.write_text("\n".join(lines) + "\n")
    ran = winnow("run", "-c", project, "hard")
    assert ran.code == 3
    assert "no column 'n_tok'" in ran.err
    assert "`models:`" in ran.err


def test_run__a_model_that_is_not_there(project: Path, winnow: Winnow) -> None:
    change(project, "model: ./other", "model: ./nowhere")
    ran = winnow("run", "-c", project)
    assert ran.code == 2
    assert "winnow.yaml:" in ran.err
    assert "models.other.model: model" in ran.err
    change(project, "model: ./nowhere, max_tokens: 64", "model: ./other, max_token: 64")
    assert "models.other.max_token: unknown key (did you mean `max_tokens`?)" in winnow("run", "-c", project).err
