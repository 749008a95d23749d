"""Vectors of a user's files: the files are an encoder.

Their folder, `vectors/<encoder>/`, is named by the digest of the files, and its segments are keyed by winnow id like
those of a model, so everything that reads stored vectors works on them unchanged. A changed file is another encoder,
which shares with the last one what did not change.

A file is Parquet with a column of keys and one column of lists of floats, or `<name>.npy`, an (n, d) array of floats,
beside `<name>.ids.txt`, its keys, one a line, or `gradients.bin` of EleutherAI/bergson with its `info.json` and
`gradients.ids.txt`. A key is a winnow id or the id that a row had in its file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from selection.types import Array, Mask
from storage.errors import BadInput
from storage.files.lists import lines_of
from storage.files.tables import mapped, parquet_file
from storage.files.user_files import opened_as, url_digest
from storage.ids import Ids, rows_of, to_text, unique_ids
from storage.pool.keys import WINNOW_ID, KeyedRows, KeyMatch, key_texts, match_source
from storage.store import Store, utc_now
from storage.vectors.segments import (
    commit_segment,
    describe_encoder,
    failed_ids,
    is_described,
    missing_ids,
    normalise,
    set_damaged_aside,
)
from storage.vectors.sharing import former, note_content

# Above this share of vectors without a direction something is wrong with the file, not with a row; as for a model.
MAX_FAILED_FRACTION = 0.01

# Bytes of float32 vectors in memory at once: a block read, a segment written.
BLOCK_BYTES = 1 << 26

IDS_SUFFIX = ".ids.txt"

# What bergson (EleutherAI) calls its file of gradients.
GRADIENTS = "gradients.bin"

_EXAMPLES = 3

# Url -> digest of its content.
Digests = Mapping[str, str]
# Called with how many vectors are read, of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors, in Parquet the column that holds the keys, and how its vectors are stored."""

    url: str
    id_field: str = "id"
    store: str = "float16"

    @property
    def urls(self) -> tuple[str, ...]:
        """The file and what belongs to it."""
        if self.url.endswith(GRADIENTS):
            return (self.url, info_file(self.url), ids_file(self.url))
        return (self.url, ids_file(self.url)) if has_ids_file(self.url) else (self.url,)


@dataclass(frozen=True, kw_only=True)
class VectorImport:
    """What one import did.

    Attributes:
        n_rows: distinct ids of the source.
        n_new: vectors taken in now, failed ones not counted.
        n_shared: of these, which the files had before they changed, and which were not written again.
        n_failed: ids of the source whose vector is zero or not finite: they have none.
        unknown: keys that name no row; None if no file had to be read, as nothing was missing. So the next two.
        ambiguous: keys that name several rows, and so set nothing.
        repeated: keys beyond the first of a row (exact duplicates in the pool); the first counts.
        notes: the same in words, where there is something to say.
    """

    encoder: str
    n_rows: int
    n_new: int
    n_failed: int
    seconds: float
    n_shared: int = 0
    unknown: int | None = None
    ambiguous: int | None = None
    repeated: int | None = None
    notes: tuple[str, ...] = ()


def has_ids_file(url: str) -> bool:
    """Whether the keys of a file of vectors stand in another one."""
    return url.endswith((".npy", GRADIENTS))


def ids_file(url: str) -> str:
    """Where the keys of an .npy file or of bergson's gradients stand.

    >>> ids_file("data/vectors.npy"), ids_file("run/gradients.bin")
    ('data/vectors.ids.txt', 'run/gradients.ids.txt')
    """
    return url.removesuffix(".npy").removesuffix(".bin") + IDS_SUFFIX


def info_file(url: str) -> str:
    """Where bergson says what its file of gradients holds."""
    return url.removesuffix(GRADIENTS) + "info.json"


def files_fingerprint(store: Store, files: Sequence[VectorFile]) -> str:
    """32 hex digits that depend on the content of the files, in order, and on the columns of the keys, and on whether
    they are stored as float32.

    Raises:
        BadInput: a file cannot be opened.

    Cost: reads each file once in the life of a process, while it stays as it is.
    """
    return _fingerprint(files, _digests(store, files))


def _digests(store: Store, files: Sequence[VectorFile]) -> Digests:
    """Url -> digest of its present content."""
    return {url: url_digest(store, url) for file in files for url in file.urls}


def _fingerprint(files: Sequence[VectorFile], digests: Digests) -> str:
    depends_on: list[tuple[str, ...]] = [(file.id_field, *(digests[url] for url in file.urls)) for file in files]
    if stored_as(files) != "float16":
        depends_on.append((stored_as(files),))
    return hashlib.blake2b(repr(depends_on).encode(), digest_size=16).hexdigest()


def stored_as(files: Sequence[VectorFile]) -> str:
    """How all vectors of a space are stored: float32 if one of the files asks for it, else float16."""
    return max(file.store for file in files)


def files_dimension(store: Store, files: Sequence[VectorFile]) -> int:
    """The number of dimensions that all of the files have.

    Raises:
        BadInput: a file is not as it should be, or two differ.
    """
    return _dimension(store, files, _digests(store, files))


def _dimension(store: Store, files: Sequence[VectorFile], digests: Digests) -> int:
    dimensions = {}
    for file in files:
        with _reading(store, file, digests) as (reader, _):
            dimensions[file.url] = reader.dimension
    if len(set(dimensions.values())) != 1:
        listed = ", ".join(f"{url} has {d}" for url, d in dimensions.items())
        raise BadInput(f"vectors: all files of one space have the same number of dimensions, but {listed}")
    return next(iter(dimensions.values()))


def import_vectors(
    store: Store,
    files: Sequence[VectorFile],
    source: KeyedRows,
    *,
    name: str = "pool",
    on_progress: Progress | None = None,
    on_wait: Callable[[str], None] | None = None,
) -> VectorImport:
    """Commit the files' vectors of those ids of a source that have none yet, at unit length.

    Args:
        name: whose vectors they are: what did not change since the last files of this name is shared with these.

    Raises:
        BadInput: a file is not as it should be, an id of the source has no vector, or more than 1 % of them are zero or
            not finite. Fewer are recorded as failed, as a model's are.

    Cost: one pass over the files if something is missing; memory for the keys and five blocks of 64 MiB.
    """
    began = time.monotonic()
    digests = _digests(store, files)
    encoder, ids = _fingerprint(files, digests), unique_ids(source.ids)
    report: dict[str, Any] = {}
    n_new = 0
    with store.lock("import-vectors", f"take in the vectors of {source.name}", on_wait):
        set_damaged_aside(store, encoder)
        todo = missing_ids(store, encoder, ids)
        if len(todo) or not is_described(store, encoder):
            d = _dimension(store, files, digests)
            header = {"encoder": encoder, "spec": {"model": _listed(files)}, "dimension": d, "created_at": utc_now()}
        if len(todo):
            keys, only_winnow, ends = _keys(store, files, digests)
            match = match_source(keys, source, only_winnow=only_winnow)
            _require_all(files, match, ids, source, todo)
        if len(todo) or not is_described(store, encoder):
            describe_encoder(store, encoder, header)
        if len(todo):
            key_ids = _id_of_keys(match, ids, todo)
            parts = zip(files, np.split(key_ids, ends[:-1]), strict=True)
            given = [_Given(file, part, _content(file, digests, part)) for file, part in parts]
            n_shared = _share(store, encoder, name, given, digests, key_ids)
            n_new = n_shared + _commit(store, encoder, given, digests, on_progress)
            note_content(store, name, encoder, [each.content for each in given])
            report = _report(match) | {"n_shared": n_shared}
    n_failed = len(failed_ids(store, encoder, ids))
    # One is always allowed: a single bad row must not stop a small pool.
    if n_failed > max(1, MAX_FAILED_FRACTION * len(ids)):
        raise BadInput(
            f"vectors: {n_failed:,} of {len(ids):,} vectors of {_listed(files)} are zero or not finite, at most "
            f"{MAX_FAILED_FRACTION:.0%} may be; each is named in vectors/{encoder}/seg-*/segment.json"
        )
    seconds = time.monotonic() - began
    return VectorImport(encoder=encoder, n_rows=len(ids), n_new=n_new, n_failed=n_failed, seconds=seconds, **report)


def _keys(store: Store, files: Sequence[VectorFile], digests: Digests) -> tuple[list[str], Mask, list[int]]:
    """The keys of all files, one file after the other; which of them can only be winnow's; and where each file's end."""
    keys: list[str] = []
    only_winnow: list[bool] = []
    ends: list[int] = []
    for file in files:
        with _reading(store, file, digests) as (reader, _):
            keys += reader.keys()
        only_winnow += [file.id_field == WINNOW_ID] * (len(keys) - len(only_winnow))
        ends.append(len(keys))
    return keys, np.array(only_winnow, np.bool_), ends


def _report(match: KeyMatch) -> dict[str, Any]:
    """The counts and notes of a `VectorImport` on keys that set nothing."""
    rows, _ = match.first()
    counts = {
        "unknown": int(match.unknown.sum()),
        "ambiguous": int(match.ambiguous.sum()),
        "repeated": int((match.rows >= 0).sum()) - len(rows),
    }
    notes = []
    if counts["unknown"]:
        notes.append(f"{counts['unknown']:,} keys name no row (first: {_first(match, match.unknown)})")
    if counts["ambiguous"]:
        notes.append(f"{counts['ambiguous']:,} keys name several rows each (first: {_first(match, match.ambiguous)})")
    if counts["repeated"]:
        notes.append(f"{counts['repeated']:,} keys name a row that another key before them named; the first counts")
    if match.shadowed.any():
        notes.append(
            f"{match.shadowed.sum():,} keys are winnow's id of one row, which they name, and the own id of another "
            f"(first: {_first(match, match.shadowed)})"
        )
    return counts | {"notes": tuple(notes)}


def _first(match: KeyMatch, chosen: Mask) -> str:
    return ", ".join(map(repr, match.examples(chosen, _EXAMPLES)))


def _id_of_keys(match: KeyMatch, ids: Ids, wanted: Ids) -> Ids:
    """(k,) the id that each key gives a vector to; empty where it gives none of `wanted`, which are ascending."""
    key_ids = np.zeros(len(match.keys), "S16")
    rows, first = match.first()
    is_wanted = rows_of(ids, wanted)[rows] >= 0
    key_ids[first[is_wanted]] = ids[rows[is_wanted]]
    return key_ids


def _require_all(files: Sequence[VectorFile], match: KeyMatch, ids: Ids, source: KeyedRows, todo: Ids) -> None:
    named = np.zeros(len(ids), np.bool_)
    named[match.rows[match.rows >= 0]] = True
    without_vector = todo[~named[rows_of(todo, ids)]]
    if not len(without_vector):
        return
    occurrences, given_ids = source.occurrence_keys()
    first = np.flatnonzero(np.isin(occurrences, without_vector))[:_EXAMPLES]
    names = [
        given_id or text
        for given_id, text in zip(given_ids.take(first).to_pylist(), to_text(occurrences[first]), strict=True)
    ]
    notes = "; ".join(("", *_report(match)["notes"]))
    raise BadInput(
        f"vectors: {len(without_vector):,} of {len(ids):,} rows of {source.name} have no vector in {_listed(files)} "
        f"(first: {', '.join(map(repr, names))}){notes}. Every row needs one: add them, or leave the rows out"
    )


@dataclass(frozen=True, eq=False)
class _Given:
    """The vectors that a file gives.

    Attributes:
        ids: (k,) the id that each of its keys gives one to, empty for none; a view of those of all files.
        content: a digest of all that these vectors depend on.
    """

    file: VectorFile
    ids: Ids
    content: str


def _content(file: VectorFile, digests: Digests, key_ids: Ids) -> str:
    """A digest of a file and of the ids that its keys give a vector to."""
    digest = hashlib.blake2b(" ".join(digests[url] for url in file.urls).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(key_ids).view(np.uint8).data)
    return digest.hexdigest()


def _share(store: Store, encoder: str, name: str, given: Sequence[_Given], digests: Digests, key_ids: Ids) -> int:
    """Share the vectors that are what they were in the last content of the files; their keys give none any more.

    Args:
        name: whose vectors they are. Files may come and go.

    Returns:
        how many.

    Cost: one pass over the files that are not as they were.
    """
    wanted = unique_ids(key_ids[key_ids != b""])
    files = [each.file for each in given]
    last = former(store, name, wanted, _dimension(store, files, digests))
    if last is None or last.dtype != stored_as(files):
        return 0
    for each in given:
        if each.content in last.contents:
            last.keep(each.ids[each.ids != b""])
            continue
        at = 0
        with _reading(store, each.file, digests) as (reader, require_unchanged):
            for block in reader.blocks():
                block_ids = each.ids[at : at + len(block)]
                at += len(block)
                unit, usable = normalise(block[block_ids != b""])
                last.compare(block_ids[block_ids != b""][usable], unit[usable])
                require_unchanged()
    shared = last.share(encoder, len(wanted))
    key_ids[rows_of(key_ids, shared) >= 0] = b""
    return len(shared)


def _commit(
    store: Store,
    encoder: str,
    given: Sequence[_Given],
    digests: Digests,
    on_progress: Progress | None,
) -> int:
    """Commit the vectors of the keys that give one, of each file, a segment a block; returns how many are usable."""
    total, n_read = sum(int((each.ids != b"").sum()) for each in given), 0
    with ThreadPoolExecutor(1) as thread:
        segments = _Segments(store, encoder, stored_as([each.file for each in given]), thread)
        for each in given:
            if not (each.ids != b"").any():
                continue
            at = 0
            with _reading(store, each.file, digests) as (reader, require_unchanged):
                for block in reader.blocks():
                    block_ids = each.ids[at : at + len(block)]
                    at += len(block)
                    wanted = block_ids != b""
                    if wanted.any():
                        segments.add(block_ids[wanted], block if wanted.all() else block[wanted])
                        n_read += int(wanted.sum())
                    require_unchanged()
                    if segments.gathered() >= _block_rows(reader.dimension):
                        segments.commit()
                    if on_progress is not None:
                        on_progress(n_read, total)
        return segments.end()


class _Segments:
    """Gathers vectors, and commits them in a thread while further ones are read.

    Args:
        dtype: how they are stored.
        thread: has one worker.
    """

    def __init__(self, store: Store, encoder: str, dtype: str, thread: ThreadPoolExecutor) -> None:
        self._commit, self._dtype = partial(commit_segment, store, encoder, dtype=dtype), dtype
        self._thread = thread
        self._parts: list[tuple[Ids, Array, Mask]] = []
        self._committing: Future[str] | None = None
        self._n_usable = 0

    def add(self, ids: Ids, vectors: Array) -> None:
        """Gather vectors of any length. They are read now, not when they are committed."""
        self._parts.append((ids, *normalise(vectors, self._dtype)))

    def gathered(self) -> int:
        """How many vectors wait to be committed."""
        return sum(len(ids) for ids, _, _ in self._parts)

    def commit(self) -> None:
        """Begin to commit what was gathered, once what was committed before is on disk; raises what that raised."""
        self._wait()
        ids, unit, usable = (
            parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in zip(*self._parts, strict=True)
        )
        reasons = dict.fromkeys(to_text(ids[~usable]), "zero or not finite")
        details = {"failed": reasons, "created_at": utc_now()}
        self._committing = self._thread.submit(self._commit, ids, unit, details, failed=~usable)
        self._n_usable += int(usable.sum())
        self._parts = []

    def end(self) -> int:
        """Commit the rest; how many vectors were usable."""
        if self._parts:
            self.commit()
        self._wait()
        return self._n_usable

    def _wait(self) -> None:
        if self._committing is not None:
            self._committing.result()


class _Arrays:
    """An open array with its file of keys; the methods are those of `_Parquet`."""

    def __init__(self, array: Array | _BFloat16, ids: BinaryIO, url: str) -> None:
        self._array = array
        if self._array.ndim != 2 or self._array.dtype.kind != "f" or 0 in self._array.shape:
            raise BadInput(
                f"vectors: {url} must hold an (n, d) array of floats, "
                f"got shape {self._array.shape} and type {self._array.dtype}"
            )
        self._ids, self._url = ids, url
        self.dimension = int(self._array.shape[1])

    def keys(self) -> list[str]:
        try:
            keys = lines_of(self._ids.read())
        except ValueError as error:
            raise BadInput(f"vectors: {ids_file(self._url)} cannot be read as a list of ids: {error}") from error
        if len(keys) != len(self._array):
            raise BadInput(
                f"vectors: {ids_file(self._url)} has {len(keys):,} lines, {self._url} {len(self._array):,} vectors"
            )
        return keys

    def blocks(self) -> Iterator[Array]:
        step = _block_rows(self.dimension)
        for start in range(0, len(self._array), step):
            yield self._array[start : start + step]


def _npy(file: BinaryIO, url: str) -> Array:
    """The array of an open .npy file, memory-mapped."""
    try:
        return mapped(file)
    except ValueError as error:
        raise BadInput(f"vectors: {url} is not an .npy array: {error}") from error


class _BFloat16:
    """An (n, d) array of bfloat16, which numpy does not know: the upper halves of float32."""

    def __init__(self, halves: Array) -> None:
        self._halves, self.ndim, self.shape, self.dtype = halves, halves.ndim, halves.shape, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self._halves)

    def __getitem__(self, rows: slice) -> Array:
        return (self._halves[rows].astype(np.uint32) << 16).view(np.float32)


def _bergson(file: BinaryIO, info: BinaryIO, url: str) -> Array | _BFloat16:
    """The (n, d) gradients of an index of bergson, memory-mapped: what `bergson.data.load_gradients` maps.

    A row is an example; the modules of the model stand one behind the other, as in `grad_sizes` of info.json. Versions
    that named no `base_dtype` wrote the type of each module's numbers into `dtype`.
    """
    try:
        said = json.loads(info.read())
        by_token = said.get("attribute_tokens") or said.get("token_attributions")
        n, d = int(said["num_grads"]), sum(int(size) for size in said["grad_sizes"].values())
        name = str(said["base_dtype"] if "base_dtype" in said else said["dtype"]["formats"][0].rpartition(")")[2])
        bfloat16 = name in {"bfloat16", "<V2"}
        kind = np.dtype("<u2" if bfloat16 else name)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"vectors: {info_file(url)} does not describe gradients of bergson: {error!r}") from error
    if by_token:
        raise BadInput(f"vectors: {url} holds a gradient for each token; build the index without --attribute_tokens")
    if not (bfloat16 or kind.kind == "f") or min(n, d) < 1:
        raise BadInput(
            f"vectors: {info_file(url)} must describe floats, it says {n:,} gradients of {d:,} numbers, {name}"
        )
    size, expected = file.seek(0, 2), n * d * kind.itemsize
    if size != expected:
        raise BadInput(
            f"vectors: {url} has {size:,} bytes, {info_file(url)} describes {n:,} gradients of {d:,} numbers of "
            f"{kind.itemsize} bytes, which are {expected:,}"
        )
    array: Array = np.memmap(file, kind, "r", 0, (n, d))
    return _BFloat16(array) if bfloat16 else array


class _Parquet:
    """An open Parquet file of vectors."""

    def __init__(self, file: BinaryIO, id_field: str, url: str) -> None:
        try:
            self._file = parquet_file(file)
        except ValueError as error:
            raise BadInput(f"vectors: {url} {error}") from error
        schema = self._file.schema_arrow
        lists = [field.name for field in schema if _is_floats(field.type)]
        if len(lists) != 1:
            raise BadInput(
                f"vectors: {url} must have one column of lists of floats, it has {len(lists)}; "
                f"its columns: {', '.join(f'{field.name} ({field.type})' for field in schema)}"
            )
        if id_field not in schema.names:
            raise BadInput(f"vectors: {url} has no column {id_field!r} to key by; it has {', '.join(schema.names)}")
        self._column, self._id_field, self._url = lists[0], id_field, url
        self.dimension = self._first_length(schema.field(lists[0]).type)

    def keys(self) -> list[str]:
        column = self._file.read(columns=[self._id_field])[self._id_field]
        return key_texts(column, self._id_field, f"vectors: {self._url}").to_pylist()  # type: ignore[no-any-return]

    def blocks(self) -> Iterator[Array]:
        """(rows, d) float, in the order of the keys."""
        start = 0
        for batch in self._file.iter_batches(_block_rows(self.dimension), columns=[self._column]):
            column = batch.column(0)
            lengths = column.value_lengths().fill_null(self.dimension).to_numpy(zero_copy_only=False)
            wrong = np.flatnonzero(lengths != self.dimension)
            if len(wrong):
                raise BadInput(
                    f"vectors: {self._url}: the first vector has {self.dimension} dimensions, "
                    f"that of row {start + int(wrong[0]) + 1} has {lengths[wrong[0]]}"
                )
            present = np.asarray(column.is_valid())
            block = np.full((len(column), self.dimension), np.nan, np.float32)
            flat = column.drop_null().flatten().to_numpy(zero_copy_only=False)
            block[present] = flat.reshape(-1, self.dimension)
            start += len(column)
            yield block

    def _first_length(self, kind: pa.DataType) -> int:
        if pa.types.is_fixed_size_list(kind):
            return int(kind.list_size)
        for batch in self._file.iter_batches(1024, columns=[self._column]):
            for length in batch.column(0).value_lengths().drop_null().to_pylist():
                if length:
                    return int(length)
        raise BadInput(f"vectors: {self._url} holds no vector in {self._column!r}")


@contextmanager
def _reading(
    store: Store, file: VectorFile, digests: Digests
) -> Iterator[tuple[_Arrays | _Parquet, Callable[[], None]]]:
    """A file of these digests, and what raises once somebody has written to it."""
    with ExitStack() as stack:
        first, *others = ((url, *stack.enter_context(opened_as(store, url, digests[url]))) for url in file.urls)
        _, vectors, state = first
        beside = [opened for _, opened, _ in others]
        yield _reader(file, vectors, beside), partial(state.require, vectors, file.url)


def _reader(file: VectorFile, vectors: BinaryIO, beside: Sequence[BinaryIO]) -> _Arrays | _Parquet:
    """What reads an open file, and those that belong to it."""
    if file.url.endswith(GRADIENTS):
        info, ids = beside
        return _Arrays(_bergson(vectors, info, file.url), ids, file.url)
    if has_ids_file(file.url):
        return _Arrays(_npy(vectors, file.url), beside[0], file.url)
    return _Parquet(vectors, file.id_field, file.url)


def _is_floats(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(is_list and pa.types.is_floating(kind.value_type))


def _block_rows(dimension: int) -> int:
    return max(BLOCK_BYTES // (4 * dimension), 1)


def _listed(files: Sequence[VectorFile]) -> str:
    return ", ".join(file.url for file in files)
