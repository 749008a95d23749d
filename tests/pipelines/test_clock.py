"""What comes last is what was done last, also where a clock was ahead."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.run import run_all
from pipelines.runs import last_run, runs
from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import query_catalog
from storage.labels.log import counted, import_labels, read_log
from storage.labels.models import CONSENSUS_SCHEMA, PREDICTION_SCHEMA, commit_model
from storage.pool.snapshot import open_snapshot
from storage.records import commit_run, new_run_id
from storage.store import Store, read_json
from storage.vectors.index import records
from tests.conftest import row, write_rows
from tests.pipelines.conftest import Winnow, change, opened
from tests.quick import quick_first

MODULES = (
    "storage.store",
    "storage.records",
    "storage.pool.snapshot",
    "storage.vectors.index",
    "pipelines.stages.stage",
)


@contextmanager
def clock(ahead: timedelta) -> Iterator[None]:
    """The clock of this process is ahead."""
    time_ns = time.time_ns
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("storage.records._last_run_id", 0)  # as in a process of its own
        patched.setattr(time, "time_ns", lambda: time_ns() + int(ahead.total_seconds() * 1e9))
        for module in MODULES:
            patched.setattr(
                f"{module}.utc_now", lambda: (datetime.now(UTC) + ahead).isoformat(timespec="seconds"), raising=False
            )
        yield


@pytest.mark.parametrize("ahead", quick_first(1, [timedelta(days=3650), timedelta(minutes=2), timedelta(days=-3650)]))
@pytest.mark.slow
def test_a_run_with_a_wrong_clock__is_followed_by_the_next(light: Path, winnow: Winnow, ahead: timedelta) -> None:
    change(light, "{steps: [random], budget: 8}", "{steps: [random], budget: 8, mode: top_up}")
    with clock(ahead):
        run_all(opened(light))
    store = opened(light).store
    first = last_run(store, "select", "any")["subject"]
    write_rows(light / "data" / "a.jsonl", [row(n, "fox") for n in range(5)])
    change(light, "budget: 8", "budget: 9")
    run_all(opened(light))

    last = last_run(store, "select", "any")["subject"]
    assert last != first
    assert read_json(store.path("records", "selections", last, "selection.json"))["previous"] == first
    assert last_run(store, "ingest")["summary"].startswith("45 rows kept")
    for _ in range(2):  # as published, and from the records alone
        latest = "SELECT selection_id FROM latest_selections WHERE recipe = 'any'"
        assert query_catalog(store, latest).to_pylist() == [{"selection_id": last}]
        assert query_catalog(store, "SELECT kept FROM pools").to_pylist() == [{"kept": 45}]
        rebuild_catalog(store)
    compared = winnow("diff", "any", "--config", light).out.splitlines()
    assert [line.split()[1] for line in compared[:2]] == [first, last]
    commit_run(store, {"stage": "try", "target": None, "status": "ok"})
    assert next(runs(store))["stage"] == "try"


def test_an_index__the_newest_is_that_which_was_made_last(light: Path) -> None:
    change(light, "pool:", "index: {kind: ivf, min_recall: 0}\npool:")
    with clock(timedelta(days=400)):
        run_all(opened(light), ["near"])
    change(light, "kind: ivf", "kind: ivf, nprobe: 3")
    context = opened(light)
    run_all(context, ["near"])
    encoder = context.pool.fingerprint("vectors")
    assert [record.nprobe for record in records(context.store, encoder)][-1] == 3
    assert records(context.store, encoder)[-1].index == opened(light).pool.newest_index(encoder)


def test_snapshots_and_models__without_runs_the_last_made_is_the_latest(tmp_path: Path) -> None:
    from storage.pool.ingest import FileSpec, ingest_file
    from storage.pool.snapshot import take_snapshot

    store = Store(tmp_path / "store")
    ingests = []
    for number, ahead in enumerate((timedelta(days=900), timedelta(0))):
        write_rows(tmp_path / f"{number}.jsonl", [row(number, "fox")])
        with clock(ahead):
            ingests.append(ingest_file(store, FileSpec(str(tmp_path / f"{number}.jsonl"))).id)
            taken = take_snapshot(store, ingests)
            commit_model(
                store,
                {"model_id": f"m{1 - number}", "project": "p"},
                CONSENSUS_SCHEMA.empty_table(),
                PREDICTION_SCHEMA.empty_table(),
            )
    publish_catalog(store)
    assert query_catalog(store, "SELECT snapshot FROM pools").to_pylist() == [{"snapshot": taken.id}]
    assert query_catalog(store, "SELECT model_id, number FROM models ORDER BY number").to_pylist() == [
        {"model_id": "m1", "number": 1},
        {"model_id": "m0", "number": 2},
    ]


def test_labels__a_file_taken_in_later_counts_whatever_the_clock_said(light: Path) -> None:
    context = opened(light)
    run_all(context, ["any"])
    snapshot = open_snapshot(context.store, last_run(context.store, "ingest")["subject"])
    file = light / "labels.jsonl"
    for label, ahead in (("no", timedelta(days=900)), ("yes", timedelta(0))):
        file.write_text(json.dumps({"id": "fox-1", "label": label}) + "\n")
        with clock(ahead):
            import_labels(context.store, "p", str(file), classes=["yes", "no"], snapshot=snapshot)
    assert counted(read_log(context.store, "p"))["label"].to_pylist() == ["yes"]
    publish_catalog(context.store)
    assert query_catalog(context.store, "SELECT label FROM labels").to_pylist() == [{"label": "yes"}]


@pytest.mark.parametrize(
    "name", ["r1", "backup of runs", "ZZZZZZZZZZZZZZZZZZZZZZZZZZ", "01ARZ3NDEKTSV4RRFFQ69G5FAVX", ""]
)
def test_new_run_id__what_is_no_ulid_does_not_count(name: str) -> None:
    assert new_run_id(after=[name])[0] == "0"


@pytest.mark.slow
def test_commit_run__processes_at_once_never_share_a_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    future = "7" + "0" * 25
    commit_run(store, {"run_id": future})
    code = (
        "import sys; from storage.records import commit_run; from storage.store import Store\n"
        "for n in range(20): print(commit_run(Store(sys.argv[1]), {'stage': str(n)}), flush=True)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(store.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    each = [process.communicate(timeout=120)[0].split() for process in processes]
    ids = [run_id for made in each for run_id in made]
    assert len(set(ids)) == 60
    assert all(made == sorted(made) for made in each)
    assert min(ids) > future
    assert len(store.records("runs")) == 61
