"""What it costs to compare stored vectors with their checksums: `python benchmarks/checksums.py --rows 1000000`.

Writes vectors of 384 dimensions (float16) in segments of 16,384 rows to a folder that is removed in the end, and gives
the CPU seconds of: committing the segments, opening all vectors for the first time in a process, opening them again,
the same for segments of an earlier version, which have a checksum of another kind, and of reading all rows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from storage import checksums
from storage.ids import from_bytes
from storage.store import Store
from storage.vectors import segments
from storage.vectors.segments import StoredVectors, commit_segment, normalise, segment_folders

DIMENSION, SEGMENT_ROWS = 384, 16_384


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        rng = np.random.default_rng(0)
        ids = np.sort(from_bytes(rng.bytes(16) for _ in range(rows)))
        seconds = 0.0
        for start in range(0, rows, SEGMENT_ROWS):
            some = ids[start : start + SEGMENT_ROWS]
            unit, _ = normalise(rng.normal(size=(len(some), DIMENSION)).astype(np.float32))
            began = time.process_time()
            commit_segment(store, "e", some, unit, {})
            seconds += time.process_time() - began
        print(f"{rows:,} vectors of {DIMENSION} dimensions, {rows * DIMENSION * 2 / 1e6:,.0f} MB")
        print(f"{'commit all segments':<50} {seconds:8.2f} CPU s")
        for what in ("open, first time in a process", "open again"):
            print(f"{what:<50} {_opened_in(store, ids):8.2f} CPU s")
        for segment in segment_folders(store, "e"):
            (segment / checksums.FILE).unlink()
        print(f"{'open, first time, segments of an earlier version':<50} {_opened_in(store, ids):8.2f} CPU s")
        print(f"{'open again':<50} {_opened_in(store, ids):8.2f} CPU s")
        print(f"{'read all blocks (for comparison)':<50} {_read_in(StoredVectors(store, 'e', ids)):8.2f} CPU s")


def _opened_in(store: Store, ids: np.ndarray) -> float:
    began = time.process_time()
    segments.StoredVectors(store, "e", ids)
    return time.process_time() - began


def _read_in(vectors: StoredVectors) -> float:
    began = time.process_time()
    for _, block in vectors.blocks():
        np.asarray(block, np.float32).sum()
    return time.process_time() - began


if __name__ == "__main__":
    main()
