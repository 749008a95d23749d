"""The catalog against the obvious alternative, one DuckDB file that everyone opens: `python benchmarks/catalog.py`.

The alternative gets what makes it work at all: an flock around every write and a retry while a reader has the file
open. Prints how long committing and publishing takes at 100 and 1,000 selections, and what happens when two processes
write while two others read. About half a minute.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from storage.catalog.publish import publish_catalog
from storage.catalog.query import LINK
from storage.ids import to_arrow
from storage.records import commit_selection, digest_of
from storage.store import Store

SCHEMA = """
CREATE TABLE IF NOT EXISTS selections (selection_id VARCHAR PRIMARY KEY, recipe VARCHAR, n_items BIGINT);
CREATE TABLE IF NOT EXISTS selection_items (
    selection_id VARCHAR, rank UINTEGER, id UUID, gain FLOAT, kind VARCHAR, ref VARCHAR, ref_rank INTEGER, value FLOAT);
"""
# How long a nightly job waits for somebody to close the file before it gives up.
PATIENCE_S = 2.0


def items_of(seed: int, n: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, n + 1, dtype=np.uint32)),
            "id": to_arrow(np.frombuffer(rng.bytes(16 * n), "S16")),
            "gain": pa.array(np.sort(rng.random(n, np.float32))[::-1]),
            "kind": pa.array(["target"] * n),
            "ref": pa.array(["gsm8k"] * n),
            "ref_rank": pa.array(np.ones(n, np.int32)),
            "value": pa.nulls(n, pa.float32()),
        }
    )


class Winnow:
    """Records and a published catalog."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "store")
        self.file = self.store.path(LINK)
        self.retries = 0

    def commit(self, seed: int, n: int) -> None:
        header = {"selection_id": digest_of(seed), "recipe": "math", "steps": ["random"], "budget": n}
        commit_selection(self.store, header, items_of(seed, n))

    def publish(self) -> None:
        publish_catalog(self.store)

    def fill(self, seeds: range) -> None:
        """Many records at once: copies of the first under other names."""
        source = self.store.path("records", "selections", digest_of(0))
        header = json.loads((source / "selection.json").read_text())
        for seed in seeds:
            target = source.with_name(digest_of(seed))
            shutil.copytree(source, target)
            (target / "selection.json").write_text(json.dumps(header | {"selection_id": target.name}))


class OneFile:
    """One native DuckDB file, flock and retry."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "one.duckdb"
        self.retries = 0

    def commit(self, seed: int, n: int) -> None:
        items = items_of(seed, n).add_column(0, "selection_id", pa.repeat(digest_of(seed), n))
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            until = time.monotonic() + PATIENCE_S
            while True:
                try:
                    connection = duckdb.connect(str(self.file))
                    break
                except duckdb.IOException:
                    self.retries += 1
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.02)
            with connection:
                connection.execute(SCHEMA)
                connection.execute("BEGIN")
                connection.execute("INSERT INTO selections VALUES (?, 'math', ?)", [digest_of(seed), n])
                connection.register("new_items", items)
                connection.execute("INSERT INTO selection_items SELECT * FROM new_items")
                connection.execute("COMMIT")

    def publish(self) -> None:
        """What is committed is visible."""

    def fill(self, seeds: range) -> None:
        """Many selections in one transaction."""
        with duckdb.connect(str(self.file)) as connection:
            connection.register("new_items", items_of(0, 100))
            names = pa.table({"selection_id": [digest_of(seed) for seed in seeds]})
            connection.register("names", names)
            connection.execute("INSERT INTO selections SELECT selection_id, 'math', 100 FROM names")
            connection.execute("INSERT INTO selection_items SELECT n.*, i.* FROM names n, new_items i")


def timed(run: Callable[[], Any]) -> float:
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


def in_ms(times: list[float]) -> str:
    return f"{statistics.median(times):7.1f} {max(times):7.1f}"


def growth(way: type[Winnow | OneFile], n_items: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        catalog = way(Path(folder))
        catalog.commit(0, 100)
        catalog.publish()
        done = 1
        for goal in (100, 1000):
            catalog.fill(range(done, goal - 10))
            catalog.publish()
            commits, publishes = [], []
            for seed in range(goal - 10, goal):
                commits.append(timed(partial(catalog.commit, seed, n_items)))
                publishes.append(timed(catalog.publish))
            done = goal
            asked = [timed(partial(ask, catalog.file, seed)) for seed in range(goal - 10, goal)]
            print(f"{way.__name__:8} {goal:6,} {in_ms(commits)}   {in_ms(publishes)}   {in_ms(asked)}")


def ask(file: Path, seed: int) -> None:
    """What a person does: open, look at one selection, close."""
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute(
            "SELECT count(*), avg(gain) FROM selection_items WHERE selection_id = ?", [digest_of(seed)]
        ).fetchall()


def write(way: type[Winnow | OneFile], folder: Path, who: int, count: int, n_items: int, out: Any) -> None:
    catalog, lost = way(folder), 0
    for number in range(count):
        try:
            catalog.commit(1000 * who + number, n_items)
            catalog.publish()
        except duckdb.IOException:
            lost += 1
    out.put({"lost": lost, "retries": catalog.retries})


def read(file: Path, hold_s: float, stop: Event, out: Any) -> None:
    looks = failures = 0
    while not stop.is_set():
        try:
            with duckdb.connect(str(file), read_only=True) as connection:
                connection.execute("SELECT count(*) FROM selection_items").fetchall()
                looks += 1
                stop.wait(hold_s)
        except duckdb.IOException:
            failures += 1
        stop.wait(0.02)
    out.put({"looks": looks, "failures": failures})


def together(way: type[Winnow | OneFile], count: int, n_items: int) -> None:
    """Two writers, a reader that polls and one that keeps its connection for a second at a time."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder, stop = Path(name), context.Event()
        catalog = way(folder)
        catalog.commit(0, n_items)
        catalog.publish()
        wrote, seen = context.Queue(), context.Queue()
        readers = [context.Process(target=read, args=(catalog.file, hold, stop, seen)) for hold in (0.0, 1.0)]
        writers = [context.Process(target=write, args=(way, folder, who, count, n_items, wrote)) for who in (1, 2)]
        for process in (*readers, *writers):
            process.start()
        began = time.perf_counter()
        done = [wrote.get() for _ in writers]
        seconds = time.perf_counter() - began
        stop.set()
        looks = [seen.get() for _ in readers]
        for process in (*readers, *writers):
            process.join()
    total = {key: sum(row[key] for row in rows) for rows in (done, looks) for key in rows[0]}
    print(
        f"{way.__name__:8} {2 * count:6} {seconds:8.1f} {total['lost']:6} {total['retries']:8} "
        f"{total['looks']:8} {total['failures']:9}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":", maxsplit=1)[0])
    parser.add_argument("--items", type=int, default=10_000, help="items of a timed selection")
    parser.add_argument("--each", type=int, default=5, help="selections of each of the two writers")
    options = parser.parse_args()
    print(json.dumps({"duckdb": duckdb.__version__, **vars(options)}))
    print(f"\nmilliseconds, median and max of 10, {options.items:,} items (the others have 100)")
    print(f"{'':8} {'selections':>6} {'commit':>12} {'publish':>17} {'open and ask':>20}")
    for way in (Winnow, OneFile):
        growth(way, options.items)
    print("\ntwo writers, one reader that polls, one that keeps its connection 1 s at a time")
    print(f"{'':8} {'selections':>6} {'s':>5} {'lost':>6} {'retries':>8} {'answers':>8} {'refusals':>9}")
    for way in (Winnow, OneFile):
        together(way, options.each, options.items)


if __name__ == "__main__":
    main()
