"""Conditions that need more than they may have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from storage.errors import BadInput
from storage.pool import evaluation
from storage.pool.evaluation import ConditionFailed, matching_examples
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import Snapshot, take_snapshot
from storage.store import Store
from tests.quick import quick_first

ROWS = pa.table({"id": [b"%016d" % i for i in range(5000)], "prompt": [f"text {i}" for i in range(5000)]})
VIEW = "CREATE VIEW examples AS FROM rows"


def evaluate(condition: str) -> int:
    return matching_examples([], {"rows": ROWS}, VIEW, condition, rows=len(ROWS)).num_rows


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 GiB and four seconds."""
    monkeypatch.setattr(evaluation, "memory_bytes", lambda: 2 * 2**30)
    monkeypatch.setattr(evaluation, "LEAST_S", 4.0)


BOMBS = [
    "length(repeat('x', 3000000000)) > 0",
    "length(repeat(prompt, 300000000)) > 0",
    "len(range(1000000000)) > 0",
    "length(lpad(prompt, 2000000000, 'x')) > 0",
    "(SELECT count(*) FROM range(100000000000)) > 0",
    "(WITH RECURSIVE r AS (SELECT 1 a UNION ALL SELECT a + 1 FROM r) SELECT max(a) FROM r) > 0",
    "list_sum(list_transform(range(10000000), lambda x: x + length(prompt))) > 0",
    "(SELECT count(*) FROM examples a, examples b, examples c WHERE a.prompt > b.prompt || c.prompt) > 0",
]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("condition", quick_first(1, BOMBS))
@pytest.mark.slow
def test_matching_examples__a_bomb_ends_within_its_limits(condition: str):
    started = time.monotonic()
    with pytest.raises(ConditionFailed, match=r"it takes more than (4|1\.0) |Out of Memory|out of memory"):
        evaluate(condition)
    assert time.monotonic() - started < 20


@pytest.mark.usefixtures("small")
def test_matching_examples__what_stays_within_its_limits_passes():
    assert evaluate("length(repeat(prompt, 1000)) > 8000") == 4000
    assert evaluate("prompt = 'text 7' or prompt like '%99'") == 51


@pytest.mark.slow
def test_where__a_bomb_is_named_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "memory_bytes", lambda: 2**29)
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a"}\n{"text": "b"}\n')
    store = Store(tmp_path / "store")
    snapshot: Snapshot = take_snapshot(store, [ingest_file(store, FileSpec(str(file)))])
    with pytest.raises(BadInput) as error:
        snapshot.where("length(repeat('x', 3000000000)) > 0")
    assert str(error.value).startswith(
        "where: \"length(repeat('x', 3000000000)) > 0\" failed: it takes more than 0.2 GiB of memory"
    )
    assert snapshot.where("prompt = 'a'").sum() == 1


def test_matching_examples__nothing_of_the_working_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("duckdb", "json", "pyarrow", "storage", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert evaluate("true") == 5000
    assert not (tmp_path / "executed").exists()


def test_matching_examples__a_process_that_is_killed_is_said(monkeypatch: pytest.MonkeyPatch):
    def kill(pid: int) -> int:
        os.kill(pid, 9)
        return 0

    monkeypatch.setattr(evaluation, "resident_bytes", kill)
    with pytest.raises(ConditionFailed, match="ended by signal 9"):
        evaluate("(SELECT count(*) FROM range(100000000000)) > 0")


def test_matching_examples__no_process_is_left(monkeypatch: pytest.MonkeyPatch):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remembered(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))  # type: ignore[call-overload]
        return started[-1]

    def interrupted(pid: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.subprocess, "Popen", remembered)
    monkeypatch.setattr(evaluation, "resident_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate("(SELECT count(*) FROM range(100000000000)) > 0")
    assert [process.returncode for process in started] == [-9]


@pytest.mark.slow
def test_matching_examples__ends_by_itself_where_nobody_watches(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "LEAST_S", 0)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr(evaluation, "_watch", lambda process, *_: process.wait(60))
    with pytest.raises(ConditionFailed, match="ended by signal"):
        evaluate("(SELECT count(*) FROM range(100000000000)) > 0")
