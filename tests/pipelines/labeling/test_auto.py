"""A labeling project with `steps: auto`: what its rounds are drawn by, what they say of it, and that they reproduce."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import Context, open_context
from pipelines.progress import Log
from pipelines.reproduce import reproduce
from pipelines.stages.embed import embed
from pipelines.stages.fit import fit
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from pipelines.stages.pull import pull
from pipelines.stages.push import push
from pipelines.stages.stage import Outcome
from pipelines.why import why
from storage.catalog.query import query_catalog
from storage.ids import from_arrow
from storage.labels.rounds import read_round_items, read_rounds
from storage.records import read_selection
from tests.conftest import SUBJECTS


def opened(project: Path) -> Context:
    return open_context(project, Log(lambda _: None))


@pytest.fixture
def project(light: Path) -> Path:
    """Ingested and with vectors; 80 rows, 10 of them foxes."""
    text = (light / "winnow.yaml").read_text().partition("labeling:")[0]
    options = "classes: [fox, other], batch_size: 20, random_share: 0.1, lease_hours: 1.0e-7, labels: 'labels/*.jsonl'"
    (light / "winnow.yaml").write_text(f"{text}labeling:\n  kinds: {{{options}}}\n")
    (light / "labels").mkdir()
    ingest(opened(light))
    embed(opened(light), "vectors")
    return light


def loop(project: Path) -> Outcome:
    """Labels in, model, batch out."""
    pull(opened(project), "kinds")
    fit(opened(project), "kinds")
    return push(opened(project), "kinds")


def answer(project: Path, names: list[str], file: str) -> None:
    lines = [{"id": name, "label": "fox" if name.startswith("fox") else "other", "annotator": "ann"} for name in names]
    (project / "labels" / file).write_text("".join(json.dumps(line) + "\n" for line in lines))


def named(*subjects: str) -> list[str]:
    return [f"{subject}-{number}" for subject in subjects for number in range(10)]


def newest(project: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The header of the newest round, and its rows, each with its own id as `name`."""
    context = opened(project)
    header = read_rounds(context.store, "kinds")[-1]
    table = read_round_items(context.store, header["round_id"])
    names = map(str, context.pool.snapshot.given_ids(from_arrow(table["id"])))
    return header, [row | {"name": name} for row, name in zip(table.to_pylist(), names, strict=True)]


@pytest.mark.slow
def test_push__typical_then_random_then_uncertain_rows_and_those_of_a_rare_class(project: Path) -> None:
    first = loop(project)
    header, _ = newest(project)
    assert header["choice"] == {"phase": "typical", "rare": None, "reason": "fewer than two classes have a label"}
    assert header["steps"] == [{"random_subpool": {"rows": 50_000}}, "facility_location"]
    assert first.summary.endswith("; typical rows: fewer than two classes have a label")

    # Rows of the random arm would not train.
    sent = {row["name"] for row in newest(project)[1]}
    foxes, others = ([n for n in names if n not in sent] for names in (named("fox"), named(*SUBJECTS[1:])))
    answer(project, [*foxes[:2], *others[:20]], "given.jsonl")
    loop(project)
    header, rows = newest(project)
    assert (header["choice"]["phase"], header["steps"]) == ("random", ["random"])
    assert header["choice"]["reason"].startswith("fewer than 3 models were fitted; 2 of ")

    for file in ("more.jsonl", "most.jsonl"):
        answer(project, [row["name"] for row in rows if not row["name"].startswith("fox")][:4], file)
        third = loop(project)
        header, rows = newest(project)
    assert (header["choice"]["phase"], header["choice"]["rare"]) == ("uncertain", "fox")
    assert "; uncertain rows and likely rows of 'fox': the last 3 models agree by kappa" in third.summary
    arms = [row["arm"] for row in rows]
    assert (arms.count("rare"), arms.count("random"), arms.count("strategy")) == (5, 2, 13)
    assert third.metrics["rare_rows"] == 5
    assert len({row["id"] for row in rows}) == 20

    context = opened(project)
    for key in ("selection_id", "random_selection_id", "rare_selection_id"):
        assert "in the same order" in reproduce(context, header[key])
    likely = [row for row in rows if row["arm"] == "rare"]
    assert (
        read_selection(context.store, header["rare_selection_id"])[0]["arm"]["apart"] == header["random_selection_id"]
    )
    assert read_selection(context.store, header["selection_id"])[0]["arm"]["apart"] == header["rare_selection_id"]
    for row in likely:
        assert why(context, row["name"], header["selection_id"])[0].rule == "random_arm"
    steps = read_selection(context.store, header["rare_selection_id"])[0]["steps"]
    assert [name for step in steps for name in step] == ["class_probability", "keep_top", "facility_location"]


def test_rounds__say_in_sql_why_their_steps(project: Path) -> None:
    loop(project)
    publish(opened(project))
    rows = query_catalog(opened(project).store, "SELECT steps_because, rare_selection_id FROM rounds").to_pylist()
    assert rows == [{"steps_because": "fewer than two classes have a label", "rare_selection_id": None}]
