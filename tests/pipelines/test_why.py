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
from pipelines.why import Answer, why
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
