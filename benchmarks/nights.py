"""What a night costs after many nights: `python benchmarks/nights.py --nights 200`.

Each night a file of new rows comes into the pool, some rows of the night before are gone and some have another text
and vector, and `winnow run` runs. Vectors are made up; no model is loaded. The five nights up to 1, 2, 5, 10, ... run
in a process each that has read nothing before, the others in this one, which is quicker. Prints, at those nights: the
seconds of a night (the median of the last five, or fewer), of publishing the catalog, and of three queries of the
cookbook; then what a night added to each folder of the store since the column before: entries (files and folders) and
kB.

With `--window 30` only the files of the last 30 nights are in the pool, which then stays as large as it is.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.context import open_context
from pipelines.progress import Log
from pipelines.run import run_and_report
from pipelines.runs import last_run
from storage.catalog.query import query_catalog
from storage.store import Store

CONFIG = """\
store: ./store
pool: {files: data/*.jsonl, vectors: vectors/pool.npy}
targets:
  asked: {files: targets/asked.jsonl, vectors: vectors/asked.npy, measure: 0.5}
recipes:
  near: {steps: [rds_plus], budget: 100, allow_short: true}
  any: {steps: [random], budget: 100, allow_short: true}
"""
QUERIES = {
    "rows": """SELECT e.given_id, e.id, e.file, e.line, e.rank
        FROM selected_examples e JOIN latest_selections s USING (selection_id)
        WHERE s.recipe = 'near' ORDER BY e.rank""",
    "again": """SELECT id, count(*) AS times, min(rank) AS best_rank
        FROM selection_items GROUP BY id ORDER BY times DESC, best_rank LIMIT 20""",
    "stages": """SELECT min(started_at) AS night, stage, count(*) AS runs, round(sum(seconds), 1) AS seconds
        FROM runs GROUP BY invocation, stage ORDER BY invocation DESC, seconds DESC LIMIT 40""",
}
WORDS = np.array([f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdfgklmnprst"])
TARGETS = 20


class Project:
    """A project whose files of rows and of vectors change every night."""

    def __init__(self, folder: Path, rows: int, dimension: int, window: int) -> None:
        self.folder, self.rows, self.dimension, self.window = folder, rows, dimension, window
        self.files: dict[Path, dict[str, tuple[str, np.ndarray]]] = {}
        for name in ("data", "targets", "vectors"):
            (folder / name).mkdir()
        (folder / "winnow.yaml").write_text(CONFIG)
        targets = self._new_rows(0, "target", TARGETS)
        _write_rows(folder / "targets" / "asked.jsonl", targets)
        _write_vectors(folder / "vectors" / "asked.npy", targets)

    def change(self, night: int) -> None:
        """What happens in the day before a night."""
        if self.files:
            last, before = list(self.files.items())[-1]
            kept = dict(list(before.items())[self.rows // 10 :])
            self.files[last] = kept | self._new_rows(night, "changed", 2, ids=list(kept)[:2])
            _write_rows(last, self.files[last])
        path = self.folder / "data" / f"night-{night:04d}.jsonl"
        self.files[path] = self._new_rows(night, f"row-{night}", self.rows)
        _write_rows(path, self.files[path])
        while self.window and len(self.files) > self.window:
            oldest = next(iter(self.files))
            self.files.pop(oldest)
            oldest.unlink()
        pool = {key: row for rows in self.files.values() for key, row in rows.items()}
        _write_vectors(self.folder / "vectors" / "pool.npy", pool)

    def _new_rows(
        self, night: int, name: str, count: int, ids: list[str] | None = None
    ) -> dict[str, tuple[str, np.ndarray]]:
        rng = np.random.default_rng([night, len(name)])
        words = WORDS[rng.integers(len(WORDS), size=(count, 20))]
        vectors = rng.normal(size=(count, self.dimension)).astype(np.float32)
        names = ids or [f"{name}-{number}" for number in range(count)]
        return {key: (" ".join(text), vector) for key, text, vector in zip(names, words, vectors, strict=True)}


def _write_rows(path: Path, rows: dict[str, tuple[str, np.ndarray]]) -> None:
    lines = [json.dumps({"id": key, "prompt": text, "response": text[::-1]}) for key, (text, _) in rows.items()]
    path.write_text("\n".join(lines) + "\n")


def _write_vectors(path: Path, rows: dict[str, tuple[str, np.ndarray]]) -> None:
    np.save(path, np.array([vector for _, vector in rows.values()]))
    path.with_suffix(".ids.txt").write_text("\n".join(rows) + "\n")


def run_night(folder: Path) -> float:
    """`winnow run` in a process of its own, its start left out; seconds."""
    # Forked from a server that has imported winnow and done nothing else: no cache, no thread of this process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipelines.run"])
    result = context.Queue()
    process = context.Process(target=_run, args=(folder, result))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"the night failed with code {process.exitcode}")
    return float(result.get())


def _run(folder: Path, result: Any) -> None:
    started = time.perf_counter()
    run_and_report(open_context(folder / "winnow.yaml", Log(lambda _: None)))
    result.put(time.perf_counter() - started)


def seconds_of(store: Store, sql: str) -> float:
    """A query, opened anew: the median of three."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        query_catalog(store, sql)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def usage(store: Store) -> dict[str, tuple[int, int]]:
    """Folder of the store (kind of record, of records) -> entries and bytes."""
    entries: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for parent, folders, names in os.walk(store.root):
        parts = Path(parent).relative_to(store.root).parts
        kind = "/".join(parts[: 2 if parts[:1] == ("records",) else 1]) or "."
        entries[kind] += len(folders) + len(names)
        sizes[kind] += sum(Path(parent, name).lstat().st_size for name in names)
    return {kind: (entries[kind], sizes[kind]) for kind in sorted(entries)}


def shown_nights(last: int) -> set[int]:
    """1, 2, 5, 10, ... and the last."""
    return {night for power in range(6) for night in (10**power, 2 * 10**power, 5 * 10**power) if night < last} | {last}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=200)
    parser.add_argument("--rows", type=int, default=50, help="new rows a night")
    parser.add_argument("--dimension", type=int, default=32)
    parser.add_argument("--window", type=int, default=0, help="nights whose files are in the pool; 0: all")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {vars(options)}")
    with tempfile.TemporaryDirectory() as name:
        project = Project(Path(name), options.rows, options.dimension, options.window)
        store = Store(Path(name) / "store")
        print(f"{'night':>6} {'seconds':>8} {'publish':>8} " + " ".join(f"{query:>7}" for query in QUERIES))
        usages: dict[int, dict[str, tuple[int, int]]] = {0: {}}
        recent: list[float] = []
        for night in range(1, options.nights + 1):
            project.change(night)
            if not any(night <= shown < night + 5 for shown in shown_nights(options.nights)):
                run_and_report(open_context(project.folder / "winnow.yaml", Log(lambda _: None)))
                recent = []
                continue
            recent.append(run_night(project.folder))
            if night not in shown_nights(options.nights):
                continue
            published = last_run(store, "publish")
            assert published is not None
            asked = " ".join(f"{seconds_of(store, sql):7.3f}" for sql in QUERIES.values())
            print(f"{night:>6} {statistics.median(recent[-5:]):8.2f} {published['seconds']:8.2f} {asked}", flush=True)
            usages[night] = usage(store)
        print_added(usages)


def print_added(usages: dict[int, dict[str, tuple[int, int]]]) -> None:
    """A line for each folder, a column for each night shown; the last column is all that the folder holds."""
    nights = list(usages)
    for use in usages.values():
        use["all"] = (sum(entries for entries, _ in use.values()), sum(size for _, size in use.values()))
    print("\n" + f"{'entries / kB a night':28}" + "".join(f"{night:>17,}" for night in nights[1:]) + f"{'in all':>19}")
    for kind in usages[nights[-1]]:
        cells = []
        for earlier, later in pairwise(nights):
            entries, size = (
                (now - before) / (later - earlier)
                for now, before in zip(usages[later].get(kind, (0, 0)), usages[earlier].get(kind, (0, 0)), strict=True)
            )
            cells.append(f"{entries:6.1f} /{size / 1e3:9,.1f}")
        entries, size = usages[nights[-1]][kind]
        print(f"{kind:28}" + "".join(cells) + f"{entries:8,} /{size / 1e3:9,.0f}")


if __name__ == "__main__":
    main()
