"""Publishing and asking a catalog of many selections: `python benchmarks/selections.py`.

A project of five recipes runs once; then selections of rows of its pool are committed night by night, each with its
run, through the store's own functions. Prints what committing takes on the way, and at the end: the seconds of
publishing a night, of publishing when nothing is new, of making the catalog from the records alone, and of each query
of docs/cookbook.md, opened anew. 5,000 selections of 2,000 rows are 10M items, about 250 MB and some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from pipelines.context import open_context
from pipelines.progress import Log
from pipelines.run import run_and_report
from pipelines.runs import last_run
from storage.catalog.publish import publish_catalog, rebuild_catalog
from storage.catalog.query import open_catalog
from storage.ids import to_arrow
from storage.pool.snapshot import open_snapshot
from storage.records import commit_run, commit_selection, digest_of, new_run_id, read_selection
from storage.store import Store, utc_now
from storage.upkeep.compact import compact

RECIPES = ("mine", "other", "third", "fourth", "fifth")
CONFIG = """\
store: ./store
pool: {files: pool.jsonl}
recipes:
"""
# Of a query.
LONG_S, GOAL_S = 2.0, 0.3
COOKBOOK = Path(__file__).parents[1] / "docs" / "cookbook.md"
FIELDS = {"license": "mit", "language": "en", "reward": 0.5, "n_tokens": 12, "year": 2000}


def make_project(folder: Path, rows: int, items: int) -> None:
    """A pool of short rows, and five recipes that draw at random."""
    with (folder / "pool.jsonl").open("w") as file:
        for number in range(rows):
            fields = FIELDS | {"conversation_id": f"c{number // 2}"}
            row = {"id": f"row-{number}", "prompt": f"What is {number}?", "response": f"It is {number + 1} less one."}
            file.write(json.dumps(row | {"source": f"source-{number % 7}"} | fields) + "\n")
    recipes = "".join(f"  {name}: {{steps: [random], budget: {items}}}\n" for name in RECIPES)
    (folder / "winnow.yaml").write_text(CONFIG + recipes)


class Nights:
    """Adds nights to a store in which every recipe was drawn once: a selection of each recipe, and its run."""

    def __init__(self, store: Store, items: int) -> None:
        self.store, self.items = store, items
        ingest = last_run(store, "ingest")
        runs = {recipe: last_run(store, "select", recipe) for recipe in RECIPES}
        assert ingest is not None
        self.ids = open_snapshot(store, ingest["subject"]).ids
        self.runs = {recipe: run for recipe, run in runs.items() if run is not None}
        self.headers = {recipe: read_selection(store, run["subject"])[0] for recipe, run in self.runs.items()}

    def add(self, nights: range) -> None:
        """Published every tenth night and after the last."""
        for night in nights:
            invocation = new_run_id()
            for number, (recipe, header) in enumerate(self.headers.items()):
                items = items_of(np.random.default_rng([night, number]), self.ids, self.items)
                selection_id = digest_of([night, recipe])
                commit_selection(self.store, header | {"selection_id": selection_id}, items)
                run = {key: value for key, value in self.runs[recipe].items() if key not in ("run_id", "checksum")}
                own = {"invocation": invocation, "subject": selection_id, "started_at": utc_now()}
                commit_run(self.store, run | own | {"finished_at": utc_now()})
            if night % 10 == 0 or night == nights[-1]:
                compact(self.store)
                publish_catalog(self.store)


def items_of(rng: np.random.Generator, ids: np.ndarray, n: int) -> pa.Table:
    chosen = rng.choice(len(ids), n, replace=False)
    return pa.table(
        {
            "rank": pa.array(np.arange(1, n + 1, dtype=np.uint32)),
            "id": to_arrow(ids[chosen]),
            "gain": pa.nulls(n, pa.float32()),
            "kind": pa.array(["random"] * n),
            "ref": pa.nulls(n, pa.string()),
            "ref_rank": pa.nulls(n, pa.int32()),
            "value": pa.array(rng.random(n, np.float32)),
        }
    )


def queries() -> Iterator[tuple[str, str]]:
    """The queries of the cookbook, each with the question before it."""
    page = re.split(r"^```sql\n(.*?)^```", COOKBOOK.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for text, sql in zip(page[::2], page[1::2], strict=False):
        yield text.strip().rpartition("\n\n")[2].replace("\n", " "), sql


def seconds_of(store: Store, sql: str, looks: int) -> tuple[float, float]:
    """A query as `winnow sql` asks it, the catalog opened anew: by the clock and of the processor, medians.

    One that takes longer than `LONG_S` is asked once.
    """
    times: list[tuple[float, float]] = []
    while len(times) < looks and all(wall < LONG_S for wall, _ in times):
        wall, cpu = time.perf_counter(), time.process_time()
        with open_catalog(store) as connection:
            for statement in duckdb.extract_statements(sql):
                result = connection.sql(statement.query)
                if result is not None:
                    result.to_arrow_table()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)


def timed(run: Any, *values: Any) -> str:
    """Seconds by the clock, and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    run(*values)
    return f"{time.perf_counter() - wall:8.2f} s, {time.process_time() - cpu:.2f} s of CPU"


def disk(store: Store) -> str:
    entries, size = 0, 0
    for parent, folders, names in os.walk(store.root):
        entries += len(folders) + len(names)
        size += sum(Path(parent, name).lstat().st_size for name in names)
    return f"{entries:,} files and folders, {size / 1e6:,.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--selections", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=2_000, help="rows of each selection")
    parser.add_argument("--rows", type=int, default=100_000, help="of the pool")
    parser.add_argument("--looks", type=int, default=3, help="how often each query is asked")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, duckdb {duckdb.__version__}, {vars(options)}")
    with tempfile.TemporaryDirectory() as name:
        make_project(Path(name), options.rows, options.items)
        run_and_report(open_context(Path(name) / "winnow.yaml", Log(lambda _: None)))
        store = Store(Path(name) / "store")
        nights = options.selections // len(RECIPES) - 1  # the project's own run was the first
        added, done = Nights(store, options.items), 0
        for goal in sorted({min(100, nights - 1), nights - 1}):
            text = timed(added.add, range(done + 1, goal + 1))
            print(f"nights {done + 1:,} to {goal:,}, committed:  {text}; {disk(store)}", flush=True)
            done = goal
        print(f"a night, committed and published:  {timed(added.add, range(nights, nights + 1))}")
        print(f"publish, nothing new:              {timed(publish_catalog, store)}")
        print(f"publish, from the records alone:   {timed(rebuild_catalog, store)}")
        print("\nqueries of docs/cookbook.md: seconds by the clock and of the processor", flush=True)
        times = []
        for question, sql in queries():
            times.append(seconds_of(store, sql, options.looks))
            print(f"{times[-1][0]:8.3f} {times[-1][1]:8.3f}  {question}", flush=True)
        slow = sum(wall > GOAL_S for wall, _ in times)
        print(f"{slow} of {len(times)} queries take more than {GOAL_S} s")


if __name__ == "__main__":
    main()
