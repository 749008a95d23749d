"""Commands that make a system call fail in, or are killed at one: each on a project, after what was done before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import row, write_rows
from tests.pipelines import trials_project
from tests.pipelines.conftest import change, make_light

LABELING = "labeling:\n  kinds: {classes: [fox, other], steps: [entropy], batch_size: 10, labels: 'labels/*.jsonl'}\n"

WITH_MODELS = """\
store: ./store
pool: {files: data/*.jsonl}
encoders:
  tiny: {model: ./model, max_tokens: 32}
models:
  small: {model: ./small, max_tokens: 64}
targets: {foxes: targets/foxes.jsonl}
index: {kind: ivf, min_recall: 0}
classifiers:
  good: {features: ngrams, classes: {fit: {targets: foxes}, other: {sample: 9}}}
recipes:
  near: {steps: [rds_plus], budget: 4}
  hard: {steps: [perplexity], budget: 4}
  unsure: {steps: [entropy], probabilities: good, budget: 4}
"""


def make_project(folder: Path) -> Path:
    """Vectors and columns of the user's own, an export, a labeling project: all that needs no model."""
    project = make_light(folder)
    change(project, "  files: data", "  columns: scores.parquet\n  files: data")
    change(project, "  any:", "  few: {steps: [{near_duplicates: {threshold: 0.5}}, random], budget: 5}\n  any:")
    ids = [f"{subject}-{n}" for subject in ("fox", "dog") for n in range(10)]
    pq.write_table(pa.table({"id": ids, "score": range(20)}), project / "scores.parquet")
    text = (project / "winnow.yaml").read_text()
    (project / "winnow.yaml").write_text(
        text + "exports:\n  train: {recipe: near, to: parquet, out: train}\n" + LABELING
    )
    return project


def make_with_models(folder: Path) -> Path:
    """An encoder, token scores, a classifier and an index."""
    from tests.tiny_models import tiny_bert, tiny_llama

    folder.mkdir(parents=True)
    tiny_bert(folder / "model")
    tiny_llama(folder / "small")
    write_rows(folder / "data" / "a.jsonl", [row(n, subject) for subject in ("fox", "add") for n in range(12)])
    write_rows(folder / "targets" / "foxes.jsonl", [row(n, "fox") for n in (100, 101)])
    (folder / "winnow.yaml").write_text(WITH_MODELS)
    return folder


def next_night(project: Path) -> None:
    """Rows come and go, and a recipe is drawn with another seed."""
    number = len(list((project / "data").iterdir()))
    path = project / "data" / "a.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    write_rows(project / "data" / f"night-{number}.jsonl", [row(10 + number, "fox")])


def label(project: Path) -> None:
    """Answer every row that there may be."""
    (project / "labels").mkdir()
    names = [(f"{subject}-{n}", subject) for subject in ("fox", "dog", "add", "return") for n in range(10)]
    answers = [{"id": name, "label": "fox" if subject == "fox" else "other"} for name, subject in names]
    (project / "labels" / "1.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))


@dataclass(frozen=True)
class Scenario:
    """A command on a project.

    Attributes:
        make: makes the project in a folder that is not there yet.
        before: commands that ran, and what was done to the project, before it.
        command: its arguments; {project} stands for the project's folder.
        again: its exit codes when it is run again; one that did all before it was killed may have nothing to do.
    """

    make: Callable[[Path], Path]
    before: tuple[tuple[str, ...] | Callable[[Path], None], ...]
    command: tuple[str, ...]
    again: tuple[int, ...] = (0,)

    def arguments(self, project: Path) -> list[str]:
        """The command for a project."""
        return [argument.format(project=project) for argument in self.command]


RUN = ("run",)
SCENARIOS = {
    "run": Scenario(make_project, (), RUN),
    "push": Scenario(make_project, (RUN,), ("labels", "push", "kinds")),
    "pull": Scenario(make_project, (RUN, ("labels", "push", "kinds"), label), ("labels", "pull")),
    "export": Scenario(make_project, (RUN,), ("export", "any", "--to", "prompt-completion", "--out", "{project}/out")),
    "night": Scenario(make_project, (RUN, next_night), RUN),
    "gc": Scenario(make_project, (RUN, next_night, RUN, next_night, RUN), ("gc", "--delete", "--keep-nights", "0")),
    "forget": Scenario(make_project, (RUN,), ("forget", "fox-3", "--yes"), again=(0, 2)),
    "models": Scenario(make_with_models, (), RUN),
    "trial": Scenario(trials_project.make_project, (RUN,), ("trial", "chosen", "--tokens", "2000")),
}
MODELS = ("models", "trial")
"""Those that load torch."""
