"""Coverage selectors against their peers, on the same vectors in one run.

    python benchmarks/coverage_steps.py                 # all cases but the large one
    python benchmarks/coverage_steps.py k_center kmeans_pp_1M --threads 1 2

Peers come from the extra `bench`; one that is not installed is left out and said so. Every method runs in a process of
its own, after a warm-up on a small pool (which compiles), and is stopped after --limit seconds. "faster" compares CPU
seconds with the row that the case names, on one thread where it has the choice, since other work on the machine disturbs
these least; memory is the peak above the loaded vectors.

A case is a function decorated with `case`: it gives its methods, and what to say of the rows that one of them chose.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from selection import ArrayVectors, Pool, select
from selection.metrics import coverage

Array = npt.NDArray[Any]
Method = Callable[[Array, int], Array]


@dataclass(frozen=True)
class Case:
    """What is measured.

    Attributes:
        methods: name -> function of (vectors, budget) that gives rows; "winnow ..." runs with every number of threads.
        peer: the method that "faster" compares with.
        note: a few words on the rows of a method, given (vectors, rows, rows of the peer).
    """

    rows: int
    budget: int
    dimensions: int
    methods: dict[str, Method]
    peer: str
    note: Callable[[Array, Array, Array | None], str] = field(default=lambda *_: "")
    spectrum: float = 0.0
    modules: dict[str, str] = field(default_factory=dict)
    extra: bool = False


def winnow(step: str, **options: Any) -> Method:
    """One step of winnow, as a method to measure."""

    def run(vectors: Array, budget: int) -> Array:
        pool = Pool(vectors=ArrayVectors(vectors))
        return np.asarray(select([{step: options}], pool, budget=budget).rows)

    return run


# The peers of k_center begin with row 0, as "first" below.


def float64_greedy(vectors: Array, budget: int) -> Array:
    """The definition: float64 differences, squared and summed."""
    nearest = np.full(len(vectors), np.inf)
    rows = [0]
    wide = vectors.astype(np.float64)
    for _ in range(budget - 1):
        np.minimum(nearest, ((wide - wide[rows[-1]]) ** 2).sum(axis=1), out=nearest)
        rows.append(int(nearest.argmax()))
    return np.array(rows)


def numpy_greedy(vectors: Array, budget: int) -> Array:
    """One matrix-vector product a pick."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf, np.float32)
    rows = [0]
    for _ in range(budget - 1):
        centre = rows[-1]
        np.minimum(nearest, squares + squares[centre] - 2 * (vectors @ vectors[centre]), out=nearest)
        rows.append(int(nearest.argmax()))
    return np.array(rows)


def numba_greedy(vectors: Array, budget: int) -> Array:
    """The same in numba: distance and minimum in one loop over the rows."""
    return np.asarray(_numba_loop()(vectors, budget))


@functools.cache
def _numba_loop() -> Callable[[Array, int], Array]:
    from numba import njit, prange

    @njit(parallel=True, fastmath=True)
    def greedy(vectors, budget):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        n, d = vectors.shape
        nearest = np.full(n, np.inf, np.float32)
        rows = np.zeros(budget, np.int64)
        for t in range(1, budget):
            centre = vectors[rows[t - 1]]
            for i in prange(n):
                total = np.float32(0)
                for f in range(d):
                    difference = vectors[i, f] - centre[f]
                    total += difference * difference
                nearest[i] = min(nearest[i], total)
            rows[t] = np.argmax(nearest)
        return rows

    return greedy  # type: ignore[no-any-return]


def quickfps(vectors: Array, budget: int) -> Array:
    """torch-quickfps: exact, buckets of a k-d tree."""
    import torch
    import torch_quickfps  # type: ignore[import-not-found,unused-ignore]

    x = torch.from_numpy(vectors)[None]
    return torch_quickfps.sample_idx(x, budget, start_idx=0)[0].numpy()  # type: ignore[no-any-return]


def fpsample_exact(vectors: Array, budget: int) -> Array:
    """fpsample: exact, plain."""
    import fpsample  # type: ignore[import-not-found,unused-ignore]

    return np.asarray(fpsample.fps_sampling(vectors, budget, start_idx=0))


def fpsample_kdline(vectors: Array, budget: int) -> Array:
    """fpsample: exact, buckets of a k-d line."""
    import fpsample

    return np.asarray(fpsample.bucket_fps_kdline_sampling(vectors, budget, h=7, start_idx=0))


def activeml(vectors: Array, budget: int) -> Array:
    """scikit-activeml's CoreSet, with row 0 labelled."""
    from skactiveml.pool import CoreSet  # type: ignore[import-not-found,unused-ignore]

    labels = np.full(len(vectors), np.nan)
    labels[0] = 0
    query = CoreSet(random_state=0).query(vectors, labels, batch_size=budget - 1)
    return np.concatenate([[0], np.asarray(query)])


def sklearn_seeding(trials: int | None) -> Method:
    """scikit-learn's k-means++; `trials` None is its default, 2 + ln(budget)."""

    def run(vectors: Array, budget: int) -> Array:
        from sklearn.cluster import kmeans_plusplus

        return np.asarray(kmeans_plusplus(vectors, budget, random_state=0, n_local_trials=trials)[1])

    return run


def apricot_lazy(vectors: Array, budget: int) -> Array:
    """Apricot's lazy greedy on the matrix of (1 + cosine) / 2, which it holds in float64."""
    from apricot import FacilityLocationSelection  # type: ignore[import-not-found,unused-ignore]

    similar = (1 + vectors @ vectors.T) / 2
    return np.asarray(FacilityLocationSelection(budget, metric="precomputed", optimizer="lazy").fit(similar).ranking)


def value_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """The mean over the pool of the highest (1 + cosine) / 2 to a picked row."""
    return f"mean similarity {coverage(vectors, rows).mean_similarity:.6f}"


def cost(vectors: Array, rows: Array) -> tuple[float, float]:
    """The sum of squared distances to the nearest row, and the largest distance."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    total, largest = 0.0, 0.0
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096]
        nearest = squares[rows] - 2 * (block @ vectors[rows].T)
        nearest = np.maximum(nearest.min(axis=1) + squares[start : start + 4096], 0)
        total += float(nearest.sum(dtype=np.float64))
        largest = max(largest, float(nearest.max()))
    return total, largest**0.5


def radius_note(vectors: Array, rows: Array, peer: Array | None) -> str:
    """How far the picks agree with the peer's, and the radius."""
    same = "" if peer is None else f"first {int(np.append(peer != rows, True).argmax())} as the peer's, "
    return f"{same}radius {cost(vectors, rows)[1]:.5f}"


def greedy_note(vectors: Array, rows: Array, peer: Array | None) -> str:
    """Also the smallest share of the largest distance that a pick had, found by a plain pass over the rows for each."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    nearest = np.full(len(vectors), np.inf, np.float32)
    least = 1.0
    for centre, pick in itertools.pairwise(rows):
        np.minimum(nearest, squares + squares[centre] - 2 * (vectors @ vectors[centre]), out=nearest)
        least = min(least, float(np.sqrt(nearest[pick] / nearest.max())))
    return f"{radius_note(vectors, rows, peer)}, picks >= {least:.7f} of the farthest"


def cost_note(vectors: Array, rows: Array, _peer: Array | None) -> str:
    """The k-means cost."""
    return f"cost {cost(vectors, rows)[0]:.1f}"


K_CENTER = winnow("k_center", first=0)
KMEANS_PP = winnow("kmeans_pp", first=0)
TREES: dict[str, Method] = {
    "torch-quickfps": quickfps,
    "fpsample": fpsample_exact,
    "fpsample k-d line": fpsample_kdline,
}
TREE_MODULES = {"torch-quickfps": "torch_quickfps", "fpsample": "fpsample", "fpsample k-d line": "fpsample"}
PLAIN: dict[str, Method] = {"numpy": numpy_greedy, "numba": numba_greedy}

# Another step adds its cases here.
CASES: dict[str, Case] = {
    "k_center_5k": Case(
        5_000, 500, 384, {"winnow k_center": K_CENTER, "float64": float64_greedy}, "float64", greedy_note
    ),
    "k_center": Case(
        100_000, 1000, 384, {"winnow k_center": K_CENTER, **PLAIN, **TREES}, "numpy", greedy_note, modules=TREE_MODULES
    ),
    "k_center_spectrum": Case(
        100_000, 1000, 384, {"winnow k_center": K_CENTER, **PLAIN}, "numpy", radius_note, spectrum=0.7
    ),
    "k_center_low": Case(
        100_000, 1000, 3, {"winnow k_center": K_CENTER, **PLAIN, **TREES}, "numpy", radius_note, modules=TREE_MODULES
    ),
    "k_center_10k": Case(
        10_000, 1000, 384, {"winnow k_center": K_CENTER, "scikit-activeml": activeml}, "scikit-activeml", radius_note,
        modules={"scikit-activeml": "skactiveml"},
    ),
    "kmeans_pp": Case(
        50_000, 1000, 384, {"winnow kmeans_pp": KMEANS_PP, "scikit-learn, 1 trial": sklearn_seeding(1)},
        "scikit-learn, 1 trial", cost_note,
    ),
    "kmeans_pp_trials": Case(
        10_000, 1000, 384,
        {"winnow kmeans_pp": KMEANS_PP, "winnow kmeans_pp, 8 trials": winnow("kmeans_pp", first=0, local_trials=8),
         "scikit-learn, 8 trials": sklearn_seeding(None)},
        "scikit-learn, 8 trials", cost_note,
    ),
    "facility_location": Case(
        10_000, 1000, 384, {"winnow facility_location": winnow("facility_location"), "apricot": apricot_lazy}, "apricot",
        value_note, modules={"apricot": "apricot"},
    ),
    "facility_location_1M": Case(
        1_000_000, 1000, 384, {"winnow, 2048 references": winnow("facility_location", mode="reference", n_ref=2048)}, "",
        extra=True,
    ),
    "k_center_1M": Case(1_000_000, 10_000, 384, {"winnow k_center": K_CENTER}, "", spectrum=0.7, extra=True),
    "kmeans_pp_1M": Case(1_000_000, 10_000, 384, {"winnow kmeans_pp": KMEANS_PP}, "", spectrum=0.7, extra=True),
}  # fmt: skip


def make_vectors(path: Path, case: Case) -> None:
    """Unit vectors in 200 clusters of very different sizes; feature f has a spread of f ** -spectrum."""
    rng = np.random.default_rng(0)
    spread = np.arange(1, case.dimensions + 1, dtype=np.float32) ** -case.spectrum
    centres = rng.standard_normal((200, case.dimensions)).astype(np.float32)
    share = 1 / np.arange(1, 201)
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (case.rows, case.dimensions))
    for start in range(0, case.rows, 16384):
        which = rng.choice(200, size=min(16384, case.rows - start), p=share / share.sum())
        noise = rng.standard_normal((len(which), case.dimensions), dtype=np.float32)
        block = spread * (centres[which] + 0.75 * noise)
        vectors[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)


def measure(name: str, method: str, path: Path, threads: int, out: Connection) -> None:
    """Send seconds, CPU seconds, peak MiB above the loaded vectors, and the rows; or why the method cannot."""
    import numba

    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    case = CASES[name]
    vectors = np.load(path, mmap_mode="r" if case.extra else None)
    try:
        case.methods[method](np.array(vectors[:3000]), 100)
    except (RuntimeError, ValueError) as error:
        out.send(f"{type(error).__name__}: {error}")
        return
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if case.extra:  # memory-mapped: pages of the file count as resident, so they are all brought in first
        for start in range(0, len(vectors), 65536):
            vectors[start : start + 65536].max()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_s, cpu_s = time.perf_counter(), time.process_time()
    rows = case.methods[method](vectors, case.budget)
    seconds, cpu = time.perf_counter() - start_s, time.process_time() - cpu_s
    out.send((seconds, cpu, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, rows))


def run(name: str, method: str, path: Path, threads: int, limit: float) -> tuple[float, float, float, Array] | str:
    """`measure` in a process of its own."""
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)))
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(name, method, path, threads, there))
    process.start()
    there.close()
    result = f"stopped after {limit:.0f} s"
    if here.poll(limit):
        try:
            result = here.recv()
        except EOFError:
            result = "died"
    process.kill()
    process.join()
    return result


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=", ".join(CASES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--limit", type=float, default=180, help="seconds after which a method is stopped")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for name in options.cases or [name for name, case in CASES.items() if not case.extra]:
        case = CASES[name]
        print(f"\n{name}: {case.rows} rows x {case.dimensions} float32, budget {case.budget}")
        print(f"{'method':<28}{'threads':>8}{'seconds':>9}{'CPU s':>9}{'faster':>9}{'peak MiB':>10}  rows")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.npy"
            make_vectors(path, case)
            print_case(name, path, options.threads, options.limit)
    return 0


def print_case(name: str, path: Path, threads: list[int], limit: float) -> None:
    """Measure and print the methods of a case; the peer first, so that every other can be compared with it."""
    case = CASES[name]
    peer_cpu: float | None = None
    peer_rows: Array | None = None
    vectors = np.asarray(np.load(path, mmap_mode="r"))
    for method in sorted(case.methods, key=lambda m: m != case.peer):
        module = case.modules.get(method)
        if module and importlib.util.find_spec(module) is None:
            print(f"{method:<28}  not installed")
            continue
        for count in threads if method.startswith("winnow") else threads[:1]:
            result = run(name, method, path, count, limit)
            if isinstance(result, str):
                print(f"{method:<28}{count:>8}  {result}", flush=True)
                continue
            seconds, cpu, peak, rows = result
            ratio = "" if peer_cpu is None or count != threads[0] else f"{peer_cpu / cpu:.1f}x"
            note = case.note(vectors, rows, peer_rows) if count == threads[0] else ""
            print(f"{method:<28}{count:>8}{seconds:>9.2f}{cpu:>9.2f}{ratio:>9}{peak:>10.0f}  {note}", flush=True)
            if method == case.peer:
                peer_cpu, peer_rows = cpu, rows


if __name__ == "__main__":
    sys.exit(main())
