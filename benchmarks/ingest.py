"""How fast a pool is read, and with how much memory: `python benchmarks/ingest.py [--rows N] [--workers N ..]`.

Beside it the plain way: one `json.loads` a line, a set of whole texts against repeats, one Parquet table at the end.
Each runs in a process of its own on the same files; wall and processor seconds are those of the process and of its
workers, the peak of memory is that of the largest of them. With `--workers`, several processes read the same files
anew.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 8
WORDS = [f"word{number}" for number in range(5000)]

WINNOW = """
import sys
from pathlib import Path
from storage.files.user_files import expand
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import take_snapshot
from storage.store import Store
folder = Path(sys.argv[1])
store = Store(folder / "store")
found = [ingest_file(store, FileSpec(url)) for url in expand(["*.jsonl.gz"], folder)]
snapshot = take_snapshot(store, found)
print(sum(one.read for one in found), len(snapshot))
"""

WORKERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from pipelines.engine.local import LocalEngine
from storage.files.user_files import expand
from storage.pool.ingest import FileSpec, ingest_file
from storage.pool.snapshot import take_snapshot
from storage.store import Store
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
store = Store(folder / f"store-{workers}")
with LocalEngine(workers) as engine, ThreadPoolExecutor(workers) as threads:
    read = partial(ingest_file, store, parallel=engine.map)
    ingests = list(threads.map(read, [FileSpec(url) for url in expand(["*.jsonl.gz"], folder)]))
snapshot = take_snapshot(store, ingests)
print(sum(ingest.read for ingest in ingests), len(snapshot))
"""

PLAIN = """
import gzip, json, sys
from pathlib import Path
import polars as pl
folder = Path(sys.argv[1])
seen, rows, read = set(), [], 0
for path in sorted(folder.glob("*.jsonl.gz")):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            read += 1
            row = json.loads(line)
            text = (row["prompt"].strip(), row["response"].strip())
            if text not in seen:
                seen.add(text)
                rows.append(row)
pl.DataFrame(rows).write_parquet(folder / "plain.parquet")
print(read, len(rows))
"""


def make_pool(folder: Path, rows: int, least: int, most: int) -> None:
    """Rows of so many made-up words; one in a hundred repeats an earlier one."""
    draw = random.Random(0)
    texts: list[str] = []
    for number in range(FILES):
        with gzip.open(folder / f"{number}.jsonl.gz", "wt", encoding="utf-8", compresslevel=3) as file:
            for _ in range(rows // FILES):
                text = " ".join(draw.choices(WORDS, k=draw.randint(least, most)))
                text = draw.choice(texts) if texts and draw.random() < 0.01 else text
                if len(texts) < 1000:
                    texts.append(text)
                row = {"id": draw.getrandbits(40), "source": str(number), "prompt": text, "response": text[:80]}
                file.write(json.dumps(row) + "\n")


PROBE = """
import resource
usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(usage.ru_utime + usage.ru_stime for usage in usages), max(usage.ru_maxrss for usage in usages) / 1024)
"""


def measured(code: str, folder: Path, *arguments: str) -> tuple[str, float, float, float]:
    """What it printed, wall seconds, processor seconds, peak MiB."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + PROBE, str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[1],
    )
    wall = time.perf_counter() - began
    counts, usage = done.stdout.splitlines()
    processor, peak = map(float, usage.split())
    return counts, wall, processor, peak


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=250_000)
    arguments.add_argument("--workers", type=int, nargs="*", default=[], help="processes that read, side by side")
    arguments.add_argument("--words", type=int, nargs=2, default=[20, 150], help="of a row: at least and at most")
    options = arguments.parse_args()
    rows = options.rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pool(folder, rows, *options.words)
        size = sum(path.stat().st_size for path in folder.glob("*.gz")) / 2**20
        print(f"{rows:,} rows in {FILES} gzip files, {size:.0f} MiB")
        print(f"{'':<34}{'wall s':>8}{'cpu s':>8}{'peak MiB':>10}   read, kept")
        for what, code, *arguments_of in (
            ("winnow: ingest and snapshot", WINNOW),
            ("winnow: again, nothing new", WINNOW),
            *((f"winnow: {workers} workers", WORKERS, str(workers)) for workers in options.workers),
            ("plain json, a set, one table", PLAIN),
        ):
            counts, wall, processor, peak = measured(code, folder, *arguments_of)
            print(f"{what:<34}{wall:>8.1f}{processor:>8.1f}{peak:>10.0f}   {counts}")


if __name__ == "__main__":
    main()
