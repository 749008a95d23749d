"""FAISS indexes over an encoder's vectors: `indexes/<id>/index.json` names the parts that hold their rows.

An index is for neighbour graphs and subpools. Where exactness is the point (rds_plus, k_center), steps compare all
rows. Below 200,000 rows all steps do, and there is no index.

Indexes of earlier versions hold their rows themselves: `index.faiss`, `rowmap.npy` and `keys.npy` beside `index.json`.
They can be searched, and are not grown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from selection.types import Array, Floats, Rows
from storage.damage import committed_whole, read_record, readable, set_aside
from storage.errors import BadInput, MissingExtra, NotInStore, StoreDamaged
from storage.ids import Ids, rows_of
from storage.store import Store, read_array, utc_now, write_json
from storage.vectors.index_parts import (
    PARTS,
    Progress,
    digest,
    gpus,
    load_faiss,
    open_parts,
    part_is_whole,
    part_keys,
    read_faiss,
    to_gpu,
    write_base,
    write_part,
)
from storage.vectors.segments import BLOCK_ROWS, StoredVectors, nearest_in

# Sizes at which comparing every row, then float16 cells, stop being the best choice (measured for 384 dimensions).
FLAT_BELOW = 200_000
IVF_BELOW = 5_000_000

KINDS = ("auto", "flat", "ivf", "rabitq")

# Above this share of dead rows an index is built anew instead of grown.
MAX_DEAD = 0.2

# An index that has grown past this multiple of what its cells were trained on is built anew.
MAX_GROWTH = 2.0

# Without a stated nprobe, the first power of two whose recall@10 reaches this.
RECALL_WANTED = 0.97

# One-bit codes order candidates roughly: this many times k are compared again with the stored float16 vectors.
REFINE = 10

# Similarities held at once while equal ones are told apart.
_TIED_VALUES = 1 << 24

_NEIGHBOURS = 10


@dataclass(frozen=True, kw_only=True)
class IndexRecord:
    """What an index is and how good: the content of index.json.

    Attributes:
        index: its id, the name of its folder.
        encoder, snapshot: whose vectors, whose rows.
        content: hash of all that was asked for; `ids`: hash of the rows' ids.
        kind: "ivf" or "rabitq", "flat" in records of earlier versions; `cells`: of its inverted lists, 0 for flat.
        n_rows: rows that a search can give; `n_dead`: positions of rows that are no more.
        trained_on: rows when its cells were trained.
        nprobe: cells searched for a query; 0 for flat.
        recall_at_10: share of the 10 nearest neighbours of a row, itself left out, that a search gives; measured
            against an exact search on `recall_sample` rows. 1 where a row has no neighbour.
        parent: the index it grew from.
        device: where it was trained.
        number: of the store's indexes in the order in which they were made; 0 before there were numbers.
        parts: the parts that hold its rows, the base first; none if it holds them itself.
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
    parts: tuple[str, ...] = ()


def build_index(
    store: Store,
    vectors: StoredVectors,
    *,
    snapshot: str,
    kind: str = "auto",
    nprobe: int | None = None,
    recall_sample: int = 1000,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> IndexRecord | None:
    """Build the index of a snapshot's vectors, unless the store has it; returns its record.

    The encoder's last index of the same kind is grown by the rows it misses where it can be (no more than 20 % of its
    rows dead, no more than twice the rows its cells were trained on); else cells are trained anew. It shares the parts
    of that index. Small parts are written again with the new rows, so that each holds at most half the rows of the one
    before it.

    Args:
        kind: "flat" (below 200,000 rows: every row is compared, and nothing is built), "ivf" (4 * sqrt(n) cells of
            float16; to 5 million), "rabitq" (one-bit codes in up to 65,536 cells, compared again with the stored
            vectors); "auto" goes by the number of rows.
        nprobe: cells searched for a query; by default the fewest whose recall@10 is 0.97 on the sample.
        recall_sample: rows whose neighbours are searched to measure recall.
        seed: of the training sample, the cells and the recall sample.
        progress: told how far it is.

    Returns:
        None for "flat".

    Cost: training, 5 passes over 40 rows a cell, then 2 * cells * d for each new row; rows of small parts are added
    about log2(nights) / 2 times again. Recall: 2 * recall_sample * n * d.

    Raises:
        MissingExtra: faiss is not installed.
        BadInput: an unknown kind, an nprobe below 1, no vectors, ids that are not ascending.
    """
    if kind not in KINDS or (nprobe is not None and nprobe < 1):
        raise BadInput(f"index: kind must be one of {', '.join(KINDS)} and nprobe >= 1, got {kind!r} and {nprobe!r}")
    if not (vectors.ids[:-1] < vectors.ids[1:]).all():
        raise BadInput("index: the ids of a snapshot are unique and ascending; these are not")
    live = np.setdiff1d(np.arange(len(vectors.ids)), vectors.failed_rows)
    if not len(live):
        raise BadInput(f"index: snapshot {snapshot} has no vectors of encoder {vectors.encoder}")
    kind = kind_for(len(live)) if kind == "auto" else kind
    if kind == "flat":
        return None
    faiss = load_faiss()
    content = digest([vectors.encoder, snapshot, kind, nprobe, recall_sample, seed], vectors.ids)
    known = records(store, vectors.encoder)
    for record in [each for each in known if each.content == content]:
        if _is_whole(store, record):
            return record
        known = known[: known.index(record)]  # made again, it grows from what it grew from

    parent = _parent(store, known, kind, vectors, live)
    if parent is not None:
        parts = _grown(store, parent.parts, vectors, live, progress=progress)
    else:
        cells = cells_for(len(live), kind)
        parts = (write_base(store, vectors, live, kind=kind, cells=cells, seed=seed, progress=progress),)
    opened = VectorIndex(faiss, _mapped_parts(store, parts, vectors), kind=kind, nprobe=nprobe or 1, vectors=vectors)
    recall = _tune(opened, vectors, live, nprobe=nprobe, sample=recall_sample, seed=seed, progress=progress)
    record = IndexRecord(
        index=digest([content, parts], vectors.ids[:0]),
        encoder=vectors.encoder,
        snapshot=snapshot,
        content=content,
        ids=digest([], vectors.ids),
        kind=kind,
        cells=opened.cells,
        n_rows=len(live),
        n_dead=opened.dead,
        dimension=vectors.shape[1],
        trained_on=parent.trained_on if parent else len(live),
        nprobe=opened.nprobe,
        recall_at_10=recall,
        recall_sample=min(recall_sample, len(live)),
        seed=seed,
        parent=parent.index if parent else None,
        device="cuda" if gpus(faiss) else "cpu",
        created_at=utc_now(),
        number=max((record.number for record in records(store)), default=0) + 1,
        parts=parts,
    )
    # One that could not be read, and so is not known, goes out of the way.
    committed_whole(store, "indexes", record.index)
    with store.committing("indexes", record.index) as folder:
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
    values = {name: value for name, value in document.items() if name in known}
    return IndexRecord(**{**values, "parts": tuple(values.get("parts", ()))})


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
    faiss = load_faiss()
    record = _record_of(read_record("indexes", store.path("indexes", index_id)))
    if vectors is None:
        ids = read_array(store.path("records", "snapshots", record.snapshot, "ids.npy"))
        vectors = StoredVectors(store, record.encoder, ids)
    if vectors.encoder != record.encoder or record.ids != digest([], vectors.ids):
        raise NotInStore(
            f"index {index_id} is of encoder {record.encoder} and snapshot {record.snapshot}, not of these"
        )
    parts = _mapped_parts(store, record.parts, vectors) if record.parts else [_own_rows(store, faiss, index_id)]
    settled = bool(record.parts)  # what an earlier version drew among equal rows stays as it is
    return VectorIndex(faiss, parts, kind=record.kind, nprobe=max(1, record.nprobe), vectors=vectors, settled=settled)


def _mapped_parts(store: Store, parts: tuple[str, ...], vectors: StoredVectors) -> list[tuple[Any, Rows]]:
    """Each part, and its rows by position; -1 for one that is no more."""
    return [(index, rows_of(keys, vectors.ids)) for index, keys in open_parts(store, parts)]


def _own_rows(store: Store, faiss: Any, index_id: str) -> tuple[Any, Rows]:
    """The rows of an index of an earlier version, as one part."""
    folder = store.path("indexes", index_id)
    rowmap = read_array(folder / "rowmap.npy")
    return read_faiss(folder / "index.faiss", faiss.IO_FLAG_MMAP_IFC), rowmap


def index_damage(store: Store, index_id: str) -> str | None:
    """Why a committed index cannot be opened, in words that name the file; None if it can be, and without faiss.

    Its parts only have to be there: what is wrong with one is said of the part.
    """
    folder = store.path("indexes", index_id)
    try:
        parts = _record_of(read_record("indexes", folder)).parts
        missing = [part for part in parts if not store.has(PARTS, part)]
        if missing:
            return f"{folder / 'index.json'} names {store.path(PARTS, missing[0])}, which is missing"
        if not parts:
            _own_rows(store, load_faiss(), index_id)
    except StoreDamaged as error:
        return str(error)
    except MissingExtra:
        return None
    return None


def unused_parts(store: Store) -> list[str]:
    """The parts that no index names, which nothing needs; sorted."""
    used = {part for record in records(store) for part in record.parts}
    return [part for part in store.committed(PARTS) if part not in used]


def _is_whole(store: Store, record: IndexRecord) -> bool:
    """Whether the store has an index with all of its parts, and they can be opened; what is damaged is put aside."""
    if not committed_whole(store, "indexes", record.index):
        return False
    for part in record.parts:
        part_is_whole(store, part)  # each damaged one is put aside, and then missing
    damage = index_damage(store, record.index)
    if damage is not None:
        set_aside(store, store.path("indexes", record.index), damage)
    return damage is None


class VectorIndex:
    """An open index; see `open_index`.

    Args:
        parts: FAISS indexes, each with the row of each of its positions, -1 for one that is no more. All have the same
            cells, and no row is in two of them.
        settled: whether ties go to the lowest row; else to those that FAISS came across first.

    Attributes:
        cells: its inverted lists; 0 for flat.
        dead: positions of rows that are no more.
        nprobe: cells searched for a query; may be raised.
    """

    def __init__(
        self,
        faiss: Any,
        parts: list[tuple[Any, Rows]],
        *,
        kind: str,
        nprobe: int,
        vectors: StoredVectors,
        settled: bool = True,
    ) -> None:
        self._faiss, self._parts, self._kind, self._vectors, self._settled = faiss, parts, kind, vectors, settled
        self._on_gpu: dict[int, Any] = {}
        inverted = faiss.try_extract_index_ivf(parts[0][0])
        self.cells = int(inverted.nlist) if inverted else 0
        self.dead = sum(int((rowmap < 0).sum()) for _, rowmap in parts)
        self.nprobe = nprobe
        self._live = sum(len(rowmap) for _, rowmap in parts) - self.dead

    def search(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query that the index finds, among `within` if given.

        How its rows are divided into parts changes nothing: ties go to the lowest row.

        Returns:
            similarity (m, k) float32 descending and rows (m, k) int64; -inf and -1 where fewer were found: an index of
            cells looks into `nprobe` of them only, into more where `within` leaves few rows in each.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        wanted = k * REFINE if self._kind == "rabitq" else k
        allowed = self._allowed(within)
        share = sum(int(positions.sum()) for positions in allowed) / max(self._live, 1)
        nprobe = max(1, min(self.cells, math.ceil(self.nprobe / share))) if share else 1
        matches = [
            self._search_part(number, queries, wanted, self._selector(positions), nprobe, wanted + self._settled)
            for number, positions in enumerate(allowed)
        ]
        similarity, rows = (np.concatenate(each, axis=1) for each in zip(*matches, strict=True))
        similarity, rows = _best(similarity, rows, wanted)
        return self._refined(queries, rows, k) if self._kind == "rabitq" else (similarity, rows)

    def _allowed(self, within: Rows | None) -> list[npt.NDArray[np.bool_]]:
        """Of each part, the positions that may match."""
        if within is None:
            return [rowmap >= 0 for _, rowmap in self._parts]
        wanted = np.zeros(len(self._vectors.ids), np.bool_)
        wanted[within] = True
        return [(rowmap >= 0) & wanted[rowmap] for _, rowmap in self._parts]

    def _selector(self, allowed: npt.NDArray[np.bool_]) -> Any:
        """A bitmap of the positions that may match; None for all of them."""
        return None if allowed.all() else self._faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))

    def _search_part(
        self, number: int, queries: Floats, k: int, selector: Any, nprobe: int, size: int
    ) -> tuple[Floats, Rows]:
        """The best `k` of a part, chosen from the `size` that FAISS finds; from more where it would leave out ties."""
        rowmap = self._parts[number][1]
        size = max(1, min(size, len(rowmap)))
        similarity, positions = self._faiss_search(number, queries, size, selector, nprobe)
        rows = np.where(positions >= 0, rowmap[positions], -1) if len(rowmap) else positions
        best = _best(np.where(rows >= 0, similarity, -np.inf).astype(np.float32), rows, k)
        if not self._settled or not k < size < len(rowmap):
            return best
        tied = np.flatnonzero((rows[:, -1] >= 0) & (similarity[:, -1] == similarity[:, k - 1]))
        at_once = max(1, _TIED_VALUES // (4 * size))
        for start in range(0, len(tied), at_once):
            some = tied[start : start + at_once]
            best[0][some], best[1][some] = self._search_part(number, queries[some], k, selector, nprobe, 4 * size)
        return best

    def _faiss_search(self, number: int, queries: Floats, k: int, selector: Any, nprobe: int) -> tuple[Floats, Rows]:
        index = self._parts[number][0]
        if selector is None and self._kind in _GPU_KINDS and max(k, nprobe) <= _GPU_MAX and gpus(self._faiss):
            if number not in self._on_gpu:
                self._on_gpu[number] = to_gpu(self._faiss, index)
            index = self._on_gpu[number]
        if self._kind == "flat":
            params = self._faiss.SearchParameters(sel=selector)
        else:
            params = self._faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        return index.search(queries, k, params=params)  # type: ignore[no-any-return]

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


def _best(similarity: Floats, rows: Rows, k: int) -> tuple[Floats, Rows]:
    """The best `k` of each query's candidates, ties to the lowest row; -inf and -1 where there are fewer."""
    order = np.lexsort((rows, -similarity), axis=-1)[:, :k]
    similarity, rows = np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)
    short = ((0, 0), (0, k - rows.shape[1]))
    return np.pad(similarity, short, constant_values=-np.inf), np.pad(rows, short, constant_values=-1)


def index_bytes(n: int, d: int, kind: str = "auto") -> int:
    """What an index of n vectors of d dimensions takes in memory and on disk, roughly.

    "flat" is none, "ivf" holds float16, "rabitq" one bit a dimension; each with 24 bytes a row of ids.

    >>> index_bytes(1000, 384), index_bytes(1000, 384, "ivf")
    (0, 792000)
    """
    kind = kind_for(n) if kind == "auto" else kind
    return {"ivf": n * (2 * d + 24), "rabitq": n * (d // 8 + 40)}.get(kind, 0)


def kind_for(n: int) -> str:
    """The kind of index that "auto" takes for n rows."""
    return "flat" if n < FLAT_BELOW else "ivf" if n < IVF_BELOW else "rabitq"


def cells_for(n: int, kind: str) -> int:
    """How many cells an index of n rows has."""
    return 65536 if kind == "rabitq" and n >= IVF_BELOW else max(1, min(n, round(4 * n**0.5)))


def _parent(
    store: Store, known: list[IndexRecord], kind: str, vectors: StoredVectors, live: Rows
) -> IndexRecord | None:
    """The encoder's last index of this kind, if it can be grown to these rows."""
    for last in reversed(known):
        if last.kind == kind and last.parts and last.dimension == vectors.shape[1] and _is_whole(store, last):
            rows = [rows_of(part_keys(store, part), vectors.ids) for part in last.parts]
            dead, size = sum(int((each < 0).sum()) for each in rows), sum(map(len, rows))
            return None if dead > MAX_DEAD * size or len(live) > MAX_GROWTH * last.trained_on else last
    return None


def _grown(
    store: Store, parts: tuple[str, ...], vectors: StoredVectors, live: Rows, *, progress: Progress
) -> tuple[str, ...]:
    """The parts, and one for the rows that they lack; it takes in those before it that are not twice as large.

    So there are few, and a row is seldom written again. The base stays as it is.
    """
    kept = [rows_of(part_keys(store, part), vectors.ids) for part in parts]
    added = np.setdiff1d(live, np.concatenate(kept))
    if not len(added):
        return parts
    while len(kept) > 1 and len(kept[-1]) < 2 * len(added):
        rows = kept.pop()
        added = np.union1d(added, rows[rows >= 0])
    return (*parts[: len(kept)], write_part(store, vectors, added, base=parts[0], progress=progress))


def _tune(
    opened: VectorIndex,
    vectors: StoredVectors,
    live: Rows,
    *,
    nprobe: int | None,
    sample: int,
    seed: int,
    progress: Progress,
) -> float:
    """Set the index's nprobe and give its recall@10."""
    k = min(_NEIGHBOURS, len(live) - 1)
    if k < 1 or sample < 1:
        return 1.0
    rows = np.sort(np.random.default_rng(seed + 1).choice(live, min(sample, len(live)), replace=False))
    queries = vectors.take(rows).astype(np.float32)
    blocks = _told(vectors.blocks(), len(vectors.ids), progress)
    exact = _without_self(rows, *nearest_in(blocks, queries, k + 1), k)
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


def _told(blocks: Iterator[tuple[Rows, Array]], total: int, progress: Progress) -> Iterator[tuple[Rows, Array]]:
    done = 0
    for rows, block in blocks:
        yield rows, block
        done += len(rows)
        progress("measure recall", done, total)


def _without_self(rows: Rows, similarity: Floats, neighbours: Rows, k: int) -> Floats:
    """(m, k) similarities of the nearest neighbours, the query's own row left out."""
    others = np.where(neighbours == rows[:, None], -np.inf, similarity)
    return -np.sort(-others, axis=1)[:, :k]
