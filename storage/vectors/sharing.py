"""Vectors that a changed file has in common with the file as it was: named, not written again.

The encoder of a file's last content is noted in `last/`. What is the same to the last bit, as it is stored, is shared
with the segment that holds it, unless that holds little else: then it is copied, so that an encoder is never in more
than a few segments however many nights its file has changed. Each copy at least doubles what is written anew, so that a
vector is copied about as often as the file has doubled its changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from selection.types import Array
from storage.ids import Ids, rows_of
from storage.store import Store, write_durably
from storage.vectors.segments import (
    StoredVectors,
    described_dimension,
    failed_ids,
    missing_ids,
    set_damaged_aside,
    share_segments,
)

# A segment in which fewer rows are the same than this many times those that are written anyway is copied.
WORTH = 2


class Former:
    """The vectors that some ids had in the last content of the same files.

    Args:
        encoder: that of the last content.
        ids: ascending; those that it does not have are no part of it.
        contents: of each file then, a digest of all that its vectors depend on.
    """

    def __init__(self, store: Store, encoder: str, ids: Ids, contents: frozenset[str]) -> None:
        self.contents = contents
        lacking = np.union1d(missing_ids(store, encoder, ids), failed_ids(store, encoder, ids))
        self.ids = ids[rows_of(ids, lacking) < 0]
        self._store = store
        self._vectors = StoredVectors(store, encoder, self.ids)
        self._same = np.zeros(len(self.ids), np.bool_)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """As they are stored."""
        return self._vectors.dtype

    def keep(self, ids: Ids) -> None:
        """Note that the vectors of some ids, of those that it has, are what they were."""
        rows = rows_of(ids, self.ids)
        self._same[rows[rows >= 0]] = True

    def compare(self, ids: Ids, vectors: Array) -> None:
        """Note which vectors, as they would be stored, are what they were."""
        rows = rows_of(ids, self.ids)
        known = np.flatnonzero(rows >= 0)
        now = vectors[known].astype(self.dtype)
        self._same[rows[known]] = (self._vectors.take(rows[known]) == now).all(axis=1)

    def share(self, encoder: str, wanted: int) -> Ids:
        """Share what is worth it; gives the ids, ascending.

        Args:
            wanted: how many ids are to have a vector.
        """
        held = [(segment, rows[self._same[rows]]) for segment, rows in self._vectors.segments()]
        written = wanted - sum(len(rows) for _, rows in held)
        shared = {}
        for segment, rows in sorted(held, key=lambda each: len(each[1])):
            if len(rows) < max(WORTH * written, 1):
                written += len(rows)
            else:
                shared[segment] = self.ids[rows]
        if shared:
            share_segments(self._store, encoder, shared)
        return np.sort(np.concatenate([np.empty(0, "S16"), *shared.values()]))


def former(store: Store, name: str, ids: Ids, dimension: int) -> Former | None:
    """The vectors that ids, ascending, had in the last content of the files of this name; None if it cannot serve."""
    path = _noted(store, name)
    encoder, *contents = (path.read_text("utf-8") if path.is_file() else "").split() or [""]
    if not encoder.isalnum() or described_dimension(store, encoder) != dimension:
        return None
    set_damaged_aside(store, encoder)
    last = Former(store, encoder, ids, frozenset(contents))
    return last if len(last.ids) else None


def note_content(store: Store, name: str, encoder: str, contents: Sequence[str]) -> None:
    """Note the encoder of the present content of the files of this name, and the `contents` of each."""
    path = _noted(store, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join((encoder, *contents, ""))
    if not path.is_file() or path.read_text("utf-8") != text:
        write_durably(path, text)


def _noted(store: Store, name: str) -> Path:
    return store.path("last", f"vectors-{hashlib.blake2b(name.encode(), digest_size=16).hexdigest()}")
