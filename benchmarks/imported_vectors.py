"""How fast vectors of a user's files are taken in: `python benchmarks/imported_vectors.py [--rows N] [--dtype float16]`.

Beside it the plain way: numpy reads the array, makes each vector of unit length and writes one float16 array, without
keys, checksums or a flush to disk. Each runs in a process of its own on the same file.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from ingest import measured

DIMENSIONS = 384

WINNOW = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from storage.store import Store
from storage.vectors.imported import VectorFile, files_dimension, import_vectors
from storage.vectors.segments import missing_ids
folder = Path(sys.argv[1])

class Rows:
    name = "pool"
    occurrences = np.load(folder / "pool_ids.npy")
    ids = np.sort(occurrences)

    def occurrence_keys(self):
        return self.occurrences, pa.chunked_array([pa.array(f"row-{i}" for i in range(len(self.ids)))])

store, files, rows = Store(folder / "store"), [VectorFile(str(folder / "vectors.npy"))], Rows()
files_dimension(store, files)
result = import_vectors(store, files, rows)
print(f"{result.n_new:,} of {files_dimension(store, files)},", len(missing_ids(store, result.encoder, rows.ids)), "missing")
"""

PLAIN = """
import sys
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
vectors = np.load(folder / "vectors.npy", mmap_mode="r")
out = np.lib.format.open_memmap(folder / "plain.npy", "w+", np.float16, vectors.shape)
for start in range(0, len(vectors), 4096):
    block = np.asarray(vectors[start : start + 4096], np.float32)
    out[start : start + 4096] = block / np.linalg.norm(block, axis=1, keepdims=True)
print(f"{len(out):,} of {out.shape[1]}")
"""


def make_files(folder: Path, rows: int, dtype: str) -> None:
    """An array of vectors with its file of keys, and the ids that the rows have in the pool."""
    rng = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", dtype, (rows, DIMENSIONS))
    for start in range(0, rows, 65536):
        block = vectors[start : start + 65536]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
    (folder / "vectors.ids.txt").write_text("".join(f"row-{i}\n" for i in range(rows)), "utf-8")
    raw = rng.integers(1, 256, (rows, 16), dtype=np.uint8)
    np.save(folder / "pool_ids.npy", raw.view("S16").ravel())


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--dtype", choices=("float16", "float32"), default="float32")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder, options.rows, options.dtype)
        print(f"{options.rows:,} x {DIMENSIONS} {options.dtype}")
        print(f"{'':<34}{'wall s':>8}{'cpu s':>8}{'peak MiB':>10}   vectors")
        for what, code in (
            ("winnow: take in", WINNOW),
            ("winnow: again, nothing new", WINNOW),
            ("plain numpy, no keys, no checksums", PLAIN),
        ):
            counts, wall, processor, peak = measured(code, folder)
            print(f"{what:<34}{wall:>8.1f}{processor:>8.1f}{peak:>10.0f}   {counts}", flush=True)


if __name__ == "__main__":
    main()
