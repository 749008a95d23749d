"""FAISS indexes over an encoder's vectors: `indexes/<id>/{index.faiss, rowmap.npy, keys.npy, index.json}`.

An index is for neighbour graphs and subpools. Where exactness is the point (rds_plus, k_center), steps compare all
rows.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from selection.types import Array, Floats, Rows
from storage.checksums import verified
from storage.damage import committed_whole, read_record, readable, set_aside
from storage.errors import BadInput, MissingExtra, NotInStore, StoreDamaged
from storage.ids import Ids, rows_of
from storage.store import Store, read_array, utc_now, write_json
from storage.vectors.segments import BLOCK_ROWS, StoredVectors, nearest_in

# Sizes at which an exact scan, then float16 cells, stop being the best choice (measured for 384 dimensions).
FLAT_BELOW = 200_000
IVF_BELOW = 5_000_000

KINDS = ("auto", "flat", "ivf", "rabitq")

# Above this share of dead rows an index is built anew instead of grown.
MAX_DEAD = 0.2

# An inverted index that has grown past this multiple of what its cells were trained on is built anew.
MAX_GROWTH = 2.0

# Without a stated nprobe, the first power of two whose recall@10 reaches this.
RECALL_WANTED = 0.97

# One-bit codes order candidates roughly: this many times k are compared again with the stored float16 vectors.
REFINE = 10

# FAISS asks for 39 points a cell at least.
_TRAIN_PER_CELL = 40
_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class IndexRecord:
    """What an index is and how good: the content of index.json.

    Attributes:
        index: its id, the name of its folder.
        encoder, snapshot: whose vectors, whose rows.
        content: hash of all that was asked for; `ids`: hash of the rows' ids.
        kind: "flat", "ivf" or "rabitq"; `cells`: of its inverted lists, 0 for flat.
        n_rows: rows that a search can give; `n_dead`: positions of rows that are no more.
        trained_on: rows when its cells were trained.
        nprobe: cells searched for a query; 0 for flat.
        recall_at_10: share of the 10 nearest neighbours of a row, itself left out, that a search gives; measured
            against an exact search on `recall_sample` rows. 1 where a row has no neighbour.
        parent: the index it grew from.
        device: where it was trained.
        number: of the store's indexes in the order in which they were made; 0 before there were numbers.
    """

    index: str
    encoder: str
    snapshot: str
    content: str
    ids: str
    kind: str
    cells: int
    n_rows: int
    n_dead: int
    dimension: int
    trained_on: int
    nprobe: int
    recall_at_10: float
    recall_sample: int
    seed: int
    parent: str | None
    device: str
    created_at: str
    number: int = 0


def build_index(
    store: Store,
    vectors: StoredVectors,
    *,
    snapshot: str,
    kind: str = "auto",
    nprobe: int | None = None,
    recall_sample: int = 1000,
    seed: int = 0,
) -> IndexRecord:
    """Build the index of a snapshot's vectors, unless the store has it; returns its record.

    The encoder's last index of the same kind is grown by the rows it misses where it can be (no more than 20 % of its
    rows dead, no more than twice the rows its cells were trained on); else cells are trained anew.

    Args:
        kind: "flat" (below 200,000 rows), "ivf" (4 * sqrt(n) cells of float16; to 5 million), "rabitq" (one-bit codes
            in up to 65,536 cells, compared again with the stored vectors); "auto" goes by the number of rows.
        nprobe: cells searched for a query; by default the fewest whose recall@10 is 0.97 on the sample.
        recall_sample: rows whose neighbours are searched to measure recall.
        seed: of the training sample, the cells and the recall sample.

    Cost: flat: one pass. Cells: training on 40 rows a cell, then one pass. Recall: 2 * recall_sample * n * d.

    Raises:
        MissingExtra: faiss is not installed.
        BadInput: an unknown kind, an nprobe below 1, no vectors, ids that are not ascending.
    """
    if kind not in KINDS or (nprobe is not None and nprobe < 1):
        raise BadInput(f"index: kind must be one of {', '.join(KINDS)} and nprobe >= 1, got {kind!r} and {nprobe!r}")
    if not (vectors.ids[:-1] < vectors.ids[1:]).all():
        raise BadInput("index: the ids of a snapshot are unique and ascending; these are not")
    faiss = _faiss()
    live = np.setdiff1d(np.arange(len(vectors.ids)), vectors.failed_rows)
    if not len(live):
        raise BadInput(f"index: snapshot {snapshot} has no vectors of encoder {vectors.encoder}")
    kind = _kind_for(len(live)) if kind == "auto" else kind
    content = _digest([vectors.encoder, snapshot, kind, nprobe, recall_sample, seed], vectors.ids)
    known = records(store, vectors.encoder)
    for record in [each for each in known if each.content == content]:
        if _is_whole(store, faiss, record.index):
            return record
        known = known[: known.index(record)]  # made again, it grows from what it grew from

    parent = _parent(store, known, kind, vectors, live)
    while parent is not None and not _is_whole(store, faiss, parent.index):
        known.remove(parent)
        parent = _parent(store, known, kind, vectors, live)
    folder = store.path("indexes", parent.index) if parent else None
    index = _opened(faiss, folder) if folder else _empty(faiss, vectors, live, kind, seed)
    keys = np.asarray(read_array(folder / "keys.npy")) if folder else np.empty(0, "S16")
    index = _to_gpu(faiss, index, kind)
    if not index.is_trained:
        index.train(_training_rows(vectors, live, index.nlist, seed))
    keys = _add(index, vectors, keys)
    index = faiss.index_gpu_to_cpu(index) if _gpus(faiss) and kind in _GPU_KINDS else index
    rowmap = rows_of(keys, vectors.ids)

    opened = VectorIndex(faiss, index, rowmap, kind=kind, nprobe=nprobe or 1, vectors=vectors)
    recall = _tune(opened, vectors, live, nprobe=nprobe, sample=recall_sample, seed=seed)
    record = IndexRecord(
        index=_digest([content, parent.index if parent else None], vectors.ids[:0]),
        encoder=vectors.encoder,
        snapshot=snapshot,
        content=content,
        ids=_digest([], vectors.ids),
        kind=kind,
        cells=opened.cells,
        n_rows=len(live),
        n_dead=int((rowmap < 0).sum()),
        dimension=vectors.shape[1],
        trained_on=parent.trained_on if parent else len(live),
        nprobe=opened.nprobe if kind != "flat" else 0,
        recall_at_10=recall,
        recall_sample=min(recall_sample, len(live)),
        seed=seed,
        parent=parent.index if parent else None,
        device="cuda" if _gpus(faiss) else "cpu",
        created_at=utc_now(),
        number=max((record.number for record in records(store)), default=0) + 1,
    )
    _is_whole(store, faiss, record.index)  # one that could not be read, and so is not known, goes out of the way
    with store.committing("indexes", record.index) as folder:
        faiss.write_index(index, str(folder / "index.faiss"))
        np.save(folder / "rowmap.npy", rowmap, allow_pickle=False)
        np.save(folder / "keys.npy", keys, allow_pickle=False)
        write_json(folder / "index.json", asdict(record))
    return record


def records(store: Store, encoder: str | None = None) -> list[IndexRecord]:
    """The committed indexes, oldest first; those of one encoder if named."""
    documents = [readable(store, "indexes", name) for name in store.committed("indexes")]
    committed = [_record_of(document) for document in documents if document is not None]
    return sorted(
        (r for r in committed if encoder in (None, r.encoder)), key=lambda r: (r.number, r.created_at, r.index)
    )


def _record_of(document: dict[str, Any]) -> IndexRecord:
    known = IndexRecord.__dataclass_fields__
    return IndexRecord(**{name: value for name, value in document.items() if name in known})


def open_index(store: Store, index_id: str, *, vectors: StoredVectors | None = None) -> VectorIndex:
    """Open an index for searching; the file is memory-mapped.

    Args:
        vectors: what its rows are, if already open; by default those that it was built over.

    Raises:
        NotInStore: there is no such index, or `vectors` are of other ids.
        MissingExtra: faiss is not installed.
    """
    if not store.has("indexes", index_id):
        raise NotInStore(f"index {index_id}: the store has {store.committed('indexes') or 'none'}")
    faiss = _faiss()
    folder = store.path("indexes", index_id)
    record = _record_of(read_record("indexes", folder))
    rowmap = read_array(folder / "rowmap.npy")
    if vectors is None:
        ids = read_array(store.path("records", "snapshots", record.snapshot, "ids.npy"))
        vectors = StoredVectors(store, record.encoder, ids)
    if vectors.encoder != record.encoder or record.ids != _digest([], vectors.ids):
        raise NotInStore(
            f"index {index_id} is of encoder {record.encoder} and snapshot {record.snapshot}, not of these"
        )
    index = _opened(faiss, folder, faiss.IO_FLAG_MMAP_IFC)
    return VectorIndex(faiss, index, rowmap, kind=record.kind, nprobe=max(1, record.nprobe), vectors=vectors)


def _opened(faiss: Any, folder: Path, flags: int = 0) -> Any:
    """The index of a committed folder.

    Raises:
        StoreDamaged: it is not what was committed.
    """
    path = verified(folder / "index.faiss")
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        cause = str(error).strip().splitlines()[-1]
        raise StoreDamaged(f"{path} is not the index that was written: {cause}") from error


def index_damage(folder: Path) -> str | None:
    """Why a committed index cannot be opened, in words that name the file; None if it can be, and without faiss."""
    try:
        _opened(_faiss(), folder, _faiss().IO_FLAG_MMAP_IFC)
    except StoreDamaged as error:
        return str(error)
    except MissingExtra:
        return None
    return None


def _is_whole(store: Store, faiss: Any, index_id: str) -> bool:
    """Whether the store has an index, and it can be opened; a damaged one is put aside."""
    if not committed_whole(store, "indexes", index_id):
        return False
    folder = store.path("indexes", index_id)
    try:
        _opened(faiss, folder, faiss.IO_FLAG_MMAP_IFC)
    except StoreDamaged as error:
        set_aside(store, folder, str(error))
        return False
    return True


class VectorIndex:
    """An open index; see `open_index`.

    Attributes:
        cells: its inverted lists; 0 for flat.
        nprobe: cells searched for a query; may be raised.
    """

    def __init__(self, faiss: Any, index: Any, rowmap: Rows, *, kind: str, nprobe: int, vectors: StoredVectors) -> None:
        self._faiss, self._index, self._rowmap, self._kind, self._vectors = faiss, index, rowmap, kind, vectors
        self._gpu: Any = None
        inverted = faiss.try_extract_index_ivf(index)
        self.cells = int(inverted.nlist) if inverted else 0
        self.nprobe = nprobe

    def search(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query that the index finds, among `within` if given.

        Returns:
            similarity (m, k) float32 descending and rows (m, k) int64; -inf and -1 where fewer were found: an index of
            cells looks into `nprobe` of them only, into more where `within` leaves few rows in each.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        wanted = min(k * REFINE if self._kind == "rabitq" else k, max(1, len(self._rowmap)))
        selector, share = self._selector(within)
        similarity, positions = self._search(queries, wanted, selector, self._probes(share))
        rows = np.where(positions >= 0, self._rowmap[positions], -1) if len(self._rowmap) else positions
        similarity = np.where(rows >= 0, similarity, -np.inf).astype(np.float32)
        if self._kind == "rabitq":
            return self._refined(queries, rows, k)
        order = np.lexsort((rows, -similarity), axis=-1)
        similarity, rows = np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)
        short = ((0, 0), (0, k - rows.shape[1]))
        return np.pad(similarity, short, constant_values=-np.inf), np.pad(rows, short, constant_values=-1)

    def _probes(self, share: float) -> int:
        """Cells to search where a share of the rows may match: as many as hold `nprobe` cells' worth of those."""
        return max(1, min(self.cells, math.ceil(self.nprobe / share))) if share else 1

    def _selector(self, within: Rows | None) -> tuple[Any, float]:
        """A bitmap of the positions that may match, None for all of them; and their share of the live ones."""
        allowed = self._rowmap >= 0
        live = int(allowed.sum())
        if within is not None:
            wanted = np.zeros(len(self._vectors.ids), np.bool_)
            wanted[within] = True
            allowed &= wanted[self._rowmap]
        elif live == len(allowed):
            return None, 1.0
        share = int(allowed.sum()) / live if live else 0.0
        return self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little")), share

    def _search(self, queries: Floats, k: int, selector: Any, nprobe: int) -> tuple[Floats, Rows]:
        on_gpu = selector is None and self._kind in _GPU_KINDS and max(k, nprobe) <= _GPU_MAX
        if on_gpu and self._gpu is None:
            self._gpu = _to_gpu(self._faiss, self._index, self._kind)
        if self._kind == "flat":
            params = self._faiss.SearchParameters(sel=selector)
        else:
            params = self._faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        return (self._gpu if on_gpu else self._index).search(queries, k, params=params)  # type: ignore[no-any-return]

    def _refined(self, queries: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
        """The best `k` of each query's candidates, compared with the stored vectors."""
        similarity = np.full((len(queries), k), -np.inf, np.float32)
        best = np.full((len(queries), k), -1, np.int64)
        for i, candidates in enumerate(rows):
            present = np.sort(candidates[candidates >= 0])
            blocks = iter([(present, self._vectors.take(present))])
            similarity[i : i + 1], best[i : i + 1] = nearest_in(blocks, queries[i : i + 1], k)
        return similarity, best


class IndexedVectors(StoredVectors):
    """Stored vectors whose `nearest` goes through an index, opened at the first search.

    Args:
        index: an index over the same ids; the others as in `StoredVectors`.
    """

    def __init__(self, store: Store, encoder: str, ids: Ids, *, index: str, block_rows: int = BLOCK_ROWS) -> None:
        super().__init__(store, encoder, ids, block_rows=block_rows)
        self.index = index

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query, as good as the index's recorded recall.

        A small `within` is compared row by row: an index could miss it.
        """
        if within is not None and len(within) <= self.block_rows:
            return super().nearest(queries, k, within)
        return self._search_index.search(queries, k, within)

    @cached_property
    def _search_index(self) -> VectorIndex:
        return open_index(self.store, self.index, vectors=self)


def open_vectors(store: Store, encoder: str, ids: Ids, *, index: str | None = None) -> StoredVectors:
    """`IndexedVectors` where an index is named, else `StoredVectors`."""
    return StoredVectors(store, encoder, ids) if index is None else IndexedVectors(store, encoder, ids, index=index)


# What FAISS can hold on a card, and the most neighbours and cells that its search there takes.
_GPU_KINDS = frozenset({"flat", "ivf"})
_GPU_MAX = 2048


_NO_FAISS = "faiss is not installed: pip install -e '.[cpu]' (or '.[gpu]' with an NVIDIA card)"


def require_faiss() -> None:
    """Check that faiss is installed without loading it, before hours of work that end in its first use.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("faiss") is None:
        raise MissingExtra(_NO_FAISS)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(_NO_FAISS) from error
    return faiss


def _gpus(faiss: Any) -> int:
    """Cards that FAISS can use; a CPU build has none."""
    return int(faiss.get_num_gpus()) if "GPU" in faiss.get_compile_options() else 0


@lru_cache(maxsize=1)
def _gpu_resources() -> Any:
    """Scratch memory of the first card, made once a process."""
    return _faiss().StandardGpuResources()


def _to_gpu(faiss: Any, index: Any, kind: str) -> Any:
    """The index on the first card if there is one and the kind can go there, else the index itself."""
    if not _gpus(faiss) or kind not in _GPU_KINDS:
        return index
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True  # the vectors are float16 on disk: nothing is lost
    return faiss.index_cpu_to_gpu(_gpu_resources(), 0, index, options)


def index_bytes(n: int, d: int, kind: str = "auto") -> int:
    """What an index of n vectors of d dimensions takes in memory and on disk, roughly.

    "flat" holds float32, "ivf" float16, "rabitq" one bit a dimension; each with 24 bytes a row of ids.

    >>> index_bytes(1000, 384)
    1560000
    """
    kind = _kind_for(n) if kind == "auto" else kind
    return n * ({"flat": 4 * d, "ivf": 2 * d}.get(kind, d // 8 + 16) + 24)


def _kind_for(n: int) -> str:
    return "flat" if n < FLAT_BELOW else "ivf" if n < IVF_BELOW else "rabitq"


def _empty(faiss: Any, vectors: StoredVectors, live: Rows, kind: str, seed: int) -> Any:
    """An untrained index of a kind, sized for the live rows."""
    cells = max(1, min(len(live), round(4 * len(live) ** 0.5)))
    if kind == "rabitq" and len(live) >= IVF_BELOW:
        cells = 65536
    factory = {"flat": "Flat", "ivf": f"IVF{cells},SQfp16", "rabitq": f"IVF{cells}_HNSW32,RaBitQfs"}[kind]
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if kind != "flat":
        # Codes of the vectors themselves: float16 then loses nothing; residuals to a cell's centre would be rounded.
        index.by_residual = index.by_residual and kind != "ivf"
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1  # a tiny pool is the user's choice, not worth a warning from C++
    return index


def _training_rows(vectors: StoredVectors, live: Rows, cells: int, seed: int) -> Floats:
    size = min(len(live), cells * _TRAIN_PER_CELL)
    rows = np.random.default_rng(seed).choice(live, size, replace=False)
    return vectors.take(np.sort(rows)).astype(np.float32)


def _parent(
    store: Store, known: list[IndexRecord], kind: str, vectors: StoredVectors, live: Rows
) -> IndexRecord | None:
    """The encoder's last index of this kind, if it can be grown to these rows."""
    last = next((record for record in reversed(known) if record.kind == kind), None)
    if last is None or last.dimension != vectors.shape[1]:
        return None
    if not committed_whole(store, "indexes", last.index):
        return _parent(store, [record for record in known if record is not last], kind, vectors, live)
    keys = read_array(store.path("indexes", last.index, "keys.npy"))
    dead = int((rows_of(keys, vectors.ids) < 0).sum())
    outgrown = kind != "flat" and len(live) > MAX_GROWTH * last.trained_on
    return None if dead > MAX_DEAD * len(keys) or outgrown else last


def _add(index: Any, vectors: StoredVectors, keys: Ids) -> Ids:
    """Add the rows that `keys` lacks, in storage order; the ids by position."""
    absent = np.ones(len(vectors.ids), np.bool_)
    absent[vectors.failed_rows] = False
    known = rows_of(keys, vectors.ids)
    absent[known[known >= 0]] = False
    added = [keys]
    for rows, block in vectors.blocks():
        new = absent[rows]
        if new.any():
            index.add(np.ascontiguousarray(block[new], np.float32))
            added.append(vectors.ids[rows[new]])
    return np.concatenate(added)


def _tune(
    opened: VectorIndex, vectors: StoredVectors, live: Rows, *, nprobe: int | None, sample: int, seed: int
) -> float:
    """Set the index's nprobe and give its recall@10."""
    k = min(_NEIGHBOURS, len(live) - 1)
    if k < 1 or sample < 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed + 1).choice(live, min(sample, len(live)), replace=False))
    queries = vectors.take(rows).astype(np.float32)
    exact = _without_self(rows, *nearest_in(vectors.blocks(), queries, k + 1), k)
    powers = [2**i for i in range(3, 11) if 2**i < opened.cells]
    tries = [nprobe] if nprobe else [*powers, min(opened.cells, 1024)]
    recall = 0.0
    for cells_searched in tries:
        opened.nprobe = cells_searched
        approximate = _without_self(rows, *opened.search(queries, k + 1), k)
        # By similarity, not by row: equal vectors are equally near.
        recall = float((approximate >= exact[:, -1:] - 1e-5).mean())
        if recall >= RECALL_WANTED:
            break
    return recall


def _without_self(rows: Rows, similarity: Floats, neighbours: Rows, k: int) -> Floats:
    """(m, k) similarities of the nearest neighbours, the query's own row left out."""
    others = np.where(neighbours == rows[:, None], -np.inf, similarity)
    return -np.sort(-others, axis=1)[:, :k]


def _digest(depends_on: list[Any], ids: Ids) -> str:
    digest = hashlib.blake2b(json.dumps(depends_on).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(ids, "S16").tobytes())
    return digest.hexdigest()
