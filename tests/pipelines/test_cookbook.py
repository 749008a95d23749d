"""Every query of docs/cookbook.md gives rows on a project that has some of everything."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.cli.labels import push_batch
from pipelines.compare.compare import compare
from pipelines.compare.record import record_comparison
from pipelines.errors import RecipesFailed
from pipelines.run import run_and_report
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, make_light, opened, write_vectors

# Two nights and two rounds of labels take some seconds.
pytestmark = pytest.mark.slow

TARGETS = range(100, 108)
PAGE = Path(__file__).parents[2] / "docs" / "cookbook.md"

CONFIG = """\
store: ./store
pool:
  files: data/*.jsonl
  max_bad_fraction: 0.2
  vectors: vectors/pool.npy
targets:
  foxes: {files: targets/foxes.jsonl, vectors: vectors/foxes.npy, measure: 0.5}
decontamination: {}
classifiers:
  quality: {features: ngrams, classes: {good: {targets: foxes}, other: {sample: 20}}, held_out: 0.5}
recipes:
  mine: {steps: [rds_plus], budget: 12}
  other: {steps: [random], budget: 12, where: "reward IS NULL OR reward < 0.95"}
  varied: {steps: [{semdedup: {eps: 0.2, n_clusters: 2}}, random], budget: 12}
  even: {steps: [random], budget: 12, quota: {by: source, caps: 0.25}}
  calm: {steps: [k_center], budget: 12, mode: sticky, max_churn: 0.2, noise_floor: true}
  good: {steps: [{class_probability: {of: good}}], budget: 12, probabilities: quality}
labeling:
  topics:
    classes: [fox, dog, other]
    steps: [entropy]
    batch_size: 16
    random_share: 0.25
    overlap: 0.25
    gold: gold.jsonl
    gold_share: 0.1
    labels: labels/*.jsonl
    budget: {money: 100, per_row: 0.5}
schedule: {cron: "30 3 * * *", timezone: Europe/Vienna}
"""


def with_fields(number: int, subject: str) -> dict[str, Any]:
    """A row as users have them: with a year, a license, a language and a conversation that it is of."""
    return row(number, subject) | {
        "year": 2000 + number % 5,
        "license": ("cc-by", "mit")[number % 2],
        "language": ("en", "de", "fr")[number % 3],
        "conversation_id": f"{subject}-{number // 2}",
        "n_tokens": 10 + number,
        "reward": number / 10 + SUBJECTS.index(subject) / 80,
    }


def make_project(folder: Path) -> Path:
    """Rows of eight subjects in two files; one row holds a target, some repeat others, and one cannot be read."""
    project = make_light(folder)
    (project / "winnow.yaml").write_text(CONFIG)
    first = [with_fields(n, subject) for subject in SUBJECTS[:4] for n in range(10)]
    write_rows(project / "targets" / "foxes.jsonl", [row(n, "fox") for n in TARGETS])
    write_vectors(project / "vectors" / "foxes.npy", [f"fox-{n}" for n in TARGETS])
    target = row(TARGETS[0], "fox")["prompt"]
    first[0]["prompt"] = f"One more. {target} Thank you."
    first[1] |= {"embedding": [0.5] * 40}  # too long a list to keep: a notice
    second = [with_fields(n, subject) for subject in SUBJECTS[4:] for n in range(10)]
    repeats = [record | {"id": f"copy-{n}", "source": "copies"} for n, record in enumerate(first[11:14])]
    write_rows(project / "data" / "a.jsonl", first)
    write_rows(project / "data" / "b.jsonl", second + repeats)
    with (project / "data" / "b.jsonl").open("a") as file:
        file.write('{"prompt": "half a row\n')
    write_rows(project / "gold.jsonl", [{"id": f"dog-{n}", "label": "dog"} for n in range(4)])
    return project


def next_night(project: Path) -> None:
    """A third file comes, the second loses rows, and a recipe has a condition that is wrong."""
    kept = (project / "data" / "b.jsonl").read_text().splitlines()
    (project / "data" / "b.jsonl").write_text("\n".join(kept[5:]) + "\n")
    write_rows(project / "data" / "c.jsonl", [with_fields(n, "fox") for n in range(10, 15)])
    change(project, "even: {steps", "even: {where: nosuch > 1, steps")


def answer(batch: Path, labels: Path) -> None:
    """Two annotators: Ann is right; Bob sometimes says something else, skips, and misspells a class."""
    rows = [json.loads(line) for line in batch.read_text().splitlines()]
    said = []
    for number, record in enumerate(rows):
        subject = record["prompt"].split()[1]
        truth = subject if subject in ("fox", "dog") else "other"
        about = {"id": record["id"], "round": record["round"], "cost": 0.5}
        said.append(about | {"label": truth, "annotator": "ann", "seconds": 3 + number})
        wrong = {0: {"label": "dog" if truth != "dog" else "fox"}, 1: {"skip": True}, 2: {"label": "wolf"}}
        said.append(about | {"label": truth, "annotator": "bob", "seconds": 9} | wrong.get(number, {}))
        if number == 1:
            del said[-1]["label"]
    labels.parent.mkdir(exist_ok=True)
    labels.write_text("".join(json.dumps(record) + "\n" for record in said))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after two nights and two labelled rounds."""
    project = make_project(tmp_path_factory.mktemp("cookbook") / "project")
    run_and_report(opened(project))
    for number in range(2):
        push_batch(opened(project), "topics", more=False)
        batch = project / "labeling" / "topics" / f"topics-{number:04}.jsonl"
        answer(batch, project / "labels" / f"{number}.jsonl")
    push_batch(opened(project), "topics", more=False)
    next_night(project)
    with pytest.raises(RecipesFailed):
        run_and_report(opened(project))
    tonight = opened(project)
    record_comparison(tonight.store, compare(tonight, ["mine", "other"], seeds=None))
    return project / "store" / "winnow.duckdb"


def queries() -> list[str]:
    """The SQL of the page, in order."""
    return re.findall(r"^```sql\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("query", queries())
def test_cookbook__every_query_gives_rows(query: str, catalog: Path) -> None:
    with duckdb.connect(catalog, read_only=True) as connection:
        for statement in connection.extract_statements(query):
            rows = connection.execute(statement).fetchall()
            assert rows or statement.type == duckdb.StatementType.SET
