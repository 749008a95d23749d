"""How fast work goes and what memory it takes, where a store has not measured it; each with where the number is from.

Seconds are those of one core of an x86-64 server, unless a line says otherwise. docs/scale.md compares what follows
from them with runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Without a measurement: 58 MiB of gzip in 5.7 s; a million vectors into cells in 56 s; 262,858 rows against nine sets
# at 73,000 rows/s (docs/performance.md); vectors of 384 dimensions whitened at 17,000 rows/s.
READ_BYTES_PER_S = 10e6
ROWS_PER_S: Mapping[str, float] = {
    "postprocess": 17_000.0,
    "index": 18_000.0,
    "decontaminate": 73_000.0,
    # benchmarks/scale.py --rows 1000000, of one core: own vectors, files, the snapshot, what a recipe takes beside its
    # steps, the report.
    "embed": 150_000.0,
    "ingest": 80_000.0,
    "snapshot": 900_000.0,
    "select": 280_000.0,
    "report": 130_000.0,
}
# Bytes that a process holds for each row, beside `BASE_BYTES`: benchmarks/scale.py --rows 1000000 less --rows 20000.
# Ids and what goes with them are in memory; texts and vectors are read in blocks or mapped.
BYTES_PER_ROW: Mapping[str, int] = {"snapshot": 180, "embed": 400, "select": 270, "report": 100}
BASE_BYTES = 300e6
# Of a process that only works on shards: what it imports and a block.
WORKER_BYTES = 400e6
# 10 Gbit/s, to the path that all share.
NETWORK_BYTES_PER_S = 1.25e9
# What a pass of a model over real lengths makes of a card's peak: the goal, not yet measured on a card.
UTILISATION = 0.4
# Where neither a run nor `max_tokens` says how long texts are.
TOKENS = 256
# Multiplications and additions a second of a core, of products of vectors with cells: benchmarks/index.py, 5.5e12 in
# 70.5 s.
INDEX_OPERATIONS_PER_S = 78e9


@dataclass(frozen=True)
class Card:
    """A GPU, by its makers' data sheets: dense bfloat16 (float16 where it has no other) with float32 sums.

    Attributes:
        operations_per_s: of matrix products, at most.
        memory: bytes.
    """

    operations_per_s: float
    memory: float


CARDS: Mapping[str, Card] = {
    "t4": Card(65e12, 16e9),
    "v100": Card(125e12, 32e9),
    "a10g": Card(70e12, 24e9),
    "a100": Card(312e12, 80e9),
    "l4": Card(121e12, 24e9),
    "l40s": Card(362e12, 48e9),
    "4090": Card(165e12, 24e9),
    "h100": Card(989e12, 80e9),
    "h200": Card(989e12, 141e9),
    "b200": Card(2250e12, 180e9),
}


@dataclass(frozen=True)
class Size:
    """What a step works on: n rows of d dimensions, a budget of b, m targets."""

    rows: int
    dimension: int
    budget: int
    targets: int


@dataclass(frozen=True)
class StepRate:
    """What a step takes.

    Attributes:
        operations: of a size; multiplications and additions, as if none were saved.
        per_s: how many of them a core does in a second.
        source: the command that measured it.
        on_workers: the share that workers of a Ray cluster do, see docs/decisions/0048; none on one machine.
    """

    operations: Callable[[Size], float]
    per_s: float
    source: str
    on_workers: float = 0.0

    def seconds(self, size: Size) -> float:
        """Seconds of one core."""
        return self.operations(size) / self.per_s


def _per_target(size: Size) -> float:
    return 2.0 * size.rows * size.dimension * size.targets


def _per_pick(size: Size) -> float:
    return 2.0 * size.rows * size.dimension * size.budget


def _per_reference(size: Size) -> float:
    return 2.0 * size.rows * size.dimension * 2048


def _in_clusters(size: Size) -> float:
    """Of `semdedup` with `n_clusters: sqrt`: the clusters, then pairs within each."""
    count = math.sqrt(size.rows)
    return 2.0 * size.dimension * count * (256 * count * 15 + size.rows) + size.dimension * size.rows * count


_TARGETED = "benchmarks/targeted.py scale"
_COVERAGE = "benchmarks/coverage_steps.py --all"
STEPS: Mapping[str, StepRate] = {
    "random": StepRate(lambda size: size.rows, 2e6, "benchmarks/scale.py"),
    "rds_plus": StepRate(_per_target, 42e9, _TARGETED, 1.0),
    "rds_max": StepRate(_per_target, 36e9, _TARGETED, 1.0),
    "rds_mean": StepRate(lambda size: size.rows * size.dimension, 1.2e9, _TARGETED, 1.0),
    "betr": StepRate(_per_target, 107e9, _TARGETED),
    # As fast as products alone: where vectors lie in clusters, bounds rule out pairs and it is ten times as fast.
    "k_center": StepRate(_per_pick, 42e9, _TARGETED, 0.7),
    "kmeans_pp": StepRate(_per_pick, 4500e9, _COVERAGE),
    "facility_location": StepRate(_per_reference, 50e9, "benchmarks/recipes.py", 0.6),
    # All but the k-means of a sample, which is a tenth of it at a billion rows.
    "semdedup": StepRate(_in_clusters, 60e9, _COVERAGE, 0.9),
}


def index_operations(rows: int, dimension: int, cells: int) -> float:
    """Multiplications and additions of an index: five passes over 40 rows a cell, then each row against each cell."""
    return 2.0 * dimension * cells * (rows + 200.0 * cells)
