"""What a store holds, as arrays for Python programs."""

from __future__ import annotations

from pathlib import Path

from storage.catalog.query import query_catalog
from storage.errors import NotInStore
from storage.ids import from_text
from storage.store import Store
from storage.vectors.index import open_vectors
from storage.vectors.segments import StoredVectors


def load_vectors(store: str | Path, encoder: str | None = None) -> tuple[list[str], StoredVectors]:
    """The vectors of the pool as it is now, as the last run published it.

    Args:
        store: the folder.
        encoder: as `encoders` in SQL names it, or the name of its model; by default that of the newest selection that
            used one.

    Returns:
        n ids, ascending: `SELECT ... FROM examples ORDER BY id` has the same order; and (n, d) vectors, which `Pool`
        and `selection.metrics` take. They stay on disk. A row that the encoder could give no vector is zeros, and is in
        `failed_rows`.

    Raises:
        NotInStore: nothing is published, there is no such encoder, or a row has not been encoded with it yet.

    Cost: one query; 20 bytes a row beside the ids.
    """
    opened = Store(Path(store))
    ids = query_catalog(opened, "SELECT id FROM examples ORDER BY id")["id"].to_pylist()
    return ids, open_vectors(opened, _encoder(opened, encoder), from_text(ids))


def _encoder(store: Store, name: str | None) -> str:
    if name is None:
        newest = (
            "SELECT encoder FROM selections WHERE encoder IS NOT NULL ORDER BY created_at DESC, selection_id LIMIT 1"
        )
        matches = query_catalog(store, newest)["encoder"].to_pylist()
        cause = "no selection has used an encoder yet"
    else:
        named = "SELECT encoder FROM encoders WHERE $1 IN (encoder, model) ORDER BY created_at DESC LIMIT 1"
        matches = query_catalog(store, named, [name])["encoder"].to_pylist()
        cause = f"no encoder is called {name!r}"
    if matches:
        return str(matches[0])
    known = query_catalog(store, "SELECT DISTINCT model FROM encoders ORDER BY model")["model"].to_pylist()
    raise NotInStore(f"{store.root}: {cause}; there are: {', '.join(map(str, known)) or 'none'}")
