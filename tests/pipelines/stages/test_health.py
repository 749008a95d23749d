"""The health of vectors: measured once for a sample, kept, in SQL, and in the checks of its stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.config.schema import Health
from pipelines.errors import HeldBack
from pipelines.recipes.health import Sample, measure, planted_copy
from pipelines.report.gather import gather
from pipelines.run import measure_health
from pipelines.runs import last_run
from pipelines.stages import health as stage_module
from pipelines.stages.embed import embed
from pipelines.stages.health import health
from pipelines.stages.ingest import ingest
from pipelines.stages.publish import publish
from storage.catalog.query import query_catalog
from storage.store import Store
from tests.conftest import SUBJECTS, row, write_rows
from tests.pipelines.conftest import change, opened

N, D = 1200, 12
OWN = """\
store: ./store
pool: {files: data/*.jsonl, vectors: vectors/pool.npy}
recipes: {any: {steps: [random], budget: 8}}
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,200 rows with vectors of their own, measured once. Those of source `same`, a third of the pool, lie together."""
    folder = tmp_path_factory.mktemp("health") / "project"
    sources = ["same", "one", "two"]
    rows = [
        {"id": f"r{n}", "source": sources[n % 3], "lang": "xx", "prompt": f"what is {n}", "response": str(n)}
        for n in range(N)
    ]
    write_rows(folder / "data" / "a.jsonl", rows)
    vectors = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    vectors[::3] = np.eye(D)[0] + vectors[::3] * 0.001
    (folder / "vectors").mkdir()
    np.save(folder / "vectors" / "pool.npy", vectors)
    (folder / "vectors" / "pool.ids.txt").write_text("".join(f"r{n}\n" for n in range(N)))
    (folder / "winnow.yaml").write_text(OWN)
    context = opened(folder)
    ingest(context)
    embed(context, "vectors")
    health(context, "vectors")
    publish(context)
    return folder


def test_health__what_was_measured_is_in_sql(measured: Path) -> None:
    store = Store(measured / "store")
    (found,) = query_catalog(store, "FROM representation_health").to_pylist()
    assert (found["rows"], found["pool_rows"], found["dimension"], found["number"]) == (N, N, D, 1)
    assert found["plant_recall"] is None
    assert json.loads(found["reasons"]) == {
        "plant_recall": "imported vectors have no encoder that a copy could be encoded with"
    }
    assert found["near_copies"] == found["near_copies_of_other_texts"] == pytest.approx(1 / 3, abs=1e-3)
    groups = query_catalog(store, "FROM representation_groups ORDER BY group_by DESC, share DESC").to_pylist()
    assert [(each["group_by"], each["rows"]) for each in groups] == [("source", N // 3)] * 3 + [("lang", N)]
    assert groups[0]["group"] == "same"
    assert groups[0]["share"] == found["largest_group_in_cell"]
    assert groups[0]["share_of_sample"] < groups[0]["share"]
    assert groups[-1]["share"] == groups[-1]["share_of_sample"] == found["largest_cell"]


def test_health__bounds_warn_and_name_what_is_wrong(measured: Path) -> None:
    outcome = health(opened(measured), "vectors")
    assert outcome.status == "ok"
    failed = {check.name: check.detail for check in outcome.checks if not check.passed}
    assert "few_near_copies" in failed
    assert "at most 0.1 (`health.max_near_copies`)" in failed["few_near_copies"]
    assert "warning: near-copies among other texts: 0.33" in outcome.summary
    (unmeasured,) = [check for check in outcome.checks if check.name == "plants_are_found"]
    assert unmeasured.passed
    assert unmeasured.detail.startswith("not measured: imported vectors")


def test_health__the_same_sample_is_not_measured_again(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = opened(measured)
    before = context.store.committed("records", "health_measurements")
    monkeypatch.setattr(stage_module, "measure", lambda *_: pytest.fail("measured again"))
    health(context, "vectors")
    assert context.store.committed("records", "health_measurements") == before


def test_health__the_report_has_the_record(measured: Path) -> None:
    document, _ = gather(opened(measured))
    (part,) = document["health"]
    assert part["encoder"] == "vectors"
    assert part["groups"][0]["group"] == "same"
    assert {line["check"]: line["passed"] for line in part["measures"]}["few_near_copies"] is False


def test_sample__is_drawn_by_hash_of_ids(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.recipes.health.SAMPLE_ROWS", 100)
    view = opened(measured).pool
    rows = Sample.of(view, view.fingerprint("vectors")).rows
    assert len(rows) == 100
    assert (np.diff(rows) > 0).all()
    assert (rows == Sample.of(opened(measured).pool, view.fingerprint("vectors")).rows).all()


def test_planted_copy__has_other_lines_case_and_surroundings() -> None:
    turns = [("user", "What is the Capital of France, and why is it so large a city?"), ("assistant", "Paris.")]
    copy = planted_copy(turns, np.random.default_rng(0))
    assert copy == planted_copy(turns, np.random.default_rng(0))
    assert [role for role, _ in copy] == ["user", "assistant"]
    asked = " ".join(copy[0][1].split("\n\n", 1)[1].split())
    assert asked != turns[0][1]
    assert asked.casefold() == turns[0][1].casefold()
    assert copy[1][1].casefold().startswith("paris.\n\n")


def test_health__a_small_pool_is_not_measured_and_says_so(light: Path) -> None:
    context = opened(light)
    ingest(context)
    embed(context, "vectors")
    outcome = health(context, "vectors")
    assert outcome.summary == "not measured, too few rows: 80 of 200"
    assert {(check.passed, check.detail) for check in outcome.checks} == {
        (True, "not measured: too few rows: 80 of 200")
    }
    publish(context)
    sql = "SELECT rows, dimension, mean_cosine, reasons->>'all' AS reason FROM representation_health"
    assert query_catalog(context.store, sql).to_pylist() == [
        {"rows": 80, "dimension": 16, "mean_cosine": None, "reason": "too few rows: 80 of 200"}
    ]


def test_measure__near_copies_are_compared_by_the_turns_that_the_encoder_reads(measured: Path) -> None:
    view = opened(measured).pool
    sample = Sample.of(view, view.fingerprint("vectors"))
    same = [[("user", "what"), ("assistant", str(n))] for n in range(N)]
    sample.__dict__["turns"] = same
    other = {part: measure(sample, 0, None, part).measures["near_copies_of_other_texts"] for part in ("all", "prompt")}
    assert other == {"all": pytest.approx(1 / 3, abs=1e-3), "prompt": 0}


@pytest.fixture
def encoded(project: Path) -> Path:
    """A project of 480 rows with a tiny model, embedded."""
    write_rows(project / "data" / "c.jsonl", [row(n, s) for s in SUBJECTS for n in range(15, 60)])
    context = opened(project)
    ingest(context)
    embed(context, "tiny")
    return project


def test_health__planted_copies_are_encoded_and_looked_for(encoded: Path) -> None:
    said: list[str] = []
    measure_health(opened(encoded, said), "tiny")
    facts = last_run(Store(encoded / "store"), "health", "tiny")["facts"]
    assert facts["plants"] == 24
    assert 0 <= facts["plant_recall"] <= 1
    assert any("planted copies are nearest to their row" in line for line in said)


def test_measure_health__what_cannot_be_measured_is_said_and_stops_nothing(encoded: Path) -> None:
    said: list[str] = []
    change(encoded, "schedule:", "health: {plants: 21}\nschedule:")
    context = opened(encoded, said)
    (encoded / "model").unlink()
    measure_health(context, "tiny")
    assert said[-1].startswith("warning: the health of tiny could not be measured: encoder: model ")


def test_health__blocking_holds_the_run_back(encoded: Path) -> None:
    change(encoded, "schedule:", "health: {blocking: true, plants: 0, max_mean_cosine: -1}\nschedule:")
    with pytest.raises(HeldBack, match=r"tiny/health is held back.*mean cosine of two rows"):
        measure_health(opened(encoded), "tiny")


def test_settings__defaults_leave_the_digest_as_it_was(project: Path) -> None:
    before = opened(project).config
    change(project, "schedule:", "health: {min_plant_recall: 0.5}\nschedule:")
    assert opened(project).config.digest == before.digest
    assert before.health == Health()
    change(project, "min_plant_recall: 0.5", "min_plant_recall: 0.6")
    assert opened(project).config.digest != before.digest
