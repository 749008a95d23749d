"""Steps and kernels on a CUDA card beside the host, on the same vectors in one run; the rows must be the same.

    python benchmarks/cuda.py                                  # 1,000,000 rows of 384 and of 4096 dimensions
    python benchmarks/cuda.py --rows 100000 --dimensions 384 --device cpu

Each is called twice and the second call counts: the first compiles, and copies the vectors to the card, which has a row
of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from selection import ArrayVectors, Pool, Targets, Vectors, select
from selection.filters.semdedup import SemDedup
from selection.kernels.assign import most_similar_centre
from selection.vectors import TensorVectors

Call = Callable[[Vectors], Any]


def make_vectors(n: int, d: int, seed: int = 0) -> Any:
    """(n, d) float16 of unit length: 200 clusters, some far larger than others, and noise."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((200, d), np.float32)
    share = 1 / np.arange(1, 201)
    out = np.empty((n, d), np.float16)
    for start in range(0, n, 8192):
        size = min(8192, n - start)
        x = centres[rng.choice(200, size, p=share / share.sum())] + 0.75 * rng.standard_normal((size, d), np.float32)
        out[start : start + size] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return out


def cases(vectors: Any, budget: int) -> dict[str, Call]:
    """Name -> what to time."""
    sample = vectors[:: max(1, len(vectors) // 1000)].astype(np.float32)
    targets = Targets(sample[:280], np.zeros(280, np.int64), ("targets",))

    def step(spec: Any) -> Call:
        return lambda held: select([spec], Pool(vectors=held, targets=targets), budget=budget).rows

    return {
        f"k_center, budget {budget}": step({"k_center": {"first": 0}}),
        f"kmeans_pp, budget {budget}": step("kmeans_pp"),
        f"rds_plus, 280 targets, budget {budget}": step("rds_plus"),
        f"rds_max, 280 targets, budget {budget}": step("rds_max"),
        f"facility_location, 2048 references, budget {budget // 10}": lambda held: (
            select(
                [{"facility_location": {"mode": "reference", "n_ref": 2048}}], Pool(vectors=held), budget=budget // 10
            ).rows
        ),
        "semdedup, eps 0.3": lambda held: (
            SemDedup(eps=0.3).duplicates(Pool(vectors=held), rng=np.random.default_rng(0)).row
        ),
        f"nearest of {len(sample)} centres": lambda held: most_similar_centre(held, sample).place,
        f"10 nearest of {len(sample)} queries": lambda held: held.nearest(sample, 10)[1],
    }


def seconds(call: Call, held: Vectors) -> float:
    """What a call takes, all work on the device included."""
    import torch

    began = time.perf_counter()
    call(held)
    if held.device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> int:
    """Print a table for each number of dimensions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384, 4096])
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--device", default="cuda:0", help="cpu runs the card's bodies on the host")
    parser.add_argument("--no-host", action="store_true", help="time the card only")
    args = parser.parse_args()
    for d in args.dimensions:
        vectors = make_vectors(args.rows, d)
        host = ArrayVectors(vectors)
        on_device = TensorVectors(host, args.device)
        copied = seconds(lambda held: held.squares(), on_device)  # type: ignore[attr-defined]
        print(f"\n{args.rows} x {d} float16\n\n| | host s | {args.device} s | same rows |\n|---|---|---|---|")
        print(f"| copy to the device | | {copied:.2f} | |")
        for name, call in cases(vectors, args.budget).items():
            selection = call(on_device)
            taken = seconds(call, on_device)
            beside, same = "", ""
            if not args.no_host:
                same = "yes" if np.array_equal(call(host), selection) else "NO"
                beside = f"{seconds(call, host):.2f}"
            print(f"| {name} | {beside} | {taken:.2f} | {same} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
