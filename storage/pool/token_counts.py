"""How many tokens each row has, by tokenizer: counted once, whatever pool the row is in.

tokens/<tokenizer>/seg-<hash>/   keys.npy (S16, ascending), counts.npy (int64)
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from storage.damage import committed_whole
from storage.ids import Ids, rows_of
from storage.store import Store

Counts = npt.NDArray[np.int64]
MISSING = -1


def read_counts(store: Store, tokenizer: str, ids: Ids) -> Counts:
    """(n,) the tokens of each id, `MISSING` where it was not counted yet.

    Args:
        tokenizer: its fingerprint.

    Cost: 24 bytes a counted row, whole.
    """
    counts = np.full(len(ids), MISSING, np.int64)
    for segment in store.committed("tokens", tokenizer):
        if not committed_whole(store, "tokens", tokenizer, segment):
            continue  # they are counted again
        folder = store.path("tokens", tokenizer, segment)
        keys = np.load(folder / "keys.npy", allow_pickle=False)
        positions = rows_of(ids, keys)
        counted = positions >= 0
        counts[counted] = np.load(folder / "counts.npy", allow_pickle=False)[positions[counted]]
    return counts


def commit_counts(store: Store, tokenizer: str, ids: Ids, counts: Counts) -> None:
    """Commit the tokens of some ids; the same again is one segment."""
    order = np.argsort(ids)
    keys, sorted_counts = ids[order], counts[order].astype(np.int64)
    name = f"seg-{blake2b(keys.tobytes() + sorted_counts.tobytes(), digest_size=16).hexdigest()}"
    with store.committing("tokens", tokenizer, name) as folder:
        np.save(folder / "keys.npy", keys, allow_pickle=False)
        np.save(folder / "counts.npy", sorted_counts, allow_pickle=False)
