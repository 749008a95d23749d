"""A small project with a tiny model made on the spot."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_models import tiny_bert

SUBJECTS = ("fox", "dog", "add", "return", "answer", "question", "text", "system")

CONFIG = """\
store: ./store
pool:
  files: data/*.jsonl
encoders:
  tiny: {model: ./model, max_tokens: 32}
targets:
  foxes: targets/foxes.jsonl
recipes:
  near: {steps: [rds_plus], budget: 10}
  any: {steps: [random], budget: 10}
  even: {steps: [{stratified: {by: source, alloc: equal}}], budget: 10}
schedule: {cron: "0 2 * * *", timezone: UTC}
"""


def row(number: int, subject: str) -> dict[str, str]:
    return {
        "id": f"{subject}-{number}",
        "source": subject,
        "prompt": f"the {subject} jumps over {number} lazy {subject} {number % 7}",
        "response": f"{subject} {number}",
    }


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in rows), "utf-8")


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """No test cuts the power: what a killed process has written is there without it, and the disk costs minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def project(tmp_path: Path, model: Path) -> Path:
    """120 rows in two files, one target set, three recipes."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model").symlink_to(model)
    (folder / "winnow.yaml").write_text(CONFIG, "utf-8")
    write_rows(folder / "data" / "a.jsonl", [row(n, s) for s in SUBJECTS[:4] for n in range(15)])
    write_rows(folder / "data" / "b.jsonl", [row(n, s) for s in SUBJECTS[4:] for n in range(15)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101, 3)])
    return folder
