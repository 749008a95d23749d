"""The search index: the time to build one, beside FAISS alone, and what a night adds to the store.

    python benchmarks/index.py [--rows 1000000] [--dimensions 384] [--nights 50] [--night-rows 100000] [--store DIR]

The vectors are synthetic: unit float16, normal around centers in as many clusters as the square root of the rows, with
variances that fall with the dimension as those of text encoders do. FAISS alone trains as its IVF does by default (10
passes over 40 rows a cell) and adds all rows. Both find neighbors with the same number of cells searched; recall@10 is
of 1,000 rows. CPU seconds are those of all threads.

A night adds 1 % of the first night's rows. "whole" is what each night takes where every snapshot has an index of its
own, as winnow 0.2 kept them: the file of FAISS with 24 bytes a row of ids and rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.ids import Ids
from storage.store import Store
from storage.vectors.index import build_index, open_index
from storage.vectors.index_parts import load_faiss
from storage.vectors.segments import StoredVectors, commit_segment, nearest_in

ENCODER, BLOCK, SAMPLE = "synthetic", 50_000, 1000


def synthetic(rows: int, dimensions: int) -> Iterator[npt.NDArray[np.float32]]:
    """Unit vectors, a block at a time."""
    rng = np.random.default_rng(0)
    scale = (np.arange(1, dimensions + 1) ** -0.5).astype(np.float32)
    centers = rng.standard_normal((round(rows**0.5), dimensions), dtype=np.float32)
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        noise = rng.standard_normal((size, dimensions), dtype=np.float32)
        block = (centers[rng.integers(0, len(centers), size)] + 1.5 * noise) * scale
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def make_store(folder: Path, rows: int, dimensions: int) -> tuple[Store, Ids]:
    """A store of the vectors, and their ids, ascending; what is there stays."""
    store = Store(folder)
    ids = np.sort(np.frombuffer(np.random.default_rng(2).bytes(16 * rows), "S16"))
    if not store.committed("vectors"):
        order = np.random.default_rng(3).permutation(rows)
        for number, block in enumerate(synthetic(rows, dimensions)):
            commit_segment(store, ENCODER, ids[order[number * BLOCK : (number + 1) * BLOCK]], block, {})
    return store, ids


def snapshot(store: Store, name: str, ids: Ids) -> StoredVectors:
    """The vectors of a snapshot of some ids."""
    if not store.has("records", "snapshots", name):
        with store.committing("records", "snapshots", name) as path:
            np.save(path / "ids.npy", ids)
    return StoredVectors(store, ENCODER, ids)


@contextmanager
def clocked(name: str) -> Iterator[None]:
    """Print how long a block takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(f"| {name} | {time.perf_counter() - wall:.1f} | {time.process_time() - cpu:.1f} |", flush=True)


def plain(vectors: StoredVectors, cells: int) -> Any:
    """What FAISS builds by itself of the same vectors."""
    faiss = load_faiss()
    index = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    index.train(vectors.take(np.sort(np.random.default_rng(0).choice(len(vectors.ids), 40 * cells))).astype(np.float32))
    for _, block in vectors.blocks():
        index.add(np.ascontiguousarray(block, np.float32))
    return index


def recall(similarity: npt.NDArray[Any], exact: npt.NDArray[Any]) -> float:
    """Of the 10 nearest others of each row."""
    return float((similarity[:, 1:] >= exact[:, -1:] - 1e-5).mean())


def build(folder: Path, rows: int, dimensions: int) -> None:
    """Time to build, and recall."""
    store, ids = make_store(folder, rows, dimensions)
    vectors = snapshot(store, f"all-{time.time_ns()}", ids)
    cells = round(4 * rows**0.5)
    print(f"{rows:,} x {dimensions}, {cells:,} cells\n\n| | seconds | CPU seconds |\n|---|---|---|")
    with clocked("winnow: train, add, write"):
        record = build_index(store, vectors, snapshot="timed", kind="ivf", nprobe=16, recall_sample=0)
    with clocked("winnow: the same rows with another nprobe and its recall"):
        tuned = build_index(store, vectors, snapshot="timed", kind="ivf")
    with clocked("FAISS alone: train, add"):
        index = plain(vectors, cells)
    assert record is not None
    assert tuned is not None
    rows_asked = np.random.default_rng(5).choice(len(ids), SAMPLE, replace=False)
    queries = vectors.take(rows_asked).astype(np.float32)
    exact = nearest_in(vectors.blocks(), queries, 11)[0]
    opened = open_index(store, record.index, vectors=vectors)
    print("\n| cells searched | recall@10 winnow | FAISS alone |\n|---|---|---|")
    for nprobe in (8, 16, 32, 64):
        opened.nprobe = nprobe
        params = load_faiss().SearchParametersIVF(nprobe=nprobe)
        ours, theirs = opened.search(queries, 11)[0], index.search(queries, 11, params=params)[0]
        print(f"| {nprobe} | {recall(ours, exact):.3f} | {recall(theirs, exact):.3f} |")
    print(f"by itself: nprobe {tuned.nprobe}, recall@10 {tuned.recall_at_10:.3f}\n")


def nights(folder: Path, rows: int, dimensions: int, count: int) -> None:
    """Bytes that nights add to the store."""
    growth = rows // 100
    store, ids = make_store(folder, rows + count * growth, dimensions)
    arrival = np.random.default_rng(4).permutation(len(ids))
    added = []
    for night in range(count + 1):
        vectors = snapshot(store, f"night-{night}", ids[np.sort(arrival[: rows + night * growth])])
        before = size_of(store)
        record = build_index(store, vectors, snapshot=f"night-{night}", kind="ivf", nprobe=16, recall_sample=100)
        assert record is not None
        added.append((size_of(store) - before, len(record.parts), whole_bytes(len(vectors.ids), dimensions)))
    print(f"{rows:,} x {dimensions}, {growth:,} rows a night\n\n| nights | parts | MB | whole, MB |\n|---|---|---|---|")
    for first, last in ((0, 0), (1, 1), (1, count // 2), (1, count)):
        part = added[first : last + 1]
        ours, whole = (sum(each[column] for each in part) / 1e6 for column in (0, 2))
        print(f"| {first} to {last} | {part[-1][1]} | {ours:,.1f} | {whole:,.1f} |")


def whole_bytes(rows: int, dimensions: int) -> int:
    """Of an index that holds all its rows itself."""
    cells = round(4 * rows**0.5)
    return rows * (2 * dimensions + 8 + 24) + cells * (4 * dimensions + 8)


def size_of(store: Store) -> int:
    """Bytes of all indexes and parts."""
    roots = (store.path("indexes"), store.path("index_parts"))
    return sum(path.stat().st_size for root in roots for path in root.rglob("*") if path.is_file())


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--nights", type=int, default=50)
    parser.add_argument("--night-rows", type=int, default=100_000)
    parser.add_argument("--store", type=Path, help="a folder to keep the vectors and indexes in")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.rows:
            build((given.store or Path(folder)) / "build", given.rows, given.dimensions)
        if given.nights:
            nights((given.store or Path(folder)) / "nights", given.night_rows, given.dimensions, given.nights)


if __name__ == "__main__":
    main()
