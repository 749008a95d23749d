"""`winnow why`: what it answers is what each rule says, asked of the raw rows one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.context import Context
from pipelines.run import run_all
from pipelines.why import why
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import Winnow, opened, write_vectors

NAMES = [f"{subject}-{number}" for subject in SUBJECTS for number in range(40)]
EVALUATION = "how many silver spoons does the old widow of the harbour master keep in her green cupboard today"
CONFIG = """\
store: ./store
pool:
  files: data/*.jsonl
  vectors: vectors/pool.npy
targets:
  foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy}
decontamination:
  files: {quiz: {files: evaluation/quiz.jsonl}}
recipes:
  caps:
    steps: [near_duplicates: {threshold: 0.9}, rds_max, top]
    budget: 40
    where: "source <> 'dog'"
    allow: allow.txt
    deny: deny.txt
    quota: {by: source, caps: 9}
    allow_short: true
  tokens:
    steps: [outliers: {drop: 0.1}, rds_max, keep_top: {times: 2}, top]
    budget: {tokens: 300, column: tokens}
    group_by: family
    max_per_group: 3
    allow_short: true
  grown: {steps: [rds_max, top], budget: 30, mode: top_up}
"""


@dataclass(frozen=True)
class Project:
    folder: Path
    context: Context
    rows: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("why")
    rows = {}
    for position, name in enumerate(NAMES):
        subject, number = name.split("-")
        rows[name] = {**row(int(number), subject), "tokens": 5 + position % 11, "family": f"f{position % 30}"}
    rows["add-7"]["prompt"] = EVALUATION
    rows["fox-5"]["prompt"] = row(100, "fox")["prompt"]
    (folder / "winnow.yaml").write_text(CONFIG)
    (folder / "allow.txt").write_text("\n".join(name for name in NAMES if not name.endswith("9")) + "\n")
    (folder / "deny.txt").write_text("\n".join(name for name in NAMES if name.endswith("8")) + "\n")
    write_rows(folder / "data" / "a.jsonl", list(rows.values()))
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    write_rows(folder / "evaluation" / "quiz.jsonl", [{"id": "q1", "prompt": EVALUATION, "response": "twelve"}])
    write_vectors(folder / "vectors" / "pool.npy", NAMES)
    write_vectors(folder / "vectors" / "foxes.npy", ["fox-100", "fox-101"])
    run_all(opened(folder))
    return Project(folder, opened(folder), rows)


def _rule_of_caps(name: str) -> str | None:
    """The first rule before the steps of `caps` that keeps a row out, literally."""
    if name.startswith("dog-"):
        return "outside_where"
    if name.endswith("9"):
        return "not_allowed"
    if name.endswith("8"):
        return "denied"
    return {"fox-5": "equal_to_a_target", "add-7": "contaminated"}.get(name)


@pytest.mark.slow  # each answer evaluates `where` in a process of its own
def test_why__rules_in_their_order(project: Project) -> None:
    after = {"chosen", "dropped", "quota", "beyond_budget"}
    sampled = np.random.default_rng(0).choice(NAMES, 16, replace=False).tolist()
    for name in [*sampled, "fox-5", "add-7"]:
        (answer,) = why(project.context, name, "caps")
        expected = _rule_of_caps(name)
        assert answer.rule == expected if expected else answer.rule in after, name


@pytest.mark.slow
def test_why__scores_and_ranks_are_those_of_cosines(project: Project) -> None:
    vectors = np.load(project.folder / "vectors" / "pool.npy").astype(float)
    targets = np.load(project.folder / "vectors" / "foxes.npy").astype(float)
    vectors, targets = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (vectors, targets))
    best = dict(zip(NAMES, (vectors @ targets.T).max(axis=1).tolist(), strict=True))
    drawable = sorted((best[name] for name in NAMES if name not in ("fox-5", "add-7")), reverse=True)
    for name in NAMES[::9]:
        (answer,) = why(project.context, name, "grown")
        if name == "fox-5":
            continue
        rank = 1 + sum(score > best[name] for score in drawable)
        assert answer.rule == ("chosen" if rank <= 30 else "beyond_budget"), name
        if rank > 30:
            assert answer.detail["score"] == pytest.approx(best[name], abs=2e-3)
            assert abs(answer.detail["score_rank"] - rank) <= 2  # stored vectors are rounded to float16
            assert answer.detail["score_of_last_taken"] == pytest.approx(drawable[29], abs=2e-3)


def test_why__of_the_whole_pool_is_what_the_record_says(ran: Path) -> None:
    context = opened(ran)
    for recipe, budget in (("near", 10), ("any", 8)):
        answers = [why(context, name, recipe)[0] for name in (f"{s}-{n}" for s in SUBJECTS for n in range(10))]
        ranks = sorted(answer.detail["rank"] for answer in answers if answer.rule == "chosen")
        assert ranks == list(range(1, budget + 1))
        assert {answer.rule for answer in answers} == {"chosen", "beyond_budget"}


def test_why__a_row_by_its_beginning_and_as_json(ran: Path, winnow: Winnow) -> None:
    (answer,) = why(opened(ran), "fox-3", "near")
    ended = winnow("why", answer.id[:10], "--recipe", "near", "--json", "--config", ran)
    assert ended.code == 0
    printed = json.loads(ended.out)
    assert (printed["id"], printed["rule"]) == (answer.id, answer.rule)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no-such-row"], "no row of the pool is called 'no-such-row'"), (["fox-3", "-r", "naer"], "neither a recipe")],
)
def test_why__a_mistake_is_said(ran: Path, winnow: Winnow, arguments: list[str], message: str) -> None:
    ended = winnow("why", *arguments, "--config", ran)
    assert ended.code == 2
    assert message in ended.err
