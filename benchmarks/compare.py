"""Methods side by side on the same arrays, each in a process of its own: what the benchmarks of steps share.

A benchmark holds a table `CASES` and calls `main`. Peers come from the extra `bench`; one that is not installed is left
out and said so. A method runs after a warm-up on the first rows (which compiles), and is stopped after --limit seconds.
"faster" compares CPU seconds with the peer that the case names, on one thread where it has the choice, since other work
on the machine disturbs these least; memory is the peak above the loaded arrays.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Method = Callable[..., Array]

WARM_UP_ROWS = 3000
WARM_UP_BUDGET = 100


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is measured.

    Attributes:
        title: the data and the budget, in words.
        make: writes `<name>.npy` for each of `arrays` into a folder.
        arrays: what methods take, by row.
        methods: name -> function of (*arrays, budget) that gives rows; "winnow ..." runs with every number of threads.
        peer: the method that "faster" compares with.
        note: a few words on the rows of a method, given (*arrays, rows, rows of the peer).
        modules: the module that a method needs, where it may be missing.
        repeats: runs of which the mean is taken.
        extra: runs only when asked for, on memory-mapped arrays.
        rows: how many there are, where --embeddings may take the place of the only array.
    """

    title: str
    budget: int
    make: Callable[[Path], None]
    arrays: tuple[str, ...]
    methods: Mapping[str, Method]
    peer: str
    note: Callable[..., str] = field(default=lambda *_: "")
    modules: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 1
    extra: bool = False
    rows: int = 0

    def load(self, folder: Path, *, mapped: bool = False) -> list[Array]:
        """The arrays that `make` wrote."""
        return [np.load(folder / f"{name}.npy", mmap_mode="r" if mapped else None) for name in self.arrays]


def main(cases: Mapping[str, Case], description: str) -> int:
    """Print a table for each case that the command line names, or for all but the extra ones."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(cases))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--limit", type=float, default=180, help="seconds after which a method is stopped")
    parser.add_argument("--all", action="store_true", help="the large cases too")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and of the budget")
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE.npy", help="(n, d) vectors to take instead of synthetic ones"
    )
    options = parser.parse_args()
    unknown = set(options.cases) - set(cases)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(cases)}")
    for name in options.cases or [name for name, case in cases.items() if options.all or not case.extra]:
        case = cases[name]
        if options.embeddings and not case.rows:
            print(f"\n{name}: on synthetic data only", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            if options.embeddings:
                case = embedded(case, Path(folder), options.embeddings)
            else:
                case.make(Path(folder))
            if options.quick:
                case = smaller(case, Path(folder))
            print(f"\n{name}: {case.title}, budget {case.budget}")
            print(
                f"{'method':<28}{'threads':>8}{'seconds':>9}{'CPU s':>9}{'faster':>9}{'peak MiB':>10}  rows", flush=True
            )
            print_case(name, case, Path(folder), options.threads, options.limit)
    return 0


def embedded(case: Case, folder: Path, source: Path) -> Case:
    """The case on unit vectors drawn from a file; with fewer of them than it asks for, on all, and a smaller budget."""
    vectors = np.load(source, mmap_mode="r")
    n = min(case.rows, len(vectors))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), n, replace=False))
    out = np.lib.format.open_memmap(folder / f"{case.arrays[0]}.npy", "w+", np.float32, (n, vectors.shape[1]))
    for start in range(0, n, 65536):
        block = np.asarray(vectors[rows[start : start + 65536]], np.float32)
        out[start : start + 65536] = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-30)
    title = f"{n} rows x {vectors.shape[1]} float32 of {source.name}"
    return replace(case, title=title, budget=case.budget * n // case.rows)


def smaller(case: Case, folder: Path) -> Case:
    """The case on the first tenth of its rows, with a tenth of its budget."""
    for name in case.arrays:
        few = np.load(folder / f"{name}.npy", mmap_mode="r")
        np.save(folder / "few.npy", few[: -(-len(few) // 10)])
        (folder / "few.npy").replace(folder / f"{name}.npy")
    return replace(case, title=f"a tenth of {case.title}", budget=-(-case.budget // 10))


def print_case(name: str, case: Case, folder: Path, threads: list[int], limit: float) -> None:
    """Measure and print the methods of a case; the peer first, so that every other can be compared with it."""
    peer_cpu: float | None = None
    peer_rows: Array | None = None
    arrays = case.load(folder, mapped=True)
    for method in sorted(case.methods, key=lambda m: m != case.peer):
        module = case.modules.get(method)
        if module and importlib.util.find_spec(module) is None:
            print(f"{method:<28}  not installed")
            continue
        for count in threads if method.startswith("winnow") else threads[:1]:
            result = run(name, method, folder, count, case.budget, limit)
            if isinstance(result, str):
                print(f"{method:<28}{count:>8}  {result}", flush=True)
                continue
            seconds, cpu, peak, rows = result
            times = peer_cpu / cpu if peer_cpu is not None and count == threads[0] else None
            ratio = "" if times is None else f"{times:.1f}x" if times >= 1 else f"{times:.2g}x"
            note = case.note(*arrays, rows, peer_rows) if count == threads[0] else ""
            print(f"{method:<28}{count:>8}{seconds:>9.3g}{cpu:>9.3g}{ratio:>9}{peak:>10.0f}  {note}", flush=True)
            if method == case.peer:
                peer_cpu, peer_rows = cpu, rows


def run(
    name: str, method: str, folder: Path, threads: int, budget: int, limit: float
) -> tuple[float, float, float, Array] | str:
    """`measure` in a process of its own."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(name, method, folder, threads, budget, sender))
    process.start()
    sender.close()
    result = f"stopped after {limit:.0f} s"
    if receiver.poll(limit):
        try:
            result = receiver.recv()
        except EOFError:
            result = "died"
    process.kill()
    process.join()
    return result


def measure(name: str, method: str, folder: Path, threads: int, budget: int, out: Connection) -> None:
    """Send seconds, CPU seconds, peak MiB above the loaded arrays, and the rows; or why the method cannot."""
    import numba

    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    case: Case = sys.modules["__main__"].CASES[
        name
    ]  # methods are closures, which cannot be sent: the benchmark is read anew
    arrays = case.load(folder, mapped=case.extra)
    try:
        few = [np.array(array[: min(WARM_UP_ROWS, len(array) // 2)]) for array in arrays]
        case.methods[method](*few, min(budget, WARM_UP_BUDGET))
    except (RuntimeError, ValueError) as error:
        out.send(f"{type(error).__name__}: {error}")
        return
    if case.extra:  # pages of a mapped file count as resident, so they are all brought in first
        for array in arrays:
            for start in range(0, len(array), 65536):
                array[start : start + 65536].max()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(case.repeats):
        rows = case.methods[method](*arrays, budget)
    seconds, cpu = (time.perf_counter() - start_s) / case.repeats, (time.process_time() - cpu_s) / case.repeats
    out.send((seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, rows))
