"""What processes do to each other: writers, readers, and kills. Each process is a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog
from storage.store import Store
from tests.quick import torture_last

# Prints each selection's id once its commit has returned: then it is acknowledged.
WRITER = """
import os, sys
import numpy as np, pyarrow as pa
from storage.catalog.publish import publish_catalog
from storage.ids import from_bytes, to_arrow
from storage.records import commit_selection, digest_of
from storage.store import Store

def work(store, who, count, acknowledge):
    for number in range(count):
        n = 20 + number % 50
        rng = np.random.default_rng([number, *who.encode()])
        items = pa.table({
            "rank": pa.array(np.arange(1, n + 1, dtype=np.uint32)),
            "id": to_arrow(from_bytes(rng.bytes(16) for _ in range(n))),
            "gain": pa.array(rng.random(n, np.float32)),
            "kind": pa.array(["random"] * n), "ref": pa.nulls(n, pa.string()),
            "ref_rank": pa.nulls(n, pa.int32()), "value": pa.nulls(n, pa.float32()),
        })
        header = {"selection_id": digest_of([who, number]), "recipe": who, "steps": ["random"], "budget": n}
        acknowledge(commit_selection(store, header, items))
        publish_catalog(store)
"""
WRITE = WRITER + "work(Store(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lambda done: print(done, flush=True))"

# Opens the file as an analyst does. What is seen must be whole, and never less than before.
TORN = """
import duckdb, json, sys, time
SEEN = '''SELECT s.selection_id, s.n_items, count(i.id), max(i.rank) FROM selections s
    LEFT JOIN selection_items i USING (selection_id) GROUP BY ALL ORDER BY ALL'''
def look(connection):
    rows = connection.execute(SEEN).fetchall()
    assert all(n == found == last for _, n, found, last in rows), f"torn: {rows}"
    return {row[0] for row in rows}
report = {"looks": 0, "errors": [], "most": 0}
def end():
    print(json.dumps(report), flush=True)
print("ready", flush=True)
"""
POLL = (
    TORN
    + """
before = set()
while not __import__('select').select([sys.stdin], [], [], 0.1)[0]:
    try:
        with duckdb.connect(sys.argv[1], read_only=True) as connection:
            now = look(connection)
        assert before <= now, "lost"
        before = now
        report["looks"] += 1
        report["most"] = len(now)
    except Exception as error:
        report["errors"].append(repr(error))
end()
"""
)
HOLD = (
    TORN
    + """
while not __import__('select').select([sys.stdin], [], [], 0)[0]:
    try:
        with duckdb.connect(sys.argv[1], read_only=True) as connection:
            first = look(connection)
            until = time.monotonic() + 3
            while time.monotonic() < until and not __import__('select').select([sys.stdin], [], [], 0.05)[0]:
                assert look(connection) == first, "an open reader's snapshot changed"
                report["looks"] += 1
    except Exception as error:
        report["errors"].append(repr(error))
end()
"""
)

# Forks the writers, so that a round costs no start of Python; never opens DuckDB itself before a fork.
KILLS = (
    WRITER
    + """
import random, signal, time
from storage.catalog.query import open_catalog
root, acknowledged = sys.argv[1:3]
log = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def forked(run):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return pid

def open_it():
    with open_catalog(Store(root)) as connection:
        torn = connection.execute(
            "SELECT count(*) FROM (SELECT n_items, count(i.id) AS found FROM selections LEFT JOIN selection_items i "
            "USING (selection_id) GROUP BY selection_id, n_items) WHERE n_items <> found").fetchall()
        assert torn == [(0,)], torn

def work_once():
    work(Store(root), "first", 1, lambda done: os.write(log, f"{done}\\n".encode()))

began = time.monotonic()
assert os.waitpid(forked(work_once), 0)[1] == 0
usual = time.monotonic() - began  # of one commit and publish, on this machine and now
chance, killed, broken = random.Random(), 0, 0
for number in range(15):
    writers = [
        forked(lambda: work(Store(root), f"{number}{who}", 1000, lambda done: os.write(log, f"{done}\\n".encode())))
        for who in "ab"
    ]
    for pid in writers:
        time.sleep(chance.uniform(0, 1.5 * usual))
        os.kill(pid, signal.SIGKILL)
        killed += os.waitpid(pid, 0)[1] == signal.SIGKILL
    broken += os.waitpid(forked(open_it), 0)[1] != 0
print(killed, broken)
"""
)


def start(code: str, *args: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def in_catalog(store: Store) -> dict[str, int]:
    sql = "SELECT selection_id, count(*) FROM selection_items GROUP BY ALL"
    with open_catalog(store) as connection:
        return dict(connection.execute(sql).fetchall())


# Writers, readers, and how many selections each writer commits and publishes.
CROWDS = [(2, 2, 20), (8, 4, 10)]


@pytest.mark.slow
@pytest.mark.parametrize(("writers", "readers", "each"), torture_last(1, CROWDS))
def test_writers_and_readers__no_failure_nothing_torn_nothing_lost(
    tmp_path: Path, writers: int, readers: int, each: int
) -> None:
    store = Store(tmp_path / "store")
    publish_catalog(store)
    looking = [start((POLL, HOLD)[number % 2], store.path("winnow.duckdb")) for number in range(readers)]
    assert [reader.stdout.readline() for reader in looking if reader.stdout] == ["ready\n"] * readers
    writing = [start(WRITE, store.root, f"writer-{number}", each) for number in range(writers)]
    written = [writer.communicate(timeout=600) for writer in writing]
    seen = [reader.communicate("stop\n", timeout=60) for reader in looking]

    assert [writer.returncode for writer in writing] == [0] * writers, written
    assert [reader.returncode for reader in looking] == [0] * readers, seen
    acknowledged = {line for out, _ in written for line in out.split()}
    assert len(acknowledged) == writers * each
    held = in_catalog(store)
    assert set(held) == acknowledged
    rebuild_catalog(store)
    assert in_catalog(store) == held
    for out, _ in seen:
        report = json.loads(out)
        assert report["errors"] == []
        assert report["looks"] > 10
    assert 0 < json.loads(seen[0][0])["most"] <= writers * each


@pytest.mark.slow
def test_kill_9_at_30_random_moments__nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    publish_catalog(store)
    done = start(KILLS, store.root, tmp_path / "acknowledged")
    out, err = done.communicate(timeout=120)
    assert out.split() == ["30", "0"], err

    acknowledged = set((tmp_path / "acknowledged").read_text().split())
    assert len(acknowledged) >= 15, "the writers were killed before they did anything: this test tests nothing"
    publish_catalog(store)
    held = in_catalog(store)
    assert acknowledged <= set(held)
    assert sorted(entry.name for entry in store.root.iterdir()) == [
        "catalog",
        "locks",
        "records",
        "tmp",
        "winnow.duckdb",
    ]
    # What the last publish carried over and what the records say are the same.
    rebuild_catalog(store)
    assert in_catalog(store) == held
