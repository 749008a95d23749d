"""AnchorAL over a large pool: the time and memory of one round, from the stored vectors to the batch.

    python benchmarks/anchors.py [--rows 100000] [--rounds 5] [--store DIR]

The pool is synthetic: unit float16 vectors of 384 dimensions in 1,000 clusters, of which a hundredth are the rare
class. It is committed to a store of its own and indexed, as `winnow run` does; --store keeps both for the next time. A
round opens the vectors, takes what is labelled so far, and draws 100 rows by `[anchors, entropy]`; a linear model's
probabilities are computed for the rows that the filter leaves. The model is fitted (class means) and the batch labelled
outside of the clock.

"exact" is the same recipe without the index, "whole pool" is entropy over every row. Memory is the peak of anonymous
memory above what the process held before the round; pages of the mapped vectors and index come on top, but can be given
up at any time.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from selection import Pool, select
from selection.vectors import exact
from storage.ids import Ids, hash_keys
from storage.store import Store
from storage.vectors.index import build_index, open_vectors, records
from storage.vectors.segments import StoredVectors, commit_segment

Array = npt.NDArray[Any]
DIMENSIONS, CLUSTERS, RARE, BATCH, LABELLED = 384, 1000, 10, 100, 100
ENCODER, SNAPSHOT = "synthetic", "all"


@dataclass
class Model:
    """Probabilities of a linear model, computed when they are asked for."""

    vectors: StoredVectors
    weight: Array
    bias: float
    evaluated: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(n, 2)."""
        return self.vectors.shape[0], 2

    def take(self, rows: Array) -> Array:
        """(rows, 2) float32."""
        self.evaluated += len(rows)
        return self._of(self.vectors.take(rows))

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """All of them."""
        self.evaluated += self.vectors.shape[0]
        for rows, block in self.vectors.blocks():
            yield rows, self._of(block)

    def _of(self, vectors: Array) -> Array:
        rare = 1 / (1 + np.exp(-(vectors.astype(np.float32) @ self.weight + self.bias)))
        return np.stack([1 - rare, rare], axis=1)


@dataclass
class Watched:
    """Peak anonymous memory of this process while a block runs, above what there was before; and the seconds it took."""

    seconds: float = 0.0
    mib: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._before = _anonymous_mib()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.mib = max(self.mib, _anonymous_mib() - self._before)


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def cluster_of(rows: int) -> Array:
    """(rows,) the cluster of each; a hundredth of the rows are in the first, rare ones."""
    rng = np.random.default_rng(1)
    rare = rng.random(rows) < 0.01
    return np.where(rare, rng.integers(0, RARE, rows), rng.integers(RARE, CLUSTERS, rows))


def make_store(folder: Path, rows: int) -> Store:
    """The vectors and their index, unless they are there."""
    store = Store(folder)
    ids = ids_of(rows)
    if records(store, ENCODER):
        return store
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIMENSIONS)).astype(np.float32)
    cluster = cluster_of(rows)
    for start in range(0, rows, 50_000):
        part = slice(start, min(start + 50_000, rows))
        block = centres[cluster[part]] + 1.5 * rng.standard_normal((len(cluster[part]), DIMENSIONS), dtype=np.float32)
        commit_segment(store, ENCODER, ids[part], block / np.linalg.norm(block, axis=1, keepdims=True), {})
    with store.committing("records", "snapshots", SNAPSHOT) as path:
        np.save(path / "ids.npy", ids)
    vectors = StoredVectors(store, ENCODER, ids)
    with Watched() as watched:
        built = build_index(store, vectors, snapshot=SNAPSHOT, kind="ivf", recall_sample=200)
    print(
        f"index: {built.cells:,} cells, nprobe {built.nprobe}, recall@10 {built.recall_at_10:.3f}; "
        f"built in {watched.seconds:.0f} s, {watched.mib:,.0f} MiB"
    )
    return store


def ids_of(rows: int) -> Ids:
    """Ascending ids; the cluster of a row does not follow from its place."""
    return np.sort(np.frombuffer(np.random.default_rng(2).bytes(16 * rows), "S16"))


def fitted(vectors: StoredVectors, labels: Array) -> Model:
    """The difference of the class means, which is enough to tell clusters apart."""
    means = [vectors.take(np.flatnonzero(labels == label)).astype(np.float32).mean(axis=0) for label in (0, 1)]
    weight = 20 * (means[1] - means[0])
    return Model(vectors, weight, float(-weight @ (means[0] + means[1]) / 2))


def run(store: Store, rows: int, name: str, *, indexed: bool, steps: list[Any], rounds: int) -> None:
    """Draw some rounds and print a line for each."""
    ids, truth = ids_of(rows), (cluster_of(rows) < RARE).astype(np.int64)
    keys = hash_keys(ids)
    rng = np.random.default_rng(3)
    first = np.concatenate([rng.choice(np.flatnonzero(truth == c), n) for c, n in ((0, LABELLED - 5), (1, 5))])
    labels = np.full(rows, -1)
    labels[first] = truth[first]
    index = records(store, ENCODER)[-1].index if indexed else None
    for number in range(rounds):
        model = fitted(StoredVectors(store, ENCODER, ids), labels)
        with Watched() as watched:
            vectors = open_vectors(store, ENCODER, ids, index=index)
            opened = time.perf_counter()
            pool = Pool(
                vectors=vectors if indexed else exact(vectors),
                probabilities=model,
                labels=labels,
                keys=keys,
                already_selected=np.flatnonzero(labels >= 0),
            )
            began = time.perf_counter()
            picked = select(steps, pool, budget=BATCH, round=number)
            ended = time.perf_counter()
        labels[picked.rows] = truth[picked.rows]
        print(
            f"| {name} | {rows:,} | {number} | {int((labels >= 0).sum()) - BATCH} | {watched.seconds:.2f} | "
            f"{watched.seconds - (ended - opened):.2f} | {ended - began:.2f} | {watched.mib:,.0f} | {model.evaluated:,} | "
            f"{int(truth[picked.rows].sum())} |"
        )


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", type=Path, help="a folder to keep the vectors and the index in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        store = make_store(given.store or Path(scratch) / "store", given.rows)
        # Compiles, and opens what numba keeps.
        small = Pool(
            vectors=np.eye(8, dtype=np.float32), labels=np.arange(8) % 3 - 1, probabilities=np.full((8, 2), 0.5)
        )
        select([{"anchors": {"n_anchors": 1, "rows": 1}}, "entropy"], small, budget=1)
        print(
            "| recipe | pool | round | labelled | round, s | open, s | select, s | MiB | probabilities | rare in 100 |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|")
        run(store, given.rows, "anchors", indexed=True, steps=["anchors", "entropy"], rounds=given.rounds)
        run(store, given.rows, "anchors, exact", indexed=False, steps=["anchors", "entropy"], rounds=2)
        run(store, given.rows, "whole pool", indexed=False, steps=["entropy"], rounds=2)


if __name__ == "__main__":
    main()
