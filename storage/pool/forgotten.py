"""Rows that were forgotten on request: hashes of their ids, by which they are refused when they come in again.

    records/forgotten/<hash>/   forgotten.json: how many, when; hashes.npy: (n,) S16, ascending

Nothing else is kept of such a row. Who has its text can find out that it was forgotten, nobody can find its text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from selection.types import Mask
from storage.ids import Ids, from_bytes, rows_of, to_bytes
from storage.store import Store, read_array, utc_now, write_json

KIND = "forgotten"


class Forgotten:
    """The rows that were forgotten, as the store has them now.

    Cost: reads 16 bytes a row.
    """

    def __init__(self, store: Store) -> None:
        folders = [store.path("records", KIND, name) for name in store.records(KIND)]
        self._hashes: Ids = np.unique(
            np.concatenate([np.empty(0, "S16"), *(read_array(folder / "hashes.npy") for folder in folders)])
        )

    def __len__(self) -> int:
        return len(self._hashes)

    def has(self, ids: Ids) -> Mask:
        """(n,) which of some rows were forgotten."""
        if not len(self):
            return np.zeros(len(ids), np.bool_)
        return rows_of(_hashes(to_bytes(ids)), self._hashes) >= 0


def commit_forgotten(store: Store, ids: Ids) -> None:
    """Refuse some rows from now on; the same again is one record."""
    hashes = np.sort(_hashes(to_bytes(ids)))
    name = hashlib.blake2b(hashes.tobytes(), digest_size=16).hexdigest()
    if not store.has("records", KIND, name):
        with store.committing("records", KIND, name) as folder:
            np.save(folder / "hashes.npy", hashes, allow_pickle=False)
            write_json(folder / "forgotten.json", {"rows": len(hashes), "created_at": utc_now()})


def _hashes(ids: Iterable[bytes]) -> Ids:
    return from_bytes(hashlib.blake2b(value, digest_size=16, person=b"winnow forgotten").digest() for value in ids)
