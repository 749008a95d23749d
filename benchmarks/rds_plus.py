"""rds_plus and rds_max against the dense method of the released RDS+ code, on the same vectors in one run.

    python benchmarks/rds_plus.py [--rows 262858] [--targets 280] [--budget 10000]

The dense method holds the whole matrix of similarities and sorts it once for each target (`get_top_influences.py`); its
repeated removal of duplicates, which is quadratic in the budget, is replaced by a set, so it is measured faster than it
is. Every method runs in a process of its own, after a warm-up on a small pool; "faster" compares CPU seconds, which
other work on the machine disturbs least; memory is the peak above the loaded vectors.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selection import Pool, Targets, select

Array = npt.NDArray[Any]
DIMENSIONS = 384


def make_vectors(folder: Path, rows: int, targets: int) -> None:
    """Unit float16 vectors in clusters of very different sizes; the targets lie near some of the clusters."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(500, DIMENSIONS)).astype(np.float32)
    share = 1 / np.arange(1, 501)
    vectors = np.lib.format.open_memmap(folder / "pool.npy", "w+", np.float16, (rows, DIMENSIONS))
    for start in range(0, rows, 16384):
        which = rng.choice(500, size=min(16384, rows - start), p=share / share.sum())
        block = centres[which] + rng.normal(size=(len(which), DIMENSIONS)).astype(np.float32)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    queries = centres[rng.integers(0, 60, targets)] + rng.normal(size=(targets, DIMENSIONS))
    np.save(folder / "targets.npy", (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32))


def dense_round_robin(vectors: Array, queries: Array, budget: int) -> list[int]:
    """The released code's way: one full sort for each target, then round after round over the lists."""
    similarity = queries @ vectors.astype(np.float32).T
    lists = [np.argsort(-row, kind="stable") for row in similarity]
    taken: dict[int, None] = {}
    for rank in range(len(vectors)):
        for ordered in lists:
            taken.setdefault(int(ordered[rank]))
        if len(taken) >= budget:
            break
    return list(taken)[:budget]


def dense_max(vectors: Array, queries: Array, budget: int) -> list[int]:
    """The whole matrix, its maximum for each row, a sort."""
    similarity = queries @ vectors.astype(np.float32).T
    return [int(row) for row in np.argsort(-similarity.max(axis=0), kind="stable")[:budget]]


def winnow(step: str | dict[str, dict[str, str]]) -> Callable[[Array, Array, int], list[int]]:
    """One step of winnow, as a method to measure."""

    def run(vectors: Array, queries: Array, budget: int) -> list[int]:
        targets = Targets(queries, np.zeros(len(queries), np.int64), ("targets",))
        rows = select([step], Pool(vectors=vectors, targets=targets), budget=budget).rows
        return [int(row) for row in rows]

    return run


METHODS: dict[str, Callable[[Array, Array, int], list[int]]] = {
    "dense round robin": dense_round_robin,
    "rds_plus": winnow("rds_plus"),
    "rds_plus advance": winnow({"rds_plus": {"on_duplicate": "advance"}}),
    "dense maximum": dense_max,
    "rds_max": winnow("rds_max"),
}
# method -> what it is compared with
PEERS = {"rds_plus": "dense round robin", "rds_max": "dense maximum"}


def measure(name: str, folder: Path, budget: int, out: Connection) -> None:
    """Send seconds, CPU seconds, peak MiB above the loaded vectors, and the rows."""
    vectors, queries = np.load(folder / "pool.npy"), np.load(folder / "targets.npy")
    METHODS[name](vectors[:2000], queries, 100)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    rows = METHODS[name](vectors, queries, budget)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    out.send((seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, rows))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_858)
    parser.add_argument("--targets", type=int, default=280)
    parser.add_argument("--budget", type=int, default=10_000)
    options = parser.parse_args()
    results: dict[str, tuple[float, float, float, list[int]]] = {}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_vectors(folder, options.rows, options.targets)
        print(f"{options.rows} rows x {DIMENSIONS} float16, {options.targets} targets, budget {options.budget}")
        print(
            f"{'method':<20}{'seconds':>9}{'CPU s':>9}{'faster':>9}{'peak MiB':>10}  rows shared with the dense method"
        )
        for method in METHODS:
            receiver, sender = spawn.Pipe(duplex=False)
            process = spawn.Process(target=measure, args=(method, folder, options.budget, sender))
            process.start()
            sender.close()
            results[method] = receiver.recv()
            process.join()
            seconds, cpu, peak, rows = results[method]
            ratio, shared = "", ""
            if method in PEERS:
                peer = results[PEERS[method]]
                ratio = f"{peer[1] / cpu:.1f}x"
                shared = f"{len(set(rows) & set(peer[3])) / len(rows):.4%}"
            print(f"{method:<20}{seconds:>9.2f}{cpu:>9.2f}{ratio:>9}{peak:>10.0f}  {shared}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
