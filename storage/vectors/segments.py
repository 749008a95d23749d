"""Vectors of an encoder, in segments that are written once: `vectors/<encoder>/seg-<hash>/`.

A segment holds `vectors.npy` (n, d) float16 or float32 of norm 1, `keys.npy` (n,) the ids, `failed.npy` the ids that
the encoder could give no vector (no tokens, an overflow), and `segment.json` with checksums and the writer's details.
Its name is a hash of the encoder and the ids, so a segment written twice is one segment.

An encoder may share vectors with another one that has the same: `vectors/<encoder>/shared-<hash>/` holds `keys.npy`
(n,) ids and `sources.npy` (n,) uint32, which of the segments that `shared.json` lists has the vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.types import Array, Floats, Mask, Rows
from storage import checksums
from storage.checksums import sums_of, verified
from storage.damage import committed_whole, damage_of, read_record, set_aside
from storage.errors import BadInput, NotInStore, StoreDamaged
from storage.ids import Ids, rows_of, to_arrow, to_text, unique_ids
from storage.store import Store, read_array, read_json, write_durably, write_json

# A unit vector rounded to float16 keeps its norm to 2**-11 at worst; more is not a unit vector.
NORM_TOLERANCE = 1e-3

# The smallest norm that still has a direction (specification of the stored vectors).
MIN_NORM = 1e-12

BLOCK_ROWS = 16384

# Numbers that are worked on at once in memory: half a MiB in float64.
TILE_VALUES = 1 << 16

ROWS = "rows.parquet"
# Of gradients: an encoder and the norms before vectors were made unit, one of each checkpoint.
NORMS = "norms.parquet"
NORM_COLUMNS = {"id": pa.uuid(), "encoder": pa.string(), "norms": pa.list_(pa.float64())}
ARRAYS = ("vectors.npy", "keys.npy", "failed.npy")


def normalise(vectors: Array, dtype: str = "float32") -> tuple[Array, Mask]:
    """Unit vectors, and which rows have a direction at all.

    Args:
        dtype: "float32", or "float16": the float32 rounded, with no array of these in memory.

    Returns:
        (n, d) of norm 1, zeros for the rows that have none; (n,) bool, False for a row that is not finite or of norm
        below 1e-12.
    """
    unit, usable = np.empty(vectors.shape, dtype), np.empty(len(vectors), np.bool_)
    for tile in _tiles(vectors):
        wide = np.asarray(vectors[tile], np.float32)
        norms = np.linalg.norm(wide.astype(np.float64), axis=1)
        usable[tile] = np.isfinite(norms) & (norms >= MIN_NORM)
        unit[tile] = (wide / np.where(usable[tile], norms, 1.0)[:, None]).astype(np.float32)
        unit[tile][~usable[tile]] = 0.0
    return unit, usable


def _tiles(array: Array) -> Iterator[slice]:
    """Parts of an (n, d) array whose float64 copies fit into a cache: what is written and dropped costs more than sums."""
    rows = max(1, TILE_VALUES // max(1, array.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(array), rows))


def _lengths(vectors: Array) -> Floats:
    """(n,) float32, the norms of vectors as stored."""
    lengths = np.empty(len(vectors), np.float32)
    for tile in _tiles(vectors):
        lengths[tile] = np.linalg.norm(vectors[tile].astype(np.float32), axis=1)
    return lengths


def missing_ids(store: Store, encoder: str, ids: Ids) -> Ids:
    """Those of `ids` that the encoder has not seen, in the order given; a recorded failure counts as seen.

    Cost: a search of every stored id in `ids`; about 25 bytes of memory for each of `ids`.
    """
    unique, back = _unique(ids)
    seen = np.zeros(len(unique), np.bool_)
    for segment, shared in _segments(store, encoder):
        for name in ("keys.npy", "failed.npy") if shared is None else ("keys.npy",):
            rows = _rows_in(_verified_array(segment, name), shared, unique)
            seen[rows[rows >= 0]] = True
    return ids[~seen[back]]


def failed_ids(store: Store, encoder: str, ids: Ids) -> Ids:
    """Those of `ids` that the encoder has seen and could give no vector, sorted."""
    failed = [_verified_array(segment, "failed.npy") for segment in segment_folders(store, encoder)]
    failed_ones = unique_ids(np.concatenate([np.empty(0, "S16"), *failed]))
    return failed_ones[rows_of(failed_ones, unique_ids(ids)) >= 0]


def _segments(store: Store, encoder: str) -> Iterator[tuple[Path, Ids | None]]:
    """The segments that hold an encoder's vectors; of another encoder's, which of the ids count, ascending."""
    for folder in segment_folders(store, encoder):
        yield folder, None
    for folder in shared_folders(store, encoder):
        keys, sources = read_array(folder / "keys.npy"), read_array(folder / "sources.npy")
        for number, segment in enumerate(sources_of(store, folder)):
            if segment.is_dir():
                yield segment, keys[sources == number]


def _rows_in(keys: Ids, shared: Ids | None, ids: Ids) -> Rows:
    """The row of each key of a segment among ascending ids; -1 where it is none of these, or is not shared."""
    rows = rows_of(keys, ids)
    if shared is not None:
        rows[rows_of(keys, shared) < 0] = -1
    return rows


def shared_folders(store: Store, encoder: str) -> list[Path]:
    """What an encoder shares with others, in the order of the names."""
    names = store.committed("vectors", encoder)
    return [store.path("vectors", encoder, name) for name in names if name.startswith("shared-")]


def sources_of(store: Store, folder: Path) -> list[Path]:
    """The segments, of another encoder, whose vectors are shared."""
    shares = read_record("shared", folder)["shares"]
    return [store.path("vectors", each["encoder"], each["segment"]) for each in shares]


def share_segments(store: Store, encoder: str, shares: Mapping[Path, Ids]) -> None:
    """Let the vectors that segments of another encoder have for some ids, each id once, be those of this encoder too."""
    names = [{"encoder": segment.parent.name, "segment": segment.name} for segment in shares]
    keys = np.concatenate([np.empty(0, "S16"), *shares.values()])
    sources = np.repeat(np.arange(len(shares), dtype=np.uint32), [len(ids) for ids in shares.values()])
    order = np.argsort(keys)
    digest = hashlib.blake2b(repr(names).encode() + keys.tobytes(), digest_size=16).hexdigest()
    with store.committing("vectors", encoder, f"shared-{digest}") as folder:
        np.save(folder / "keys.npy", keys[order], allow_pickle=False)
        np.save(folder / "sources.npy", sources[order], allow_pickle=False)
        write_json(folder / "shared.json", {"shares": names})


def segment_folders(store: Store, encoder: str) -> list[Path]:
    """The encoder's own committed segments, in the order of their names."""
    names = store.committed("vectors", encoder)
    return [store.path("vectors", encoder, name) for name in names if name.startswith("seg-")]


def commit_segment(
    store: Store,
    encoder: str,
    ids: Ids,
    vectors: Array,
    details: Mapping[str, Any],
    *,
    failed: Mask | None = None,
    dtype: str = "float16",
    table: pa.Table | None = None,
    norms: Array | None = None,
) -> str:
    """Write a segment and commit it.

    Args:
        ids: (n,) unique.
        vectors: (n, d) float, norm 1 to 1e-3.
        details: JSON-plain, kept in segment.json: device, batches, seconds.
        failed: (n,) bool: the ids of these rows are recorded as failed and their vectors dropped. None failed by
            default.
        dtype: "float16" or "float32", how the vectors are stored.
        table: further columns, a row for each id that is not failed, in their order; stored behind a column `id` in
            rows.parquet. The vectors may then be of no dimension.
        norms: (n, checkpoints) float, stored in norms.parquet.

    Returns:
        The segment's name.

    Raises:
        BadInput: lengths differ, or a vector that is not failed is not finite or not of norm 1. Nothing is written.
    """
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise BadInput(f"encoder {encoder}: {len(ids)} ids need as many vectors, got an array of shape {vectors.shape}")
    failed = np.zeros(len(ids), np.bool_) if failed is None else failed
    kept = np.asarray(vectors, dtype)
    kept = kept[~failed] if failed.any() else kept
    lengths = _lengths(kept) if kept.shape[1] or table is None else np.ones(len(kept))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= NORM_TOLERANCE))  # NaN is bad too
    if len(bad):
        row = int(np.flatnonzero(~failed)[bad[0]])
        raise BadInput(
            f"encoder {encoder}: {len(bad)} of {len(kept)} vectors are not finite or not of norm 1 "
            f"(first: {to_text(ids[row : row + 1])[0]}, norm {lengths[bad[0]]:.6g})"
        )
    name = segment_name(encoder, ids)
    arrays = {"vectors.npy": kept, "keys.npy": ids[~failed], "failed.npy": ids[failed]}
    with store.committing("vectors", encoder, name) as folder:
        for file, array in arrays.items():
            np.save(folder / file, array, allow_pickle=False)
        if table is not None:
            pq.write_table(table.add_column(0, "id", to_arrow(ids[~failed])), folder / ROWS, compression="zstd")
        if norms is not None:
            columns = {"id": to_arrow(ids[~failed]), "encoder": [encoder] * len(kept), "norms": norms[~failed].tolist()}
            pq.write_table(pa.table(columns, schema=pa.schema(NORM_COLUMNS)), folder / NORMS, compression="zstd")
        header = {
            **details,
            "encoder": encoder,
            "n_rows": len(kept),
            "n_failed": int(failed.sum()),
            "dimension": vectors.shape[1],
            "checksums": {file: array_checksum(array) for file, array in arrays.items()},
        }
        write_json(folder / "segment.json", header)
    return name


def segment_name(encoder: str, ids: Ids) -> str:
    """The name of the segment of some ids, in this order."""
    depends_on = encoder.encode() + b"\0" + np.ascontiguousarray(ids, "S16").tobytes()
    return "seg-" + hashlib.blake2b(depends_on, digest_size=16).hexdigest()


def describe_encoder(store: Store, encoder: str, header: Mapping[str, Any]) -> None:
    """Write `encoder.json`: the encoder's specification and the vectors' dimension. The first writer wins."""
    path = store.path("vectors", encoder, "encoder.json")
    if not is_described(store, encoder):
        if damage := description_damage(store, encoder):
            set_aside(store, path, damage)
        write_durably(path, json.dumps(dict(header), indent=1, sort_keys=True) + "\n")
        write_durably(path.with_name(checksums.FILE), checksums.seal_of([path]))


def is_described(store: Store, encoder: str) -> bool:
    """Whether the encoder has its description, and it can be read."""
    path = store.path("vectors", encoder, "encoder.json")
    return path.exists() and description_damage(store, encoder) is None


def description(store: Store, encoder: str) -> dict[str, Any]:
    """The content of `encoder.json`; empty while the store has no description of the encoder."""
    described = is_described(store, encoder)
    return dict(read_json(store.path("vectors", encoder, "encoder.json"))) if described else {}


def described_dimension(store: Store, encoder: str) -> int | None:
    """The dimension of the encoder's vectors; None while the store has no description of it."""
    dimension = description(store, encoder).get("dimension")
    return None if dimension is None else int(dimension)


def description_damage(store: Store, encoder: str) -> str | None:
    """What is wrong with the encoder's description, in words that name the file; None if nothing is, or it has none yet."""
    path = store.path("vectors", encoder, "encoder.json")
    try:
        if not path.exists() and path.name not in sums_of(path.parent):
            return None
        document = read_json(path)
    except (NotInStore, StoreDamaged) as error:
        return str(error)
    is_right = isinstance(document, dict) and isinstance(document.get("spec"), dict) and "dimension" in document
    return None if is_right else f"{path} is not the description that was written"


def verify_segments(store: Store, encoder: str) -> int:
    """Read every segment and compare it with its checksums.

    Returns:
        How many vectors were read.

    Raises:
        StoreDamaged: a segment is not what was committed; names it.
    """
    count = 0
    for segment, shared in _segments(store, encoder):
        header = read_record("segments", segment)
        for file, checksum in header["checksums"].items():
            if array_checksum(read_array(segment / file)) != checksum:
                raise StoreDamaged(f"{segment / file} is not what was committed (its checksum differs)")
        count += int(header["n_rows"]) if shared is None else len(shared)
    return count


def segment_damage(segment: Path) -> str | None:
    """What is wrong with a segment, in words that name the file; None if nothing is.

    Cost: reads its files once in the life of a process; 0.3 s a GB, 1.5 s for a segment of an earlier version.
    """
    damage = damage_of("segments", segment)
    if damage is not None:
        return damage
    try:
        arrays = {name: _verified_array(segment, name) for name in ARRAYS}
    except StoreDamaged as error:
        return str(error)
    for file in {ROWS, NORMS} & set(sums_of(segment)):
        try:
            verified(segment / file)
        except StoreDamaged as error:
            return str(error)
    if len(arrays["keys.npy"]) != len(arrays["vectors.npy"]):
        return (
            f"{segment / 'keys.npy'} has {len(arrays['keys.npy'])} ids, {len(arrays['vectors.npy'])} vectors are there"
        )
    return None


def set_damaged_aside(store: Store, encoder: str) -> list[Path]:
    """Put aside the segments and plans of an encoder that are damaged, so that their ids count as missing; those that it
    shares too.

    Returns:
        where the segments lie now.
    """
    shared = shared_folders(store, encoder)
    for folder in shared:
        committed_whole(store, "shared", encoder, folder.name)
    sources = [segment for folder in shared if folder.is_dir() for segment in sources_of(store, folder)]
    segments = [*segment_folders(store, encoder), *(segment for segment in sources if segment.is_dir())]
    damages = [(segment, segment_damage(segment)) for segment in segments]
    places = [set_aside(store, segment, damage) for segment, damage in damages if damage is not None]
    for name in store.committed("vectors", encoder):
        if name.startswith("plan-"):
            committed_whole(store, "plans", encoder, name)
    return places


@cache
def _verified_state(path: Path, state: tuple[int, ...]) -> None:  # noqa: ARG001 - the cache's key
    """Compare an array with the checksum that segments of any version have in their header."""
    checksum = read_record("segments", path.parent)["checksums"].get(path.name)
    if checksum is not None and array_checksum(read_array(path)) != checksum:
        raise StoreDamaged(f"{path} is not what was committed (its checksum differs)")


def _verified_array(segment: Path, name: str) -> Array:
    """An array of a segment, memory-mapped, known to be what was committed; see `storage.checksums`."""
    path = segment / name
    array = read_array(path)
    if name not in sums_of(segment):
        status = path.stat()
        _verified_state(path, (status.st_size, status.st_mtime_ns, status.st_ino))
    return array


class StoredVectors:
    """The vectors of some ids, read from the segments when asked for; satisfies `selection.types.Vectors`.

    Row i is `ids[i]`. Ids whose encoding failed have rows of zeros and are listed in `failed_rows`: the caller makes
    them ineligible.

    Args:
        ids: (n,) in any order; an id may stand more than once.
        block_rows: rows that `blocks` gives at once; memory only, never results.

    Raises:
        NotInStore: ids without a vector, with their number.

    Cost: 20 bytes of memory a row beside the ids; vectors stay on disk, memory-mapped.
    """

    device = "cpu"

    def __init__(self, store: Store, encoder: str, ids: Ids, *, block_rows: int = BLOCK_ROWS) -> None:
        self.store, self.encoder, self.ids, self.block_rows = store, encoder, ids, block_rows
        self._arrays: list[Array] = []
        self._folders: list[Path] = []
        # Each row's segment and position; an id in two segments is read from the first by name.
        unique, back = _unique(ids)
        segment = np.full(len(unique), -1, np.int32)
        position = np.zeros(len(unique), np.int64)
        failed = np.zeros(len(unique), np.bool_)
        for folder, shared in _segments(store, encoder):
            keys, vectors = (_verified_array(folder, f"{name}.npy") for name in ("keys", "vectors"))
            rows = _rows_in(keys, shared, unique)
            if shared is None:
                lost_rows = rows_of(_verified_array(folder, "failed.npy"), unique)
                failed[lost_rows[lost_rows >= 0]] = True
            positions = np.flatnonzero(rows >= 0)
            positions = positions[segment[rows[positions]] < 0]
            if len(positions):
                segment[rows[positions]] = len(self._arrays)
                position[rows[positions]] = positions
                self._arrays.append(vectors)
                self._folders.append(folder)
        absent = np.flatnonzero((segment < 0) & ~failed)
        if len(absent):
            raise NotInStore(
                f"encoder {encoder}: {len(absent)} of {len(unique)} ids have no vector "
                f"(first: {to_text(unique[absent[:1]])[0]}); run the embed stage"
            )
        self._segment, self._position = segment[back], position[back]
        order = np.lexsort((self._position, self._segment))
        self._order = order[np.searchsorted(self._segment[order], 0) :]  # failed rows, of segment -1, come first
        dimensions = {array.shape[1] for array in self._arrays}
        if len(dimensions) > 1:
            raise StoreDamaged(f"encoder {encoder}: segments of different dimensions {sorted(dimensions)}")
        self._dimension = dimensions.pop() if dimensions else self._dimension_on_record()
        self._dtype = self._arrays[0].dtype if self._arrays else np.dtype(np.float16)

    def _dimension_on_record(self) -> int:
        path = self.store.path("vectors", self.encoder, "encoder.json")
        return int(read_json(path)["dimension"]) if path.is_file() else 0

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.ids), self._dimension

    @property
    def failed_rows(self) -> Rows:
        """Rows whose id the encoder could give no vector; their vectors read as zeros."""
        return np.flatnonzero(self._segment < 0)

    def segments(self) -> Iterator[tuple[Path, Rows]]:
        """The segments that hold a vector of the rows, and which rows."""
        for number, folder in enumerate(self._folders):
            yield folder, np.flatnonzero(self._segment == number)

    def places(self, rows: Rows) -> Rows:
        """Where the vectors of some rows lie in their segments."""
        return self._position[rows]

    def segment_of(self, rows: Rows) -> Array:
        """The numbers, in the order of `segments`, of the segments that hold the vectors of some rows; -1 for failed ones."""
        return self._segment[rows]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As they are stored."""
        return self._dtype

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)`, as stored, segment by segment in the order on disk; failed rows last, as zeros."""
        order = self._order
        bounds = np.searchsorted(self._segment[order], np.arange(len(self._arrays) + 1))
        for array, start, stop in zip(self._arrays, bounds[:-1], bounds[1:], strict=True):
            for at in range(start, stop, self.block_rows):
                rows = order[at : min(at + self.block_rows, stop)]
                yield rows, _gather(array, self._position[rows])
        failed = self.failed_rows
        for at in range(0, len(failed), self.block_rows):
            rows = failed[at : at + self.block_rows]
            yield rows, np.zeros((len(rows), self._dimension), self._dtype)

    def take(self, rows: Rows) -> Array:
        """(len(rows), d) float16, or float32 if that is how they are stored."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and not (rows.min() >= 0 and rows.max() < len(self.ids)):
            raise BadInput(f"rows must be in 0..{len(self.ids) - 1}, got {rows.min()}..{rows.max()}")
        return gathered(self._arrays, self._segment[rows], self._position[rows], self._dimension, self._dtype)

    def nearest(self, queries: Array, k: int, within: Rows | None = None) -> tuple[Floats, Rows]:
        """The `k` rows of highest inner product with each query; see `selection.types.Vectors`.

        Every row is compared, which is exact up to float32 rounding (about d * 2**-24): rows closer than that may
        change places with the block size. Ties go to the lowest row.
        """
        if within is not None and len(within) <= self.block_rows:
            rows = np.unique(np.asarray(within, np.int64))
            return nearest_in(iter([(rows, self.take(rows))]), queries, k)
        blocks = self.blocks()
        if within is not None:
            wanted = np.zeros(len(self.ids), np.bool_)
            wanted[within] = True
            blocks = ((rows[wanted[rows]], block[wanted[rows]]) for rows, block in blocks)
        return nearest_in(blocks, queries, k)


def gathered(arrays: Sequence[Array], segment: Array, position: Rows, dimension: int, dtype: Any) -> Array:
    """(r, dimension) the vectors at some positions in the arrays of segments.

    Args:
        segment: (r,) which of the arrays; -1 for none, which gives zeros.
        position: (r,) the row in it.
    """
    # Rows of one segment after the other, in few operations each: many rows may lie in as many segments.
    order = np.lexsort((position, segment))
    numbers, starts = np.unique(segment[order], return_index=True)
    positions = position[order]
    in_order = np.zeros((len(order), dimension), dtype)
    for number, (start, stop) in zip(numbers.tolist(), pairwise([*starts.tolist(), len(order)]), strict=True):
        if number >= 0:  # else the encoder failed
            arrays[number].take(positions[start:stop], axis=0, out=in_order[start:stop], mode="clip")
    out = np.empty_like(in_order)
    out[order] = in_order
    return out


def nearest_in(blocks: Iterator[tuple[Rows, Array]], queries: Array, k: int) -> tuple[Floats, Rows]:
    """Exact nearest neighbours by inner product over blocks.

    Args:
        blocks: `(rows, block)`, each row once.
        queries: (m, d) float32.
        k: >= 1.

    Returns:
        similarity (m, k) float32 descending, rows (m, k) int64, ties to the lowest row; -inf and -1 where rows ran out.

    Cost: 2 * m * n * d; memory one block of float32 and m * (block + k) similarities.
    """
    queries = np.asarray(queries, np.float32)
    best = np.full((len(queries), k), -np.inf, np.float32)
    best_rows = np.full((len(queries), k), -1, np.int64)
    for rows, block in blocks:
        similarity = queries @ np.asarray(block, np.float32).T
        for i, row in enumerate(similarity):
            near = np.flatnonzero(row >= best[i, -1])
            if len(near) > 4 * k:
                near = near[row[near] >= np.partition(row[near], -k)[-k]]
            if len(near):
                values = np.concatenate([best[i], row[near]])
                candidates = np.concatenate([best_rows[i], rows[near]])
                order = np.lexsort((candidates, -values))[:k]
                best[i], best_rows[i] = values[order], candidates[order]
    return best, best_rows


def _unique(ids: Ids) -> tuple[Ids, Rows]:
    """Sorted unique ids and the place of each of `ids` among them; a snapshot's ids are that already."""
    if (ids[:-1] < ids[1:]).all():
        return ids, np.arange(len(ids))
    unique, back = np.unique(ids, return_inverse=True)
    return unique, back


def _gather(array: Array, positions: Rows) -> Array:
    """Rows of a memory-mapped array; a view where they stand together."""
    first, last = int(positions[0]), int(positions[-1])
    if last - first + 1 == len(positions):
        return array[first : last + 1]
    return np.asarray(array[positions])


def array_checksum(array: Array) -> str:
    """32 hex digits over dtype, shape and content."""
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()
