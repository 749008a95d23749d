"""Work on the vectors of a pool by parts of their segments: each process reads its part from the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from selection.blocks import ArrayBlocks, chunks
from selection.errors import rows_of_parent
from selection.types import Array, R, Rows
from storage.shards import Map, Report, so_far
from storage.store import read_array
from storage.vectors.segments import BLOCK_ROWS, StoredVectors, gathered

# Rows of a part: a second of work or more, and some hundred parts for each of many workers in a pool of a billion rows.
PART_ROWS = 2**17


class StoredParts:
    """The parts of stored vectors; see `selection.types.PartMap`.

    Args:
        parallel: where the parts are worked on.
        folder: where the places of the rows are written; all workers can read it.
        on_rows: called with the number of rows done so far and of all, of each pass over the vectors.

    Cost: 8 bytes a row on disk. What the work is given, queries or centres, goes to each part.
    """

    def __init__(
        self, vectors: StoredVectors, parallel: Map, folder: Path, on_rows: Callable[[int, int], object]
    ) -> None:
        self.vectors, self._parallel, self._folder, self._on_rows = vectors, parallel, folder, on_rows

    def __call__(
        self, work: Callable[..., R], arguments: Callable[[Rows], tuple[Any, ...] | None]
    ) -> Iterator[tuple[Rows, R]]:
        """See `PartMap`."""
        failed = self.vectors.failed_rows
        if len(failed) and (known := arguments(failed)) is not None:
            with rows_of_parent(failed):
                result = work(ArrayBlocks(np.zeros((len(failed), self.vectors.shape[1]), self.vectors.dtype)), *known)
            yield failed, result
        chosen = [(part, known) for part in self._parts if (known := arguments(part[2])) is not None]
        report = so_far(self._on_rows, sum(len(rows) for (_, _, rows), _ in chosen))
        shards = (PartShard(segment, places, work, known) for (segment, places, _), known in chosen)
        results = self._parallel(work_on_part, shards, report)
        for (_, _, rows), _ in chosen:
            with rows_of_parent(rows):
                result = next(results)
            yield rows, result

    def groups(
        self, work: Callable[..., R], groups: Sequence[Rows], arguments: Sequence[tuple[Any, ...]]
    ) -> Iterator[R]:
        """See `PartMap.groups`. Small groups go together, up to PART_ROWS rows."""
        report = so_far(self._on_rows, sum(map(len, groups)))
        folders = [folder for folder, _ in self.vectors.segments()]
        shape = (self.vectors.shape[1], self.vectors.dtype)
        ends = np.cumsum([len(rows) for rows in groups], dtype=np.int64)
        batches = np.split(np.arange(len(groups)), np.flatnonzero(np.diff(ends // PART_ROWS)) + 1)

        def shards() -> Iterator[GroupShard]:
            for batch in batches:
                located = [
                    Located(self.vectors.segment_of(groups[g]), self.vectors.places(groups[g])) for g in batch.tolist()
                ]
                yield GroupShard(folders, located, *shape, work, [arguments[g] for g in batch.tolist()])

        for results in self._parallel(work_on_groups, shards(), report) if len(groups) else ():
            yield from results

    @cached_property
    def _parts(self) -> list[tuple[Path, Path, Rows]]:
        """Segment, file of the rows' places in it, and the rows, ascending."""
        parts: list[tuple[Path, Path, Rows]] = []
        for segment, rows in self.vectors.segments():
            for part in chunks(rows[np.argsort(self.vectors.places(rows))], PART_ROWS):
                file = self._folder / f"{len(parts)}.npy"
                part.sort()
                np.save(file, self.vectors.places(part))
                parts.append((segment, file, part))
        return parts


@dataclass(frozen=True, eq=False)
class PartShard:
    """Vectors that any process can read.

    Attributes:
        segment: its folder.
        places: a file with the places in the segment of the part's rows.
        work, arguments: see `selection.types.PartMap`.
    """

    segment: Path
    places: Path
    work: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.segment}, part {self.places.stem}"


def work_on_part(shard: PartShard, report: Report) -> Any:
    """What the work gives for a part."""
    places = read_array(shard.places)
    result = shard.work(SegmentRows(read_array(shard.segment / "vectors.npy"), places), *shard.arguments)
    report(len(places))
    return result


@dataclass(frozen=True, eq=False)
class Located:
    """Where the vectors of some rows are.

    Attributes:
        segment: (r,) the number of the segment of each; -1 where there is no vector.
        place: (r,) in the segment.
    """

    segment: Rows
    place: Rows


@dataclass(frozen=True, eq=False)
class GroupShard:
    """Groups of vectors that any process can read.

    Attributes:
        segments: folders.
        groups: where the rows of each group are.
        dimension, dtype: of the vectors.
        work, arguments: see `selection.types.PartMap.groups`.
    """

    segments: Sequence[Path]
    groups: Sequence[Located]
    dimension: int
    dtype: Any
    work: Callable[..., Any]
    arguments: Sequence[tuple[Any, ...]]

    def __str__(self) -> str:
        return f"{len(self.groups):,} groups of vectors"


def work_on_groups(shard: GroupShard, report: Report) -> list[Any]:
    """What the work gives for each group."""
    arrays = [read_array(folder / "vectors.npy") for folder in shard.segments]
    results = []
    for located, known in zip(shard.groups, shard.arguments, strict=True):
        vectors = gathered(arrays, located.segment, located.place, shard.dimension, shard.dtype)
        results.append(shard.work(ArrayBlocks(vectors), *known))
        report(len(vectors))
    return results


class SegmentRows:
    """Rows of a segment (`Points`).

    Args:
        vectors: (any, d), memory-mapped.
        places: (n,) of the rows.
    """

    device = "cpu"

    def __init__(self, vectors: Array, places: Rows) -> None:
        self.vectors, self.places = vectors, places
        self.shape = (len(places), vectors.shape[1])

    def blocks(self) -> Iterator[tuple[Rows, Array]]:
        """Yield `(rows, block)` in the order on disk."""
        for rows in chunks(np.argsort(self.places), BLOCK_ROWS):
            yield rows, self.take(rows)

    def take(self, rows: Rows) -> Array:
        """(rows, d), as stored."""
        return np.asarray(self.vectors[self.places[rows]])
