"""Parts of an index: `index_parts/<id>/{part.faiss, keys.npy, part.json}`, written once and shared by the indexes that
grow from it.

The first part of an index is its base. It also holds `cells.faiss`: the trained cells, without rows. The other parts
hold rows that came later, in the cells of their base.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selection.types import Floats, Rows
from storage.checksums import verified
from storage.damage import committed_whole, read_record, set_aside
from storage.errors import MissingExtra, StoreDamaged
from storage.ids import Ids
from storage.store import Store, read_array, utc_now, write_json
from storage.vectors.segments import BLOCK_ROWS, StoredVectors

PARTS = "index_parts"

# Told the task, how much of it is done and how much there is, in rows.
Progress = Callable[[str, int, int], None]

# Training: rows a cell, the fewest that FAISS asks for, and passes over them; 10 passes find no more neighbors
# (docs/performance.md).
TRAIN_PER_CELL = 40
TRAIN_PASSES = 5

_NO_FAISS = "faiss is not installed: pip install -e '.[cpu]' (or '.[gpu]' with an NVIDIA card)"


def write_base(
    store: Store, vectors: StoredVectors, live: Rows, *, kind: str, cells: int, seed: int, progress: Progress
) -> str:
    """Train cells on a sample of the rows, and write the part that holds all of them; returns its id.

    Args:
        live: ascending rows that have a vector.
        cells: how many.
        seed: of the sample and of the first centers.
    """
    part = digest(["base", vectors.encoder, kind, cells, seed, TRAIN_PER_CELL, TRAIN_PASSES], vectors.ids[live])
    if not part_is_whole(store, part):
        faiss = load_faiss()
        trained = _trained(faiss, vectors, live, kind=kind, cells=cells, seed=seed, progress=progress)
        _write(store, faiss, part, vectors, live, trained, base=None, progress=progress)
    return part


def write_part(store: Store, vectors: StoredVectors, rows: Rows, *, base: str, progress: Progress) -> str:
    """Write a part that holds some rows, ascending, in the cells of a base; returns its id."""
    part = digest(["part", base], vectors.ids[rows])
    if not part_is_whole(store, part):
        faiss = load_faiss()
        trained = read_faiss(_cells_file(store, base))
        _write(store, faiss, part, vectors, rows, trained, base=base, progress=progress)
    return part


def open_parts(store: Store, parts: tuple[str, ...]) -> list[tuple[Any, Ids]]:
    """The FAISS index of each part, memory-mapped, and the ids of its rows by position.

    Raises:
        StoreDamaged: one is missing, or is not what was committed.
    """
    faiss = load_faiss()
    cells = read_faiss(_cells_file(store, parts[0]), faiss.IO_FLAG_MMAP_IFC)
    opened = []
    for part in parts:
        index = read_faiss(store.path(PARTS, part, "part.faiss"), faiss.IO_FLAG_MMAP_IFC)
        index.own_fields, index.quantizer = False, cells.quantizer
        index.referenced_objects = [cells]  # Python keeps the cells as long as the part
        opened.append((index, part_keys(store, part)))
    return opened


def part_keys(store: Store, part: str) -> Ids:
    """The ids of a part's rows, ascending, which is their order in the part."""
    return np.asarray(read_array(store.path(PARTS, part, "keys.npy")))


def part_is_whole(store: Store, part: str) -> bool:
    """Whether the store has a part, and it can be opened; a damaged one is put aside."""
    if not committed_whole(store, "index_parts", part):
        return False
    folder = store.path(PARTS, part)
    damage = part_damage(folder)
    if damage is not None:
        set_aside(store, folder, damage)
    return damage is None


def part_damage(folder: Path) -> str | None:
    """Why a committed part cannot be opened, in words that name the file; None if it can be, and without faiss."""
    try:
        flags = load_faiss().IO_FLAG_MMAP_IFC
        if read_record("index_parts", folder)["base"] is None:
            read_faiss(folder / "cells.faiss", flags)
        read_faiss(folder / "part.faiss", flags)
    except StoreDamaged as error:
        return str(error)
    except MissingExtra:
        return None
    return None


def read_faiss(path: Path, flags: int = 0) -> Any:
    """The index of a committed file.

    Raises:
        StoreDamaged: it is missing, or is not what was committed.
    """
    if not verified(path).is_file():
        raise StoreDamaged(f"{path} is missing")
    try:
        return load_faiss().read_index(str(path), flags)
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1]
        raise StoreDamaged(f"{path} is not the index that was written: {cause}") from error


def _cells_file(store: Store, base: str) -> Path:
    return store.path(PARTS, base, "cells.faiss")


def _write(
    store: Store,
    faiss: Any,
    part: str,
    vectors: StoredVectors,
    rows: Rows,
    trained: Any,
    *,
    base: str | None,
    progress: Progress,
) -> None:
    """Commit a part; `trained` is an index with cells and no rows."""
    with store.committing(PARTS, part) as folder:
        if base is None:
            faiss.write_index(trained, str(folder / "cells.faiss"))
        index = to_gpu(faiss, trained)
        for start in range(0, len(rows), BLOCK_ROWS):
            index.add(np.ascontiguousarray(vectors.take(rows[start : start + BLOCK_ROWS]), np.float32))
            progress("add rows to cells", min(start + BLOCK_ROWS, len(rows)), len(rows))
        index = index if index is trained else faiss.index_gpu_to_cpu(index)
        cells, no_cells = index.quantizer, faiss.IndexFlatIP(index.d)
        index.quantizer = no_cells  # they are written once, beside the base
        try:
            faiss.write_index(index, str(folder / "part.faiss"))
        finally:
            index.quantizer = cells
        np.save(folder / "keys.npy", vectors.ids[rows], allow_pickle=False)
        record = {"part": part, "encoder": vectors.encoder, "base": base, "rows": len(rows), "created_at": utc_now()}
        write_json(folder / "part.json", record)


def _trained(
    faiss: Any, vectors: StoredVectors, live: Rows, *, kind: str, cells: int, seed: int, progress: Progress
) -> Any:
    """An index of a kind without rows, its cells trained."""
    factory = {"ivf": f"IVF{cells},SQfp16", "rabitq": f"IVF{cells}_HNSW32,RaBitQfs"}[kind]
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    # Codes of the vectors themselves: float16 then loses nothing; residuals to a cell's center would be rounded.
    index.by_residual = index.by_residual and kind != "ivf"
    size = min(len(live), cells * TRAIN_PER_CELL)
    rows = np.sort(np.random.default_rng(seed).choice(live, size, replace=False))
    sample = vectors.take(rows).astype(np.float32)
    index.quantizer.add(_centers(faiss, sample, cells, seed, progress))
    index.train(sample)  # the cells are there: only the codes are trained
    return index


def _centers(faiss: Any, sample: Floats, cells: int, seed: int, progress: Progress) -> Floats:
    """(cells, d) float32 centers by spherical k-means, a pass at a time, so that it can be told how far it is.

    Source: as `faiss.Clustering` does it, from random rows.
    """
    dimension = sample.shape[1]
    nearest = to_gpu(faiss, faiss.IndexFlatIP(dimension))
    centers = None
    for number in range(TRAIN_PASSES):
        clustering = faiss.Clustering(dimension, cells)
        clustering.niter, clustering.spherical, clustering.seed = 1, True, seed
        clustering.min_points_per_centroid = 1  # a tiny pool is the user's choice, not worth a warning from C++
        clustering.max_points_per_centroid = TRAIN_PER_CELL
        if centers is not None:
            faiss.copy_array_to_vector(centers.ravel(), clustering.centroids)
        clustering.train(sample, nearest)
        centers = faiss.vector_to_array(clustering.centroids).reshape(cells, dimension)
        progress("train cells", (number + 1) * len(sample), TRAIN_PASSES * len(sample))
    assert centers is not None
    return np.ascontiguousarray(centers)


def digest(depends_on: list[Any], ids: Ids) -> str:
    """32 hex digits of JSON values and of ids in their order."""
    hashed = hashlib.blake2b(json.dumps(depends_on).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(ids, "S16").tobytes())
    return hashed.hexdigest()


def require_faiss() -> None:
    """Check that faiss is installed without loading it, before hours of work that end in its first use.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("faiss") is None:
        raise MissingExtra(_NO_FAISS)


def load_faiss() -> Any:
    """The module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(_NO_FAISS) from error
    return faiss


def gpus(faiss: Any) -> int:
    """Cards that FAISS can use; a CPU build has none."""
    return int(faiss.get_num_gpus()) if "GPU" in faiss.get_compile_options() else 0


@lru_cache(maxsize=1)
def _gpu_resources() -> Any:
    """Scratch memory of the first card, made once a process."""
    return load_faiss().StandardGpuResources()


def to_gpu(faiss: Any, index: Any) -> Any:
    """The index on the first card if there is one and FAISS can hold its kind there, else the index itself."""
    if not gpus(faiss) or isinstance(index, faiss.IndexIVFRaBitQFastScan):
        return index
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True  # the vectors are float16 on disk: nothing is lost
    return faiss.index_cpu_to_gpu(_gpu_resources(), 0, index, options)
