"""A project whose pool has a subject that a target asks for, and models of a few weights."""

from __future__ import annotations

import random
from pathlib import Path

from tests.conftest import write_rows

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
targets:
  sums: {files: sums.jsonl, measure: 0.8}
recipes:
  chosen: {steps: [{column: {field: sums}}], budget: 40}
  any: {steps: [random], budget: 40}
trials: {size: tiny, seeds: 3, tokens: 2500, held_out: 20}
"""
SUBJECTS = {
    "sums": "add two numbers then divide by three and multiply with seven to get the sum of squares minus its root",
    "foxes": "quick brown foxes jump over lazy dogs in dark forests at night while birds sing and rivers flow on",
    "meals": "boil pasta in salted water until tender then mix with olive oil garlic pepper tomato basil cheese",
}


def example(number: int, subject: str) -> dict[str, str | int]:
    rng, words = random.Random(f"{subject} {number}"), SUBJECTS[subject].split()
    texts = {"prompt": " ".join(rng.choices(words, k=6)), "response": " ".join(rng.choices(words, k=18))}
    return {"id": f"{subject}-{number}", "source": subject, "sums": int(subject == "sums"), **texts}


def make_project(folder: Path) -> Path:
    folder.mkdir()
    (folder / "winnow.yaml").write_text(CONFIG)
    write_rows(folder / "data" / "a.jsonl", [example(n, subject) for subject in SUBJECTS for n in range(90)])
    write_rows(folder / "sums.jsonl", [example(n, "sums") for n in range(1000, 1030)])
    return folder
