"""Files that cannot be read: the run stops, or they are set aside."""

from __future__ import annotations

import gzip
import json
import multiprocessing
from pathlib import Path

import pytest

from pipelines.engine import local
from pipelines.report.gather import gather
from pipelines.run import run_all
from pipelines.stages.ingest import ingest
from storage.errors import BadInput
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change, opened


def half_uploaded(project: Path) -> bytes:
    """Cut a third file of the pool in half; gives all of it."""
    rows = "".join(json.dumps(row(n, "fox")) + "\n" for n in range(10, 15))
    whole = gzip.compress(rows.encode())
    (project / "data" / "c.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    change(project, "files: data/*.jsonl\n", "files: [data/*.jsonl, data/*.gz]\n")
    return whole


def test_ingest__a_damaged_file_stops_the_run_by_default(light: Path) -> None:
    half_uploaded(light)
    with pytest.raises(BadInput, match=r"c\.jsonl\.gz"):
        ingest(opened(light))


def test_run__a_file_set_aside_is_named_and_read_the_night_after(winnow: Winnow, light: Path) -> None:
    whole = half_uploaded(light)
    change(light, "pool:\n", "pool:\n  bad_files: set_aside\n")
    said: list[str] = []
    run_all(opened(light, said))
    assert sum(line.startswith("warning: data/c.jsonl.gz is set aside: ") for line in said) == 1
    assert any(line.endswith("2 of 3 files new, 1 file set aside") for line in said)
    document, _ = gather(opened(light))
    line = document["verdict"]["line"]
    assert line.startswith("Published: 2 recipes, 18 rows. Warning: ingest: ")
    assert "c.jsonl.gz" in line
    assert document["verdict"]["state"] == "published"
    failures = winnow("failures", "-c", light).out.splitlines()
    assert failures[0].endswith("ingest  warned")
    assert "no_file_set_aside: " in failures[1]
    assert "c.jsonl.gz" in failures[1]

    (light / "data" / "c.jsonl.gz").write_bytes(whole)
    outcome = ingest(opened(light))
    assert outcome.metrics["kept"] == 85
    assert all(check.passed for check in outcome.checks)
    assert "warned; it succeeded since, on " in winnow("failures", "-c", light).out


def test_ingest__too_many_bad_rows_and_nothing_else_to_read(light: Path) -> None:
    change(light, "pool:\n", "pool:\n  bad_files: set_aside\n")
    with (light / "data" / "a.jsonl").open("a") as file:
        file.write("{broken\n" * 3)
    outcome = ingest(opened(light))
    (check,) = [check for check in outcome.checks if not check.passed]
    assert (check.name, check.blocking) == ("no_file_set_aside", False)
    assert check.detail == f"{light}/data/a.jsonl: 3 of 43 rows"
    assert outcome.metrics["kept"] == 40
    (light / "data" / "b.jsonl").unlink()
    with pytest.raises(BadInput, match=r"more than 1\.00% rows that cannot be read"):
        ingest(opened(light))
    write_rows(light / "data" / "a.jsonl", [row(n, "dog") for n in range(10)])
    assert ingest(opened(light)).metrics["kept"] == 10


def test_ingest__gives_the_same_pool_from_any_number_of_processes(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "WORTH_BYTES", 0)
    write_rows(light / "data" / "e.jsonl", [row(n, "hen") for n in range(70, 90)])
    subjects = set()
    for workers in (1, 2):
        change(light, "store: ./store\n", f"store: ./store{workers}\nengine: {{workers: {workers}}}\n")
        outcome = ingest(opened(light))
        subjects.add((outcome.subject, json.dumps(dict(outcome.metrics), sort_keys=True)))
        assert (light / f"store{workers}" / "pool").is_dir()
        change(light, f"store: ./store{workers}\nengine: {{workers: {workers}}}\n", "store: ./store\n")
    assert len(subjects) == 1


def test_ingest__a_file_that_cannot_be_read_ends_all_processes(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "WORTH_BYTES", 0)
    half_uploaded(light)
    change(light, "pool:\n", "engine: {workers: 2}\npool:\n")
    with pytest.raises(BadInput, match=r"c\.jsonl\.gz"):
        ingest(opened(light))
    assert multiprocessing.active_children() == []
