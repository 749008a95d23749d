"""What `postprocess` of an encoder was fitted on, and the frame that came of it.

    records/fits/<key>/   fit.json, ids.npy (the sample), mean.npy, matrix.npy (to whiten)

The key names the encoder and its options, not the pool: the first fit of a key stays, however the pool grows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from selection.types import Doubles
from storage.checksums import verified
from storage.damage import committed_whole, readable
from storage.ids import Ids
from storage.store import Store, read_array, utc_now, write_json


@dataclass(frozen=True)
class Fit:
    """A fit, done or to be done.

    Attributes:
        key: names it.
        ids: the sample, sorted.
        committed: whether it is in the store; a fit to be done is on the pool as it is now.
        recorded: the id under which it was committed; rows of its sample may have been forgotten since.
    """

    key: str
    ids: Ids
    committed: bool
    recorded: str = ""

    @property
    def id(self) -> str:
        """32 hex digits of all that the frame depends on; known before anything is embedded."""
        return (
            self.recorded or hashlib.blake2b(self.key.encode() + b"\0" + self.ids.tobytes(), digest_size=16).hexdigest()
        )


def stored_fit(store: Store, key: str) -> Fit | None:
    """The fit of a key; None where there is none, or it is damaged."""
    header = readable(store, "fits", key, whole=True) if store.has("records", "fits", key) else None
    if header is None:
        return None
    ids = np.asarray(read_array(verified(store.path("records", "fits", key, "ids.npy"))))
    return Fit(key, ids, committed=True, recorded=header["fit"])


def commit_fit(store: Store, fit: Fit, arrays: Mapping[str, Doubles], details: Mapping[str, Any]) -> None:
    """Commit a frame. Of two at once the first stays; read it again with `stored_fit`."""
    committed_whole(store, "fits", fit.key)  # a damaged one is put aside
    with store.committing("records", "fits", fit.key) as folder:
        np.save(folder / "ids.npy", fit.ids, allow_pickle=False)
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        write_json(folder / "fit.json", {**details, "fit": fit.id, "rows": len(fit.ids), "created_at": utc_now()})


def read_arrays(store: Store, key: str) -> dict[str, Doubles]:
    """`mean`, and `matrix` where there is one.

    Raises:
        StoreDamaged: a file is not as it was committed.
    """
    folder = store.path("records", "fits", key)
    names = [name for name in ("mean", "matrix") if (folder / f"{name}.npy").exists()]
    return {name: np.asarray(read_array(verified(folder / f"{name}.npy"))) for name in names}
