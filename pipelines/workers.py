"""Other processes that a draw can let read the pool."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipelines.text_shards import SnapshotTexts
from pipelines.vector_shards import StoredParts
from selection.types import PartMap, TextMap
from storage.pool.snapshot import Snapshot
from storage.shards import Map
from storage.vectors.segments import StoredVectors


@dataclass(frozen=True)
class Workers:
    """Where texts and vectors of the pool are read beside this process.

    Attributes:
        parallel: where shards are worked on.
        title: of what they work for.
        progress: called with what is read, the number of rows done so far and of all.
        folder: where files for those that read vectors go; None where this process reads vectors as well.
    """

    parallel: Map
    title: str
    progress: Callable[[str, int, int], object]
    folder: Path | None

    def texts_of(self, snapshot: Snapshot) -> TextMap:
        """The texts of a snapshot."""
        return SnapshotTexts(snapshot, self.parallel, partial(self.progress, f"{self.title}: read the texts"))

    def parts_of(self, vectors: StoredVectors) -> PartMap | None:
        """The vectors of a snapshot; None where this process reads them as well."""
        if self.folder is None:
            return None
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return StoredParts(vectors, self.parallel, folder, partial(self.progress, f"{self.title}: read the vectors"))
